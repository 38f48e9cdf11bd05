/** Plain text for terminals: ages, counts, lists and tables. */

/**
 * Formats a duration in milliseconds as kubectl formats ages, in one unit: `4s`, `12m`, `3h`, `2d`. The next larger unit
 * is used from 2 of it on, so 90 s is `90s` instead of `1m`. Less than a second and negative durations are `0s`.
 */
export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

/** Joins the first `limit` names with commas and appends the number of the others: `a, b and 3 more`. */
export function truncateList(names: readonly string[], limit = 5): string {
  const remaining = names.length - limit;
  return names.slice(0, limit).join(', ') + (remaining > 0 ? ` and ${remaining} more` : '');
}

const COLUMN_GAP = '   ';

/**
 * Formats lines of cells below a header, each column as wide as its longest cell, without trailing spaces. The text ends
 * with a line feed. Widths are counted in UTF-16 units, so wide or combining characters shift only their own line.
 */
export function formatTable(header: readonly string[], body: readonly (readonly string[])[]): string {
  const lines = [header, ...body];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join(COLUMN_GAP)
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** Compares two strings by UTF-16 code unit, for an order that does not depend on the locale. */
export function compareStrings(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}
