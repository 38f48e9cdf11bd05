/** What a measurement gives, and how it is judged. */

/** What a figure is to be; exactly one of the three. */
export interface Target {
  readonly atMost?: number;
  readonly atLeast?: number;
  /** For counts, where one too many in one run is a fault. */
  readonly exactly?: number;
}

/** One figure of one run. */
export interface Figure {
  /** The same in each run, as `cold-1: created over bare`. */
  readonly name: string;
  /** As `ms` or `MiB`; empty for ratios and counts. */
  readonly unit: string;
  readonly value: number;
  /** Left out for figures that only explain others. */
  readonly target?: Target;
}

/** A figure over all runs. */
export interface Result extends Omit<Figure, 'value'> {
  /** One for each run, in their order. */
  readonly values: readonly number[];
  readonly min: number;
  /** The median; of two runs the mean. */
  readonly middle: number;
  readonly max: number;
  /** Undefined where there is no target. */
  readonly held: boolean | undefined;
}

/** Joins the figures of several runs by name, in the order in which names first came. */
export function overRuns(figures: readonly Figure[]): Result[] {
  const byName = Map.groupBy(figures, ({ name }) => name);
  return Array.from(byName.values(), (same) => {
    const [first] = same as [Figure, ...Figure[]];
    const values = same.map(({ value }) => value);
    const { value: _, ...about } = first;
    const sorted = values.toSorted((a, b) => a - b);
    return {
      ...about,
      values,
      min: sorted[0] ?? Number.NaN,
      middle: percentile(sorted, 50),
      max: sorted.at(-1) ?? Number.NaN,
      held: first.target && isHeld(first.target, sorted),
    };
  });
}

/** Measured quantities are judged by the middle run, counts by every run. */
function isHeld(target: Target, sorted: readonly number[]): boolean {
  const middle = percentile(sorted, 50);
  if (target.atMost !== undefined) return middle <= target.atMost;
  if (target.atLeast !== undefined) return middle >= target.atLeast;
  return sorted.every((value) => value === target.exactly);
}

/**
 * The value below which `percent` (0 to 100) of the values lie, between two neighbours in proportion.
 *
 * @param sorted ascending; of none the answer is NaN
 */
export function percentile(sorted: readonly number[], percent: number): number {
  const place = ((sorted.length - 1) * percent) / 100;
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? Number.NaN;
  return below + (above - below) * (place - Math.floor(place));
}
