/** Draws the panels of the chart's dashboard as one SVG image, as far as Grafana's own look matters for a review. */
import { roundUp } from '../../../bench/line-chart.ts';

/** The part of a panel of `files/dashboard.json` that is drawn. */
export interface DashboardPanel {
  readonly type: string;
  readonly title: string;
  /** In units of Grafana: 24 columns across, and lines of equal height. */
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat?: string }[];
  readonly fieldConfig?: {
    readonly defaults: {
      readonly unit?: string;
      readonly max?: number;
      readonly thresholds?: { readonly steps: readonly ThresholdStep[] };
    };
  };
}

interface ThresholdStep {
  readonly color: string;
  readonly value: number | null;
}

/** One line of a panel: its label and its samples as Unix time in seconds and value. */
export interface PlottedSeries {
  readonly label: string;
  readonly samples: readonly (readonly [number, number])[];
}

export interface PlottedPanel {
  readonly panel: DashboardPanel;
  readonly series: readonly PlottedSeries[];
}

export interface TimeRange {
  readonly startS: number;
  readonly endS: number;
}

const WIDTH = 1440;
const COLUMN = WIDTH / 24;
const ROW = 34;
const MARGIN = 4;
const TITLE_HEIGHT = 22;
const AXIS_WIDTH = 62;
const AXIS_HEIGHT = 16;
const LEGEND_LINE = 14;
const MAX_LEGEND_LINES = 4;
const COLORS = ['#3274d9', '#ff780a', '#37872d', '#e02f44', '#8f3bb8', '#c4a000', '#1f9e9e', '#6b7280'];
const NAMED_COLORS: Readonly<Record<string, string>> = {
  blue: '#3274d9',
  green: '#37872d',
  orange: '#ff780a',
  red: '#e02f44',
};

