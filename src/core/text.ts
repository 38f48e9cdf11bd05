/** Rules for text that comes from a reporter or a policy: what can be displayed, and which patterns match it. */

/**
 * C0, DEL and C1 control characters, line and paragraph separators, and bidirectional overrides. The CRDs have the same
 * set in their `pattern`s: without these, the API server accepts the characters and kubectl prints them unescaped.
 */
// oxlint-disable-next-line no-control-regex -- rejecting control characters is the purpose
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/u;
/** Maximum length of a quoted value, so that no peer can fill the log. */
const MAX_QUOTED_LENGTH = 64;

/** Returns the first character that must not be displayed, as `U+202E`; undefined if there is none. */
export function findForbiddenCharacter(text: string): string | undefined {
  const match = FORBIDDEN.exec(text);
  return match === null
    ? undefined
    : `U+${match[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
}

/** Replaces each character that must not be displayed by `?` and truncates the text to `limit` UTF-16 units. */
export function sanitize(text: string, limit: number): string {
  const truncated = text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
  return truncated.toWellFormed().replaceAll(new RegExp(FORBIDDEN, 'gu'), '?');
}

/** Quotes a reported value for a message: escaped, and truncated to 64 characters. */
export function quote(value: string): string {
  const truncated =
    value.length > MAX_QUOTED_LENGTH ? `${value.slice(0, MAX_QUOTED_LENGTH).toWellFormed()}…` : value;
  return JSON.stringify(truncated).replace(
    /[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/**
 * Returns true if the text has more than `limit` code points, the unit in which the API server counts `maxLength`.
 * A length in UTF-16 units within the limit decides without counting.
 */
export function exceedsLength(text: string, limit: number): boolean {
  if (text.length <= limit) return false;
  return text.length > 2 * limit || countCodePoints(text) > limit;
}

/** A lone surrogate counts as one code point. */
function countCodePoints(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/**
 * The texts that a list of patterns matches: `value` matches that text only, `prefix*` every text with that prefix, and
 * `*` every text. Texts are compared by code unit, without normalization.
 */
export interface TextMatcher {
  /** True if every text matches, whatever the other fields contain. */
  readonly matchesAll: boolean;
  readonly exact: ReadonlySet<string>;
  /** Prefixes by length, so that a match takes one lookup per length, however many patterns there are. */
  readonly prefixes: ReadonlyMap<number, ReadonlySet<string>>;
}

const EMPTY_SET: ReadonlySet<string> = new Set();

/**
 * Returns what is wrong with a pattern; undefined if it is valid.
 *
 * @param allowEmpty whether "" is valid and matches the empty text
 */
export function textPatternError(pattern: string, allowEmpty = false): string | undefined {
  if (pattern === '') return allowEmpty ? undefined : 'must not be empty';
  const star = pattern.indexOf('*');
  return star < 0 || star === pattern.length - 1
    ? undefined
    : `${quote(pattern)} has a misplaced *: only * and prefix* are supported`;
}

/** Creates a matcher from valid patterns. */
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

/** Returns true if one of the patterns matches the text. */
export function matchesText({ matchesAll, exact, prefixes }: TextMatcher, text: string): boolean {
  if (matchesAll || exact.has(text)) return true;
  for (const [length, sameLength] of prefixes) {
    if (length <= text.length && sameLength.has(text.slice(0, length))) return true;
  }
  return false;
}

/** Returns true if one of the patterns alone matches every text that `pattern` matches. */
export function coversPattern({ matchesAll, exact, prefixes }: TextMatcher, pattern: string): boolean {
  if (!pattern.endsWith('*')) return matchesText({ matchesAll, exact, prefixes }, pattern);
  // Only a prefix can cover a prefix.
  return matchesText({ matchesAll, exact: EMPTY_SET, prefixes }, pattern.slice(0, -1));
}

/** Formats a count with its noun: `1 tunnel`, `2 tunnels`. */
export function pluralize(count: number, noun: string, plural = `${noun}s`): string {
  return `${count} ${count === 1 ? noun : plural}`;
}
