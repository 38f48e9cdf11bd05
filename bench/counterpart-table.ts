/** The table that compares the operator with its counterpart. */
import { formatColumns, formatValue, percentile } from './metric.ts';

/** One line of the driver's results. */
export interface DriverResult {
  readonly label: 'counterpart' | 'operator' | 'minimal';
  /** The scenario, or its part: cold, fill, idle, latency, restart, idle-after-restart, drain, big. */
  readonly scenario: string;
  readonly result: Readonly<Record<string, number>>;
}

/** What one line of the table compares. */
interface Quantity {
  readonly name: string;
  readonly unit: string;
  readonly scenario: string;
  /** Computes the value from the driver's results. */
  readonly value: (result: DriverResult['result']) => number | undefined;
  readonly better: 'higher' | 'lower';
}

function quantity(
  scenario: string,
  key: string,
  name: string,
  unit: string,
  better: Quantity['better'] = 'lower',
): Quantity {
  return { scenario, name, unit, better, value: (result) => result[key] };
}

/** The idle time of the driver is a window of seconds; the table shows the share of one core. */
function idleShare(scenario: string, name: string): Quantity {
  const percent = (result: DriverResult['result']): number =>
    (100 * (result['cpu_operator'] ?? Number.NaN)) / (result['window_s'] ?? Number.NaN);
  return { scenario, name, unit: '%', better: 'lower', value: percent };
}

const QUANTITIES: readonly Quantity[] = [
  quantity('cold', 'writes_per_s', '10,000 of 100 reporters: creates', '/s', 'higher'),
  quantity('cold', 'create_ratio', '  divided by the raw writer', '', 'higher'),
  quantity('cold', 'deletes_per_s', '10,000 of 100 reporters: deletes', '/s', 'higher'),
  quantity('cold', 'delete_ratio', '  divided by the raw writer', '', 'higher'),
  quantity('cold', 'cpu_apiserver', '  creates, CPU of the API server', 's'),
  quantity('cold', 'delete_cpu_apiserver', '  deletes, CPU of the API server', 's'),
  quantity('cold', 'cpu_operator', '  creates, CPU of the operator', 's'),
  quantity('cold', 'delete_cpu_operator', '  deletes, CPU of the operator', 's'),
  quantity('cold', 'last_ack_ms', '  last ACK', 'ms'),
  quantity('cold', 'bystander_worst_ack_ms', '  worst ACK of another stream', 'ms'),
  quantity('cold', 'rss_mib', '  RSS after the creates', 'MiB'),
  quantity('fill', 'visible_s', '50,000 of 500 reporters: all objects visible', 's'),
  quantity('fill', 'cpu_apiserver', '  CPU of the API server', 's'),
  quantity('fill', 'cpu_operator', '  CPU of the operator', 's'),
  quantity('fill', 'rss_peak_mib', '  RSS, peak', 'MiB'),
  quantity('idle', 'rss_mib', '  RSS when idle', 'MiB'),
  idleShare('idle', '  CPU when idle, of one core'),
  quantity('latency', 'add_p50_ms', '  one tunnel added, p50', 'ms'),
  quantity('latency', 'add_p99_ms', '  one tunnel added, p99', 'ms'),
  quantity('latency', 'remove_p50_ms', '  one tunnel removed, p50', 'ms'),
  quantity('latency', 'remove_p99_ms', '  one tunnel removed, p99', 'ms'),
  quantity('restart', 'ready_s', '  restart, until ready', 's'),
  quantity('restart', 'start_to_last_ack_s', '  restart, until the last ACK', 's'),
  quantity('restart', 'cpu_operator', '  restart, CPU of the operator', 's'),
  quantity('restart', 'cpu_apiserver', '  restart, CPU of the API server', 's'),
  quantity('restart', 'rss_peak_mib', '  restart, RSS, peak', 'MiB'),
  quantity('idle-after-restart', 'rss_mib', '  RSS when idle after a restart', 'MiB'),
  idleShare('idle-after-restart', '  CPU when idle after a restart'),
  quantity('drain', 'deletes_per_s', '  deletes', '/s', 'higher'),
  quantity('big', 'ack_ms', '100,000 of one reporter: ACK', 'ms'),
  quantity('big', 'unchanged_ack_ms', '  ACK of the same full push again', 'ms'),
  quantity('big', 'bystander_worst_ack_ms', '  worst ACK of another stream', 'ms'),
  quantity(
    'big',
    'bystander_worst_ack_drain_ms',
    '  worst ACK of another stream until all are written',
    'ms',
  ),
  quantity('big', 'writes_per_s', '  creates', '/s', 'higher'),
  quantity('big', 'create_ratio', '  creates, divided by the raw writer', '', 'higher'),
  quantity('big', 'cpu_apiserver', '  CPU of the API server', 's'),
  quantity('big', 'cpu_operator', '  CPU of the operator', 's'),
  quantity('big', 'rss_peak_mib', '  RSS, peak', 'MiB'),
  quantity('big', 'deletes_per_s', '  deletes', '/s', 'higher'),
];

