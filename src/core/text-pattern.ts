import { quote } from './violation.ts';

/**
 * Which texts a list of patterns means: `value` is that text and no other, `prefix*` every text that begins so, `*`
 * every text. Compared by code unit, nothing is normalised.
 */
export interface TextMatcher {
  /** True: every text, whatever the rest says. */
  readonly matchesAll: boolean;
  readonly exact: ReadonlySet<string>;
  /** Beginnings by their length: a look-up for each length, however many patterns there are. */
  readonly prefixes: ReadonlyMap<number, ReadonlySet<string>>;
}

/** What is wrong with a pattern; undefined when it is one. @param allowEmpty whether "" stands for the empty text */
export function textPatternError(pattern: string, allowEmpty = false): string | undefined {
  if (pattern === '') return allowEmpty ? undefined : 'must not be empty';
  const star = pattern.indexOf('*');
  return star < 0 || star === pattern.length - 1
    ? undefined
    : `${quote(pattern)} has a misplaced *: only * and prefix* are supported`;
}

/** @param patterns each without a mistake */
export function createTextMatcher(patterns: readonly string[]): TextMatcher {
  const exact = new Set<string>();
  const prefixes = new Map<number, Set<string>>();
  for (const pattern of patterns) {
    if (!pattern.endsWith('*')) {
      exact.add(pattern);
      continue;
    }
    const prefix = pattern.slice(0, -1);
    const sameLength = prefixes.get(prefix.length);
    if (sameLength === undefined) prefixes.set(prefix.length, new Set([prefix]));
    else sameLength.add(prefix);
  }
  return { matchesAll: prefixes.has(0), exact, prefixes };
}

/** True when one of the patterns means this text. */
export function matchesText({ matchesAll, exact, prefixes }: TextMatcher, text: string): boolean {
  if (matchesAll || exact.has(text)) return true;
  for (const [length, sameLength] of prefixes) {
    if (length <= text.length && sameLength.has(text.slice(0, length))) return true;
  }
  return false;
}

/** True when one of the patterns by itself means every text that this one means. */
export function coversPattern({ matchesAll, exact, prefixes }: TextMatcher, pattern: string): boolean {
  if (!pattern.endsWith('*')) return matchesText({ matchesAll, exact, prefixes }, pattern);
  // Only a beginning can mean all that a beginning means.
  return matchesText({ matchesAll, exact: EMPTY_SET, prefixes }, pattern.slice(0, -1));
}

const EMPTY_SET: ReadonlySet<string> = new Set();
