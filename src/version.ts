import { readFileSync } from 'node:fs';

/** Returns the version of this package. `package.json` is in the parent directory of both `src` and `dist`. */
export function packageVersion(): string {
  const file = new URL('../package.json', import.meta.url);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}
