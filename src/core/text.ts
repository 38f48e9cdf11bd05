/** What may be shown: rules for text that comes from a reporter and ends in a terminal, a label or a log line. */

/**
 * C0, DEL and C1 control characters, line and paragraph separators, and the bidirectional overrides. The same set as
 * the `pattern`s of the CRDs: the API server takes all of them without one, and kubectl prints them raw.
 */
// oxlint-disable-next-line no-control-regex -- refusing control characters is the purpose
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/u;

/** The first character of `text` that is refused in anything shown, as `U+202E`; undefined when there is none. */
export function findForbiddenCharacter(text: string): string | undefined {
  const match = FORBIDDEN.exec(text);
  return match === null
    ? undefined
    : `U+${match[0].charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
}

/** `text` with a `?` for each character that is refused in anything shown, and cut to `limit` UTF-16 units. */
export function sanitize(text: string, limit: number): string {
  const truncated = text.length <= limit ? text : `${text.slice(0, limit - 1)}…`;
  return truncated.toWellFormed().replaceAll(new RegExp(FORBIDDEN, 'gu'), '?');
}

/**
 * True when `text` has more than `limit` code points, which is how the API server counts `maxLength`.
 * A UTF-16 length within the limit settles it without counting.
 */
export function exceedsLength(text: string, limit: number): boolean {
  if (text.length <= limit) return false;
  return text.length > 2 * limit || codePoints(text) > limit;
}

/** The number of code points in `text`; a lone surrogate counts as one. */
function codePoints(text: string): number {
  let points = 0;
  for (const _ of text) points += 1;
  return points;
}
