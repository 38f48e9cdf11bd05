/** A line chart as SVG, for pages. */

/** A line; the points are in ascending order of `x`. */
export interface ChartLine {
  readonly name: string;
  readonly color: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface LineChartOptions {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly lines: readonly ChartLine[];
}

const SIZE = { width: 720, height: 320 };
const MARGIN = { top: 36, right: 16, bottom: 40, left: 52 };
/** About as many intervals per axis. */
const INTERVALS = 5;

/** Returns the chart; both axes begin at 0. The texts must not contain characters that XML reserves. */
export function lineChart({ title, xLabel, yLabel, lines }: LineChartOptions): string {
  const points = lines.flatMap((line) => line.points);
  const xTicks = ticksTo(Math.max(...points.map(({ x }) => x)));
  const yTicks = ticksTo(Math.max(...points.map(({ y }) => y)));
  const left = (x: number): number =>
    MARGIN.left + ((SIZE.width - MARGIN.left - MARGIN.right) * x) / (xTicks.at(-1) ?? 1);
  const top = (y: number): number =>
    SIZE.height - MARGIN.bottom - ((SIZE.height - MARGIN.top - MARGIN.bottom) * y) / (yTicks.at(-1) ?? 1);
  const right = SIZE.width - MARGIN.right;
  const bottom = SIZE.height - MARGIN.bottom;
  const text = (x: number, y: number, anchor: string, content: string | number): string =>
    `<text x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${content}</text>`;
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${SIZE.width} ${SIZE.height}" font-family="sans-serif" font-size="12" fill="#444">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    text(SIZE.width / 2, 18, 'middle', title),
    ...yTicks.flatMap((y) => [
      `<path d="M${MARGIN.left} ${round(top(y))}H${right}" stroke="#ddd"/>`,
      text(MARGIN.left - 6, top(y) + 4, 'end', y),
    ]),
    ...xTicks.map((x) => text(left(x), bottom + 16, 'middle', x)),
    text((MARGIN.left + right) / 2, SIZE.height - 8, 'middle', xLabel),
    text(8, MARGIN.top - 8, 'start', yLabel),
    ...lines.flatMap(({ name, color, points: linePoints }, index) => [
      `<polyline fill="none" stroke="${color}" stroke-width="1.5" points="${linePoints
        .map(({ x, y }) => `${round(left(x))},${round(top(y))}`)
        .join(' ')}"/>`,
      `<g fill="${color}">${text(right, bottom - 8 - 16 * (lines.length - 1 - index), 'end', name)}</g>`,
    ]),
    '</svg>',
  ].join('\n')}\n`;
}

/** Returns the smallest of 1, 2 and 5 times a power of ten that is at least `value`, which must be positive. */
export function roundUp(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((factor) => factor * power >= value) ?? 10) * power;
}

/** Returns round values from 0 to at least `max`, at equal distances. */
function ticksTo(max: number): readonly number[] {
  const step = roundUp(Math.max(max, Number.MIN_VALUE) / INTERVALS);
  return Array.from({ length: Math.ceil(max / step) + 1 }, (_, index) =>
    Number((index * step).toPrecision(6)),
  );
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
