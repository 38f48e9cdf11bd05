/** What a measurement gives, and how it is judged. */

/** What a figure is to be; exactly one of the three. */
export interface Target {
  readonly atMost?: number;
  readonly atLeast?: number;
  /** For counts, where one too many in one run is a fault. */
  readonly exactly?: number;
}

/** One figure of one run. */
export interface Metric {
  /** The same in each run, as `cold-1: created over bare`. */
  readonly name: string;
  /** As `ms` or `MiB`; empty for ratios and counts. */
  readonly unit: string;
  readonly value: number;
  /** Left out for figures that only explain others. */
  readonly target?: Target;
}

/** A figure over all runs. */
export interface MetricSummary extends Omit<Metric, 'value'> {
  /** One for each run, in their order. */
  readonly values: readonly number[];
  readonly min: number;
  /** The median; of two runs the mean. */
  readonly median: number;
  readonly max: number;
  /** Undefined where there is no target. */
  readonly met: boolean | undefined;
}

/** Joins the figures of several runs by name, in the order in which names first came. */
export function summarizeRuns(metrics: readonly Metric[]): MetricSummary[] {
  const byName = Map.groupBy(metrics, ({ name }) => name);
  return Array.from(byName.values(), (samples) => {
    const [first] = samples as [Metric, ...Metric[]];
    const values = samples.map(({ value }) => value);
    const { value: _, ...about } = first;
    const sorted = values.toSorted((a, b) => a - b);
    return {
      ...about,
      values,
      min: sorted[0] ?? Number.NaN,
      median: percentile(sorted, 50),
      max: sorted.at(-1) ?? Number.NaN,
      met: first.target && isMet(first.target, sorted),
    };
  });
}

/** Measured quantities are judged by the middle run, counts by every run. */
function isMet(target: Target, sorted: readonly number[]): boolean {
  const median = percentile(sorted, 50);
  if (target.atMost !== undefined) return median <= target.atMost;
  if (target.atLeast !== undefined) return median >= target.atLeast;
  return sorted.every((value) => value === target.exactly);
}

/**
 * The value below which `percent` (0 to 100) of the values lie, between two neighbours in proportion.
 *
 * @param sorted ascending; of none the answer is NaN
 */
export function percentile(sorted: readonly number[], percent: number): number {
  const rank = ((sorted.length - 1) * percent) / 100;
  const below = sorted[Math.floor(rank)] ?? Number.NaN;
  const above = sorted[Math.ceil(rank)] ?? Number.NaN;
  return below + (above - below) * (rank - Math.floor(rank));
}

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
