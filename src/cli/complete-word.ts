import type { CommandDescription, Flags } from '../flags.ts';

/** A word that a shell can offer. */
export interface Candidate {
  readonly word: string;
  /** Empty: none. */
  readonly description: string;
}

/** What can stand at the end of a command line. */
export interface WordCompletion {
  readonly candidates: readonly Candidate[];
  /** What else: an operand of the command, a file, or nothing. */
  readonly also: 'operand' | 'file' | 'nothing';
}

const NOTHING: WordCompletion = { candidates: [], also: 'nothing' };
/** Placeholders of values that are files. */
const FILE_METAVARS: ReadonlySet<string> = new Set(['FILE', 'DIR']);

/**
 * Completes the flags of a command, and those values of flags that are one of a few.
 *
 * @param before the complete words after the name of the command
 * @param word the beginning of the last word; may be empty
 */
export function completeWord(
  { flags, operand }: Pick<CommandDescription, 'flags' | 'operand'>,
  before: readonly string[],
  word: string,
): WordCompletion {
  const rest: WordCompletion = operand === undefined ? NOTHING : { candidates: [], also: 'operand' };
  if (before.includes('--')) return rest;
  const flag = flagOf(flags, before.at(-1) ?? '');
  if (flag !== undefined && 'read' in flag) return completeValue(flag, word, '');
  if (!word.startsWith('-')) return rest;
  const [, prefix = '', name = '', value = ''] = /^((--[^=]+)=)(.*)$/.exec(word) ?? [];
  const assigned = flagOf(flags, name);
  if (prefix !== '')
    return assigned !== undefined && 'read' in assigned ? completeValue(assigned, value, prefix) : NOTHING;
  const candidates = [...Object.entries(flags), ['help', { description: 'print this help' }] as const]
    .map(([flagName, { description }]) => ({ word: `--${flagName}`, description }))
    .filter((candidate) => candidate.word.startsWith(word));
  return { candidates, also: 'nothing' };
}

/** Returns the flag that a word names without a value. */
function flagOf(flags: Flags, word: string): Flags[string] | undefined {
  const [, long, short] = /^(?:--([^=]+)|-([A-Za-z]))$/.exec(word) ?? [];
  if (long !== undefined) return Object.hasOwn(flags, long) ? flags[long] : undefined;
  return Object.values(flags).find((flag) => short !== undefined && flag.short === short);
}

function completeValue(
  { read, metavar }: Extract<Flags[string], { readonly metavar: string }>,
  value: string,
  prefix: string,
): WordCompletion {
  if (FILE_METAVARS.has(metavar)) return { candidates: [], also: 'file' };
  const values = read.range?.kind === 'enum' ? read.range.values : [];
  const candidates = values
    .filter((candidate) => candidate !== '' && candidate.startsWith(value))
    .map((candidate) => ({ word: prefix + candidate, description: '' }));
  return { candidates, also: 'nothing' };
}
