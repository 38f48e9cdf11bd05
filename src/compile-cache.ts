import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { packageFile } from './package-files.ts';

/**
 * Returns the folder for the code that V8 has compiled of this package. In `dist`, because a user who can write it must
 * not gain anything: such a user can change the program anyway.
 */
export function compileCacheFolder(): string {
  return packageFile(join('dist', 'compile-cache'));
}

/**
 * Lets Node store and load the code that V8 compiles when a module is loaded. Without effect where the folder cannot be
 * written, as in the image. Must be called before anything large is loaded; the server has a cache of its own, see
 * `loadBundle`.
 */
export function useCompileCache(): void {
  // TypeScript in `src` is for development, where the files change.
  if (import.meta.url.endsWith('.js')) enableCompileCache(compileCacheFolder());
}
