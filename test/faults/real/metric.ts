/** A measured value and its bounds. */
export interface Metric {
  /** For example `converged`. */
  readonly name: string;
  readonly value: number;
  /** For example `s`; undefined for a count. */
  readonly unit?: string;
  /** Inclusive bounds; a metric without bounds is informational. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** Reports whether a metric is within its bounds; NaN is not. */
export function isWithinBounds({
  value,
  atMost = Number.POSITIVE_INFINITY,
  atLeast = Number.NEGATIVE_INFINITY,
}: Metric): boolean {
  return value <= atMost && value >= atLeast;
}

/** Formats a metric as `converged 2.1 s (≤ 10)`, with a mark when a bound is violated. */
export function formatMetric(metric: Metric): string {
  const { name, value, unit, atMost, atLeast } = metric;
  const bounds = [
    ...(atMost === undefined ? [] : [atMost === 0 ? '= 0' : `≤ ${atMost}`]),
    ...(atLeast === undefined ? [] : [`≥ ${atLeast}`]),
  ];
  const formatted = Number.isInteger(value) ? String(value) : value.toFixed(1);
  const bound = bounds.length === 0 ? '' : ` (${bounds.join(', ')})`;
  return `${name} ${formatted}${unit === undefined ? '' : ` ${unit}`}${bound}${isWithinBounds(metric) ? '' : ' VIOLATED'}`;
}
