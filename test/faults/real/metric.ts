/** What was seen of a fault, and what was promised. */
export interface Metric {
  /** As in `converged`. */
  readonly name: string;
  readonly value: number;
  /** As in `s`; left out for a count. */
  readonly unit?: string;
  /** Bounds, both included; a figure without any is told for people. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** Is the figure within its bounds? NaN is not. */
export function isWithinBounds({
  value,
  atMost = Number.POSITIVE_INFINITY,
  atLeast = Number.NEGATIVE_INFINITY,
}: Metric): boolean {
  return value <= atMost && value >= atLeast;
}

/** `converged 2.1 s (≤ 10)`, with a mark where the bound was not held. */
export function formatMetric(metric: Metric): string {
  const { name, value, unit, atMost, atLeast } = metric;
  const bounds = [
    ...(atMost === undefined ? [] : [atMost === 0 ? '= 0' : `≤ ${atMost}`]),
    ...(atLeast === undefined ? [] : [`≥ ${atLeast}`]),
  ];
  const formatted = Number.isInteger(value) ? String(value) : value.toFixed(1);
  const bound = bounds.length === 0 ? '' : ` (${bounds.join(', ')})`;
  return `${name} ${formatted}${unit === undefined ? '' : ` ${unit}`}${bound}${isWithinBounds(metric) ? '' : ' NOT HELD'}`;
}
