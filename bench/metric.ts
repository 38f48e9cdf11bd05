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
