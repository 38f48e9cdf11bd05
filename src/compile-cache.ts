import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { packageFile } from './package-files.ts';

/** In `dist`, because a user who can write it must not gain anything: such a user can change the program anyway. */
const FOLDER = join('dist', 'compile-cache');

/**
 * Lets Node load the code that V8 has compiled earlier, which the build writes (`build/`). Without it, for example with
 * another version of Node or as another user, the start takes longer. Must be called before anything large is loaded.
 */
export function useCompileCache(): void {
  // TypeScript in `src` is for development, where the files change.
  if (import.meta.url.endsWith('.js')) enableCompileCache(packageFile(FOLDER));
}
