/** How the operator is started when it is started by its name: the first line of `src/main.ts` and of `dist/main.js`. */
import { readFileSync } from 'node:fs';

/** The parts of a line like `#!/usr/bin/env -S NAME=value node --flag`. */
export interface Shebang {
  /** Flags of Node. */
  readonly nodeFlags: readonly string[];
  /** Environment variables, as `NAME=value`. */
  readonly variables: readonly string[];
}

export function readShebang(file: string): Shebang {
  const [line = ''] = readFileSync(file, 'utf8').split('\n', 1);
  const words = line.split(' ');
  return {
    nodeFlags: words.filter((word) => word.startsWith('--')),
    variables: words.filter((word) => /^\w+=/.test(word)),
  };
}
