import { shown } from './violation.ts';

/**
 * Which texts a list of patterns means: `value` is that text and no other, `prefix*` every text that begins so, `*`
 * every text. Compared by code unit, nothing is normalised.
 */
export interface TextMatcher {
  /** True: every text, whatever the rest says. */
  readonly all: boolean;
  readonly exact: ReadonlySet<string>;
  /** Beginnings by their length: a look-up for each length, however many patterns there are. */
  readonly beginnings: ReadonlyMap<number, ReadonlySet<string>>;
}

/** What is wrong with a pattern; undefined when it is one. @param mayBeEmpty whether "" stands for the empty text */
export function textPatternMistake(pattern: string, mayBeEmpty = false): string | undefined {
  if (pattern === '') return mayBeEmpty ? undefined : 'must not be empty';
  const star = pattern.indexOf('*');
  return star < 0 || star === pattern.length - 1
    ? undefined
    : `${shown(pattern)} has a misplaced *: only * and prefix* are supported`;
}

/** @param patterns each without a mistake */
export function textMatcher(patterns: readonly string[]): TextMatcher {
  const exact = new Set<string>();
  const beginnings = new Map<number, Set<string>>();
  for (const pattern of patterns) {
    if (!pattern.endsWith('*')) {
      exact.add(pattern);
      continue;
    }
    const beginning = pattern.slice(0, -1);
    const ofLength = beginnings.get(beginning.length);
    if (ofLength === undefined) beginnings.set(beginning.length, new Set([beginning]));
    else ofLength.add(beginning);
  }
  return { all: beginnings.has(0), exact, beginnings };
}

/** True when one of the patterns means this text. */
export function matchesText({ all, exact, beginnings }: TextMatcher, text: string): boolean {
  if (all || exact.has(text)) return true;
  for (const [length, ofLength] of beginnings) {
    if (length <= text.length && ofLength.has(text.slice(0, length))) return true;
  }
  return false;
}

/** True when one of the patterns by itself means every text that this one means. */
export function coversPattern({ all, exact, beginnings }: TextMatcher, pattern: string): boolean {
  if (!pattern.endsWith('*')) return matchesText({ all, exact, beginnings }, pattern);
  // Only a beginning can mean all that a beginning means.
  return matchesText({ all, exact: NO_TEXTS, beginnings }, pattern.slice(0, -1));
}

const NO_TEXTS: ReadonlySet<string> = new Set();
