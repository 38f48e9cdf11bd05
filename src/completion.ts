import { completeWord, type Candidate } from './cli/complete-word.ts';
import { useCompileCache } from './compile-cache.ts';
import type { CommandDescription } from './flags.ts';
import { handleOutputErrors } from './output-errors.ts';
import { KUBECTL_SUBCOMMANDS } from './subcommands.ts';

/** Directives of Cobra, which end the output: complete files as well, or nothing else. */
const FILES = ':0';
const NO_FILES = ':4';

const DESCRIPTIONS: Readonly<Record<string, () => Promise<CommandDescription>>> = {
  doctor: async () => (await import('./doctor/doctor.ts')).COMMAND,
  status: async () => (await import('./status/status.ts')).COMMAND,
  get: async () => (await import('./get/get.ts')).COMMAND,
  expect: async () => (await import('./expect/expect.ts')).COMMAND,
};

/** Prints the completions of `kubectl rt`; see `completionsOf`. */
export async function runCompletion(words: readonly string[]): Promise<void> {
  useCompileCache();
  handleOutputErrors('kubectl rt');
  process.stdout.write(await completionsOf(words, process.env));
}

/**
 * Returns the completions of the last word of `kubectl rt …` in the form that kubectl expects of the program
 * `kubectl_complete-rt`: one candidate per line, with a description after a tab, and a directive.
 *
 * @param words the words after `kubectl rt`; the last one is incomplete and may be empty
 */
export async function completionsOf(
  words: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  const [name = '', ...rest] = words;
  if (words.length < 2) {
    const commands = KUBECTL_SUBCOMMANDS.filter((command) => command.startsWith(name));
    return format(
      commands.map((word) => ({ word, description: '' })),
      NO_FILES,
    );
  }
  const before = rest.slice(0, -1);
  const word = rest.at(-1) ?? '';
  const load = Object.hasOwn(DESCRIPTIONS, name) ? DESCRIPTIONS[name] : undefined;
  if (load === undefined) return format([], NO_FILES);
  const { candidates, also } = completeWord(await load(), before, word);
  if (also === 'file') return format(candidates, FILES);
  if (also === 'nothing' || name !== 'get') return format(candidates, NO_FILES);
  const { completeTunnelNames } = await import('./get/complete-names.ts');
  const names = await completeTunnelNames(before, word, env);
  return format(
    names.map((tunnel) => ({ word: tunnel, description: '' })),
    NO_FILES,
  );
}

function format(candidates: readonly Candidate[], directive: string): string {
  const lines = candidates.map(({ word, description }) =>
    description === '' ? word : `${word}\t${description}`,
  );
  return `${[...lines, directive].join('\n')}\n`;
}