function escapeXml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escapeXml(content)}</text>`;
}

function withPrefix(value: number, base: number, prefixes: readonly string[]): string {
  let scaled = value;
  let prefix = 0;
  while (Math.abs(scaled) >= base && prefix < prefixes.length - 1) {
    scaled /= base;
    prefix += 1;
  }
  return `${Number(scaled.toPrecision(3))}${prefixes[prefix]}`;
}

/** Formats a value in a unit of Grafana, such as `s`, `bytes` or `reqps`. */
export function formatValue(value: number, unit: string | undefined): string {
  const plain = withPrefix(value, 1000, ['', ' K', ' M', ' G']);
  switch (unit) {
    case 's':
      return value !== 0 && Math.abs(value) < 1
        ? `${Number((value * 1000).toPrecision(3))} ms`
        : `${Number(value.toPrecision(3))} s`;
    case 'bytes':
      return withPrefix(value, 1024, [' B', ' KiB', ' MiB', ' GiB']);
    case 'percentunit':
      return `${Number((value * 100).toPrecision(3))} %`;
    case 'cps':
      return `${plain} c/s`;
    case 'wps':
      return `${plain} wr/s`;
    case 'reqps':
      return `${plain} req/s`;
    default:
      return plain;
  }
}

/** Returns a round value for the end of an axis; for bytes, in the binary prefix that they are shown in. */
function niceCeiling(value: number, unit: string | undefined): number {
  if (value <= 0) return 1;
  const prefix = unit === 'bytes' ? 1024 ** Math.floor(Math.log2(value) / 10) : 1;
  return prefix * roundUp(value / prefix);
}

function thresholdColor(value: number, steps: readonly ThresholdStep[]): string {
  const reached = steps.findLast((step) => step.value === null || value >= step.value);
  return NAMED_COLORS[reached?.color ?? ''] ?? '#1f2328';
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function drawStat({ panel, series }: PlottedPanel, box: Box): string {
  const { unit, thresholds } = panel.fieldConfig?.defaults ?? {};
  const lines = series.length === 0 ? [undefined] : series.slice(0, 3);
  const size = lines.length === 1 ? 34 : 18;
  return lines
    .map((line, index) => {
      const value = line?.samples.at(-1)?.[1];
      const color = value === undefined ? '#6b7280' : thresholdColor(value, thresholds?.steps ?? []);
      const label = series.length > 1 ? `${line?.label} ` : '';
      const y =
        box.y +
        TITLE_HEIGHT +
        (box.height - TITLE_HEIGHT) / 2 +
        (index - (lines.length - 1) / 2) * (size + 4) +
        size / 3;
      const content = value === undefined ? 'No data' : label + formatValue(value, unit);
      return text(
        box.x + box.width / 2,
        y,
        content,
        `text-anchor="middle" font-size="${size}" fill="${color}"`,
      );
    })
    .join('');
}

function drawTimeSeries({ panel, series }: PlottedPanel, box: Box, { startS, endS }: TimeRange): string {
  const { unit, max, thresholds } = panel.fieldConfig?.defaults ?? {};
  const legend = series.slice(0, MAX_LEGEND_LINES);
  const plot = {
    left: box.x + AXIS_WIDTH,
    right: box.x + box.width - 10,
    top: box.y + TITLE_HEIGHT + 6,
    bottom: box.y + box.height - AXIS_HEIGHT - legend.length * LEGEND_LINE - 8,
  };
  const values = series.flatMap(({ samples }) => samples.map(([, value]) => value));
  const top = max ?? niceCeiling(Math.max(0, ...values), unit);
  const x = (timeS: number): number =>
    plot.left + ((timeS - startS) / (endS - startS)) * (plot.right - plot.left);
  const y = (value: number): number => plot.bottom - (Math.min(value, top) / top) * (plot.bottom - plot.top);
  const parts: string[] = [];
  for (const share of [0, 0.5, 1]) {
    const at = y(top * share);
    parts.push(
      `<path d="M${plot.left} ${at.toFixed(1)}H${plot.right}" stroke="#e4e7ea"/>`,
      text(plot.left - 6, at + 4, formatValue(top * share, unit), 'text-anchor="end" fill="#57606a"'),
    );
  }
  for (const share of [0, 0.5, 1]) {
    const timeS = startS + (endS - startS) * share;
    const anchor = ['start', 'middle', 'end'][share * 2];
    const label = `${Math.round((timeS - startS) / 6) / 10} min`;
    parts.push(text(x(timeS), plot.bottom + 13, label, `text-anchor="${anchor}" fill="#57606a"`));
  }
  for (const { color, value } of thresholds?.steps ?? []) {
    if (value === null || value > top) continue;
    const stroke = NAMED_COLORS[color] ?? color;
    parts.push(
      `<path d="M${plot.left} ${y(value).toFixed(1)}H${plot.right}" stroke="${stroke}" stroke-dasharray="4 4"/>`,
    );
  }
  for (const [index, { samples }] of series.entries()) {
    const points = samples.map(([timeS, value]) => `${x(timeS).toFixed(1)},${y(value).toFixed(1)}`).join(' ');
    parts.push(
      `<polyline points="${points}" fill="none" stroke="${COLORS[index % COLORS.length]}" stroke-width="1.5"/>`,
    );
  }
  for (const [index, { label, samples }] of legend.entries()) {
    const at = plot.bottom + AXIS_HEIGHT + (index + 1) * LEGEND_LINE - 1;
    const further = index === MAX_LEGEND_LINES - 1 ? series.length - MAX_LEGEND_LINES : 0;
    const last = formatValue(samples.at(-1)?.[1] ?? 0, unit);
    const content = `${label}: ${last}${further > 0 ? `, and ${further} more` : ''}`;
    parts.push(
      `<rect x="${box.x + 12}" y="${at - 7}" width="10" height="4" fill="${COLORS[index % COLORS.length]}"/>`,
      text(box.x + 28, at, content, 'fill="#24292f"'),
    );
  }
  if (series.length === 0)
    parts.push(
      text(
        (plot.left + plot.right) / 2,
        (plot.top + plot.bottom) / 2,
        'No data',
        'text-anchor="middle" fill="#6b7280"',
      ),
    );
  return parts.join('');
}

/** Returns an SVG image of all panels. The horizontal axes are minutes since the start of the range. */
export function drawDashboard(panels: readonly PlottedPanel[], range: TimeRange): string {
  const rows = Math.max(...panels.map(({ panel: { gridPos } }) => gridPos.y + gridPos.h));
  const body = panels.map((plotted) => {
    const { panel } = plotted;
    const { gridPos, title } = panel;
    const box = {
      x: gridPos.x * COLUMN + MARGIN,
      y: gridPos.y * ROW + MARGIN,
      width: gridPos.w * COLUMN - 2 * MARGIN,
      height: gridPos.h * ROW - 2 * MARGIN,
    };
    if (panel.type === 'row')
      return text(box.x + 4, box.y + 19, title, 'font-size="16" font-weight="bold" fill="#24292f"');
    const frame = `<rect x="${box.x}" y="${box.y}" width="${box.width}" height="${box.height}" rx="3" fill="#ffffff" stroke="#d0d7de"/>`;
    const heading = text(box.x + 10, box.y + 16, title, 'font-size="13" font-weight="bold" fill="#24292f"');
    const content = panel.type === 'stat' ? drawStat(plotted, box) : drawTimeSeries(plotted, box, range);
    return frame + heading + content;
  });
  const height = rows * ROW;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${WIDTH}" height="${height}" fill="#f6f8fa"/>`,
    ...body,
    '</svg>\n',
  ].join('\n');
}
