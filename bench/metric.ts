/** The results of measurements, their targets, and the table that shows them. */

/** The target of a metric; exactly one of the three properties is set. */
export interface Target {
  readonly atMost?: number;
  readonly atLeast?: number;
  /** For counts, which must be met by every run. */
  readonly exactly?: number;
}

/** A metric of one run. */
export interface Metric {
  /** The same in each run, such as `initial-sync-1: created vs. baseline`. */
  readonly name: string;
  /** Such as `ms` or `MiB`; empty for ratios and counts. */
  readonly unit: string;
  readonly value: number;
  /** Undefined for metrics that only explain others. */
  readonly target?: Target;
}

/** A metric over all runs. */
export interface MetricSummary extends Omit<Metric, 'value'> {
  /** One value per run, in the order of the runs. */
  readonly values: readonly number[];
  readonly min: number;
  /** For two runs, their mean. */
  readonly median: number;
  readonly max: number;
  /** Undefined if there is no target. */
  readonly met: boolean | undefined;
}

/** Groups the metrics of several runs by name, in the order of their first occurrence. */
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

/** Measured quantities must meet their target in the median, counts in every run. */
function isMet(target: Target, sorted: readonly number[]): boolean {
  const median = percentile(sorted, 50);
  if (target.atMost !== undefined) return median <= target.atMost;
  if (target.atLeast !== undefined) return median >= target.atLeast;
  return sorted.every((value) => value === target.exactly);
}

/**
 * Returns the value below which `percent` (0 to 100) of the values lie, interpolated linearly.
 *
 * @param sorted ascending; if empty, the result is NaN
 */
export function percentile(sorted: readonly number[], percent: number): number {
  const rank = ((sorted.length - 1) * percent) / 100;
  const below = sorted[Math.floor(rank)] ?? Number.NaN;
  const above = sorted[Math.ceil(rank)] ?? Number.NaN;
  return below + (above - below) * (rank - Math.floor(rank));
}

/**
 * Formats a table with the median, the target, whether it is met, and the range over all runs.
 *
 * @param showVerdicts false for a quick run, because the targets apply only to the full size
 */
export function formatTable(results: readonly MetricSummary[], showVerdicts: boolean): string {
  const rows = results.map((result) => {
    const { name, unit, target, met, min, median, max } = result;
    const verdict = met === undefined || !showVerdicts ? '' : met ? 'met' : 'MISSED';
    return [
      // Metrics without a target explain those above.
      target === undefined ? `  ${name}` : name,
      formatValue(median, unit),
      target === undefined ? '' : formatTarget(target),
      verdict,
      result.values.length === 1 ? '' : `${formatValue(min, '')} … ${formatValue(max, '')}`,
    ];
  });
  const header = ['metric', 'median', 'target', '', 'min … max'];
  return formatColumns([header, ...rows]);
}

/** Formats lines of cells, of which the first is the header, as columns that are as wide as their widest cell. */
export function formatColumns(rows: readonly (readonly string[])[]): string {
  const [header = []] = rows;
  const widths = header.map((_, column) => Math.max(...rows.map((cells) => (cells[column] ?? '').length)));
  return rows
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

/** Formats a value with three significant digits, or as a whole number. */
export function formatValue(value: number, unit: string): string {
  const text =
    Number.isInteger(value) || value >= 1000
      ? value.toLocaleString('en-US', { maximumFractionDigits: 0 })
      : value.toPrecision(3);
  return unit === '' ? text : `${text} ${unit}`;
}
