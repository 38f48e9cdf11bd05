/** Estimates whether a value grows over time or only with the load of the process. */

export interface Observation {
  readonly hours: number;
  readonly value: number;
  /** The load that explains part of the value, for example the number of streams. */
  readonly load: number;
}

export interface Growth {
  /** Growth per hour at constant load; NaN with fewer than 5 observations. */
  readonly perHour: number;
  readonly error: number;
}

/** Fits value = a + b × hours + c × load by least squares; `perHour` is b. A constant load is left out. */
export function estimateGrowth(observations: readonly Observation[]): Growth {
  if (observations.length < 5) return { perHour: Number.NaN, error: Number.NaN };
  const hours = centered(observations.map((observation) => observation.hours));
  const load = centered(observations.map((observation) => observation.load));
  const value = centered(observations.map((observation) => observation.value));
  const loadSquares = dot(load, load);
  // The slope is that of what the load does not explain (Frisch-Waugh-Lovell theorem).
  const unexplained = (values: readonly number[]): number[] =>
    values.map((entry, i) =>
      loadSquares === 0 ? entry : entry - (dot(values, load) / loadSquares) * (load[i] ?? 0),
    );
  const [x, y] = [unexplained(hours), unexplained(value)];
  const perHour = dot(x, y) / dot(x, x);
  const residuals = y.map((entry, i) => entry - perHour * (x[i] ?? 0));
  const freedom = observations.length - (loadSquares === 0 ? 2 : 3);
  return { perHour, error: Math.sqrt(dot(residuals, residuals) / freedom / dot(x, x)) };
}

function centered(values: readonly number[]): number[] {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return values.map((value) => value - mean);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}

/** Returns the median; NaN for an empty list. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
