import type { MetricSummary, Target } from './metric.ts';

/**
 * The table for people: figure, target, whether it is held, and the spread over runs.
 *
 * @param showVerdicts false for a quick run, whose sizes the targets are not set for
 */
export function formatTable(results: readonly MetricSummary[], showVerdicts: boolean): string {
  const rows = results.map((result) => {
    const { name, unit, target, met, min, median, max } = result;
    const verdict = met === undefined || !showVerdicts ? '' : met ? 'held' : 'MISSED';
    return [
      // Those without a target explain the ones above.
      target === undefined ? `  ${name}` : name,
      formatValue(median, unit),
      target === undefined ? '' : formatTarget(target),
      verdict,
      result.values.length === 1 ? '' : `${formatValue(min, '')} … ${formatValue(max, '')}`,
    ];
  });
  const header = ['figure', 'middle', 'target', '', 'least … most'];
  const widths = header.map((_, column) =>
    Math.max(...[header, ...rows].map((cells) => (cells[column] ?? '').length)),
  );
  return [header, ...rows]
    .map((cells) =>
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function formatTarget({ atMost, atLeast, exactly }: Target): string {
  if (atMost !== undefined) return `≤ ${atMost}`;
  if (atLeast !== undefined) return `≥ ${atLeast}`;
  return `= ${exactly}`;
}

/** Three digits that count; whole numbers as they are. */
function formatValue(value: number, unit: string): string {
  const text =
    Number.isInteger(value) || value >= 1000
      ? value.toLocaleString('en-US', { maximumFractionDigits: 0 })
      : value.toPrecision(3);
  return unit === '' ? text : `${text} ${unit}`;
}
