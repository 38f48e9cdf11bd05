/** What was seen of a fault, and what was promised. */
export interface Figure {
  /** As in `converged`. */
  readonly what: string;
  readonly value: number;
  /** As in `s`; left out for a count. */
  readonly unit?: string;
  /** Bounds, both included; a figure without any is told for people. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** Is the figure within its bounds? NaN is not. */
export function held({
  value,
  atMost = Number.POSITIVE_INFINITY,
  atLeast = Number.NEGATIVE_INFINITY,
}: Figure): boolean {
  return value <= atMost && value >= atLeast;
}

/** `converged 2.1 s (≤ 10)`, with a mark where the bound was not held. */
export function figureText(figure: Figure): string {
  const { what, value, unit, atMost, atLeast } = figure;
  const bounds = [
    ...(atMost === undefined ? [] : [atMost === 0 ? '= 0' : `≤ ${atMost}`]),
    ...(atLeast === undefined ? [] : [`≥ ${atLeast}`]),
  ];
  const shown = Number.isInteger(value) ? String(value) : value.toFixed(1);
  const bound = bounds.length === 0 ? '' : ` (${bounds.join(', ')})`;
  return `${what} ${shown}${unit === undefined ? '' : ` ${unit}`}${bound}${held(figure) ? '' : ' NOT HELD'}`;
}
