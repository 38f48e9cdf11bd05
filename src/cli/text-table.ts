/** Between two columns. */
const GAP = '   ';

/**
 * Rows under a header, each column as wide as its longest cell; no blanks at a line's end. Ends with a line feed. Widths
 * are UTF-16 units: what is shown wider or narrower shifts its own line and no other.
 */
export function textTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join(GAP)
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}
