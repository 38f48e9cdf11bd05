/** Estimates whether a value grows over time or only with the load of the process. */

/** One observation of a value. */
export interface Observation {
  readonly hours: number;
  readonly value: number;
  /** The load that explains part of the value, for example the number of streams. */
  readonly load: number;
}

/** The growth rate of a value. */
export interface Growth {
  /** Growth per hour at constant load; NaN with fewer than 5 observations. */
  readonly perHour: number;
  /** Standard error of `perHour`. */
  readonly error: number;
}

/** Fits value = a + b × hours + c × load by least squares; `perHour` is b. A constant load is left out. */
export function estimateGrowth(observations: readonly Observation[]): Growth {
  const [first] = observations;
  const steady = observations.every(({ load }) => load === first?.load);
  const rows = observations.map(({ hours, load }) => (steady ? [1, hours] : [1, hours, load]));
  const unknowns = steady ? 2 : 3;
  if (observations.length < 5) return { perHour: Number.NaN, error: Number.NaN };
  const normal = squareMatrix(unknowns, (i, j) => sum(rows.map((row) => at(row, i) * at(row, j))));
  const inverse = invert(normal);
  const moments = Array.from({ length: unknowns }, (_, i) =>
    sum(rows.map((row, index) => at(row, i) * (observations[index]?.value ?? 0))),
  );
  const solution = inverse.map((row) => sum(row.map((entry, j) => entry * at(moments, j))));
  const residual = sum(
    rows.map((row, index) => {
      const expected = sum(row.map((entry, j) => entry * at(solution, j)));
      return ((observations[index]?.value ?? 0) - expected) ** 2;
    }),
  );
  const variance = residual / (observations.length - unknowns);
  return { perHour: at(solution, 1), error: Math.sqrt(variance * at(inverse[1] ?? [], 1)) };
}

/** Inverts a matrix by Gauss-Jordan elimination; a singular matrix gives NaN. */
function invert(matrix: readonly (readonly number[])[]): number[][] {
  const size = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...Array.from({ length: size }, (_, j) => (i === j ? 1 : 0))]);
  for (let i = 0; i < size; i += 1) {
    const best = rows.slice(i).reduce((a, b) => (Math.abs(at(a, i)) >= Math.abs(at(b, i)) ? a : b));
    rows.splice(rows.indexOf(best), 1);
    const pivot = best.map((entry) => entry / at(best, i));
    rows.splice(i, 0, pivot);
    for (const [otherRow, row] of rows.entries()) {
      if (otherRow !== i) rows[otherRow] = row.map((entry, j) => entry - at(row, i) * at(pivot, j));
    }
  }
  return rows.map((row) => row.slice(size));
}

function squareMatrix(size: number, entry: (i: number, j: number) => number): number[][] {
  return Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => entry(i, j)));
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.NaN;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Returns the median; NaN for an empty list. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