/** The values of all runs of both operators for one quantity. */
export interface Comparison {
  readonly name: string;
  readonly unit: string;
  /** Ascending, one value per run. */
  readonly counterpart: readonly number[];
  readonly operator: readonly number[];
  /** Ascending, one value per run; empty if the minimal program was not measured. */
  readonly minimal: readonly number[];
  /** The median of the operator, divided by the median of the counterpart. */
  readonly ratio: number;
  /** `even` if the ranges of both overlap. */
  readonly verdict: 'ahead' | 'behind' | 'even';
}

/** Compares all quantities for which both operators have a value. */
export function compareResults(results: readonly DriverResult[]): Comparison[] {
  return QUANTITIES.flatMap((definition) => {
    const { name, unit, better } = definition;
    const counterpart = valuesOf('counterpart', definition, results);
    const operator = valuesOf('operator', definition, results);
    const minimal = valuesOf('minimal', definition, results);
    if (counterpart.length === 0 || operator.length === 0) return [];
    const ratio = percentile(operator, 50) / percentile(counterpart, 50);
    const [low, high] = better === 'lower' ? [operator, counterpart] : [counterpart, operator];
    const verdict = isBelow(low, high) ? 'ahead' : isBelow(high, low) ? 'behind' : 'even';
    return [{ name, unit, counterpart, operator, minimal, ratio, verdict }];
  });
}

function valuesOf(
  label: DriverResult['label'],
  { scenario, value }: Quantity,
  results: readonly DriverResult[],
): readonly number[] {
  return results
    .filter((line) => line.label === label && line.scenario === scenario)
    .map((line) => value(line.result))
    .filter((number) => number !== undefined)
    .toSorted((a, b) => a - b);
}

/** Whether all values of `low` are below all values of `high`; both are ascending. */
function isBelow(low: readonly number[], high: readonly number[]): boolean {
  return (low.at(-1) ?? Number.NaN) < (high[0] ?? Number.NaN);
}

/** Formats a table with the medians, their ratio, the verdict and the ranges of all runs. */
export function formatComparisons(comparisons: readonly Comparison[]): string {
  const hasMinimal = comparisons.some(({ minimal }) => minimal.length > 0);
  const range = (values: readonly number[]): string =>
    values.length === 1 ? '' : `${formatValue(values[0] ?? 0, '')} … ${formatValue(values.at(-1) ?? 0, '')}`;
  return formatColumns([
    [
      ...['', 'counterpart', 'operator', 'ratio', '', 'counterpart, min … max', 'operator, min … max'],
      ...(hasMinimal ? ['minimal program'] : []),
    ],
    ...comparisons.map(({ name, unit, counterpart, operator, minimal, ratio, verdict }) => [
      name,
      formatValue(percentile(counterpart, 50), unit),
      formatValue(percentile(operator, 50), unit),
      ratio.toFixed(2),
      verdict,
      range(counterpart),
      range(operator),
      ...(minimal.length === 0 ? [] : [formatValue(percentile(minimal, 50), unit)]),
    ]),
  ]);
}

/** Formats the same as a Markdown table, without the ranges of single runs. */
export function markdownTable(comparisons: readonly Comparison[]): string {
  const hasMinimal = comparisons.some(({ minimal }) => minimal.length > 0);
  const cell = (values: readonly number[], unit: string): string => {
    const median = formatValue(percentile(values, 50), unit);
    if (values.length === 1) return median;
    return `${median} (${formatValue(values[0] ?? 0, '')} … ${formatValue(values.at(-1) ?? 0, '')})`;
  };
  const lines = [
    ['measurement', 'counterpart in Go', 'operator', 'ratio', '', ...(hasMinimal ? ['minimal program'] : [])],
    ...comparisons.map(({ name, unit, counterpart, operator, minimal, ratio, verdict }) => [
      // Indented lines belong to the line above them.
      name.replace(/^ +/, '– '),
      cell(counterpart, unit),
      cell(operator, unit),
      ratio.toFixed(2),
      verdict === 'behind' ? '**behind**' : verdict,
      ...(hasMinimal ? [minimal.length === 0 ? '' : cell(minimal, unit)] : []),
    ]),
  ];
  const [header = [], ...body] = lines;
  const widths = header.map((_, i) => Math.max(3, ...lines.map((line) => (line[i] ?? '').length)));
  const format = (line: readonly string[]): string =>
    `| ${widths.map((width, i) => (line[i] ?? '').padEnd(width)).join(' | ')} |`;
  const rule = widths.map((width) => '-'.repeat(width));
  return [header, rule, ...body].map(format).join('\n');
}

/** Returns the CPU seconds of other processes during the measurements, at most: large values make them unreliable. */
export function foreignCpuSeconds(results: readonly DriverResult[]): number {
  return Math.max(0, ...results.map(({ result }) => result['cpu_other'] ?? 0));
}
