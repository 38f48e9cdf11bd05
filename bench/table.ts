import type { Result, Target } from './figure.ts';

/**
 * The table for people: figure, target, whether it is held, and the spread over runs.
 *
 * @param judged false for a quick run, whose sizes the targets are not set for
 */
export function table(results: readonly Result[], judged: boolean): string {
  const rows = results.map((result) => {
    const { name, unit, target, held, min, middle, max } = result;
    const verdict = held === undefined || !judged ? '' : held ? 'held' : 'MISSED';
    return [
      // Those without a target explain the ones above.
      target === undefined ? `  ${name}` : name,
      shown(middle, unit),
      target === undefined ? '' : targetText(target),
      verdict,
      result.values.length === 1 ? '' : `${shown(min, '')} … ${shown(max, '')}`,
    ];
  });
  const head = ['figure', 'middle', 'target', '', 'least … most'];
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((cells) => (cells[column] ?? '').length)),
  );
  return [head, ...rows]
    .map((cells) =>
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function targetText({ atMost, atLeast, exactly }: Target): string {
  if (atMost !== undefined) return `≤ ${atMost}`;
  if (atLeast !== undefined) return `≥ ${atLeast}`;
  return `= ${exactly}`;
}

/** Three digits that count; whole numbers as they are. */
function shown(value: number, unit: string): string {
  const text =
    Number.isInteger(value) || value >= 1000
      ? value.toLocaleString('en-US', { maximumFractionDigits: 0 })
      : value.toPrecision(3);
  return unit === '' ? text : `${text} ${unit}`;
}
