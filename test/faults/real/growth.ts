/** Does something grow over time, or does it only follow what is asked of the process? */

/** One look. */
export interface Observation {
  readonly hours: number;
  readonly value: number;
  /** What rightly changes the value, as streams that moved here. */
  readonly load: number;
}

/** How fast a value grows. */
export interface Growth {
  /** Of the value, an hour, with the load held still; NaN with fewer than 5 observations. */
  readonly perHour: number;
  /** Standard error of it. */
  readonly error: number;
}

/** Least squares of value = a + b × hours + c × load; `perHour` is b. A load that never changes is left out. */
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

/** By Gauss and Jordan; a matrix that cannot be inverted gives NaN. */
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

/** The middle one; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
