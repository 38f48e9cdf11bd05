/**
 * Hours of faults over real processes: a random fault every half minute, checked after each, with measurements of
 * resource growth.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { formatMetric, isWithinBounds, type Metric, SOAK } from './scenario.ts';
import { estimateGrowth, median, type Growth, type Observation } from './growth.ts';
import { waitForInitialSync, countCrashes, countObjectWrites, snapshot } from './convergence.ts';
import { saveLogs, openFaultFixture, type FaultFixture } from './fault-fixture.ts';
import { openProbe, PROBE_NODE_FLAGS, type ProcessStats } from './process-stats.ts';
import { shuffledFaults } from './soak-faults.ts';

const FAULT_INTERVAL_MS = 30_000;
const BUILD_DEADLINE_MS = 5 * 60_000;
/** The system must recover from a failed fault within this time, otherwise the soak ends. */
const RECOVERY_MS = 120_000;
/**
 * Caches fill and code is compiled during the warm-up, so it is excluded: this share of the soak, and at most this
 * long.
 */
const WARM_UP = { share: 0.25, atMostMs: 5 * 60_000 };
const MAX_HEAP_MIB_PER_HOUR = 2;
const HOUR_MS = 3_600_000;
const GROWING_VALUES = ['heapMiB', 'residentMiB', 'descriptors', 'sockets', 'timers'] as const;

type GrowingValue = (typeof GROWING_VALUES)[number];
const FIXTURE_OPTIONS = { replicas: 3, reporters: 30, tunnels: 50 };

export interface SoakEntry extends ProcessStats {
  readonly atMs: number;
  readonly fault: string;
  readonly passed: boolean;
  /** The metrics of the fault, or why it failed. */
  readonly line: string;
  readonly objectWrites: number;
}

/** The result of a soak; serializable as JSON. */
export interface SoakReport {
  readonly seed: number;
  readonly minutes: number;
  readonly entries: readonly SoakEntry[];
  /** Why the soak ended early, if it did. */
  readonly abortedReason: string | undefined;
  /** Growth per metric after the warm-up, at a constant number of streams. */
  readonly growth: Readonly<Record<GrowingValue, Growth>>;
  readonly metrics: readonly Metric[];
}

export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  readonly setStatus: (what: string) => void;
  readonly print: (line: string) => void;
}

/** Runs faults for the given time. Returns a report, unless the fixture cannot be started. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const fixture = await openFaultFixture({
    ...FIXTURE_OPTIONS,
    nodeFlags: PROBE_NODE_FLAGS,
    seed: options.seed,
  });
  try {
    options.setStatus('starting');
    await waitForInitialSync(fixture, BUILD_DEADLINE_MS);
    return await runSoak(fixture, options);
  } finally {
    await fixture.close();
  }
}

async function runSoak(
  fixture: FaultFixture,
  { minutes, seed, setStatus, print }: SoakOptions,
): Promise<SoakReport> {
  const [watched] = fixture.replicas.running;
  if (watched === undefined) throw new Error('there is no replica to watch');
  const probe = await openProbe(watched.process);
  const next = shuffledFaults(fixture.random);
  const entries: SoakEntry[] = [];
  let abortedReason: string | undefined;
  const startedMs = performance.now();
  const endMs = startedMs + minutes * 60_000;
  try {
    await probe.sample();
    while (performance.now() < endMs && abortedReason === undefined) {
      const begunMs = performance.now();
      const fault = next();
      const before = await snapshot(fixture);
      const setFaultStatus = (what: string): void => setStatus(`${fault.name}: ${what}`);
      const outcome = await fault.run(fixture, SOAK, setFaultStatus).then(
        (metrics) => ({ passed: metrics.every(isWithinBounds), line: metrics.map(formatMetric).join(', ') }),
        (error: unknown) => ({ passed: false, line: (error as Error).message }),
      );
      if (!outcome.passed) {
        print(`the operators' logs are in ${await saveLogs(fixture, fault.name)}`);
        // Otherwise the same difference would be counted again for every later fault.
        abortedReason = await waitForInitialSync(fixture, RECOVERY_MS).then(
          () => undefined,
          (error: unknown) => `after ${fault.name}: ${(error as Error).message}`,
        );
      }
      if (countCrashes([watched]) > 0) {
        abortedReason = `the watched operator crashed: ${watched.process.stderr}`;
        break;
      }
      const writes = await countObjectWrites(fixture, before);
      const atMs = Math.round(performance.now() - startedMs);
      const entry = { atMs, fault: fault.name, ...outcome, objectWrites: writes, ...(await probe.sample()) };
      entries.push(entry);
      print(formatEntry(entry));
      // Faults are aligned to half minutes; one that takes longer is followed by the next half minute's.
      const passedMs = performance.now() - begunMs;
      const waitMs = Math.ceil(passedMs / FAULT_INTERVAL_MS) * FAULT_INTERVAL_MS - passedMs;
      setStatus('waiting for the next fault');
      if (performance.now() + waitMs >= endMs) break;
      await delay(waitMs);
    }
  } finally {
    probe.close();
  }
  return createReport({ minutes: (performance.now() - startedMs) / 60_000, seed, entries, abortedReason });
}

function createReport(run: Pick<SoakReport, 'minutes' | 'seed' | 'entries' | 'abortedReason'>): SoakReport {
  const warmUpMs = Math.min(WARM_UP.share * run.minutes * 60_000, WARM_UP.atMostMs);
  const warm = run.entries.filter(({ atMs }) => atMs > warmUpMs);
  const growth = Object.fromEntries(
    GROWING_VALUES.map((name) => {
      const observe = ({ atMs, [name]: value, streams: load }: SoakEntry): Observation => {
        return { hours: atMs / HOUR_MS, value, load };
      };
      return [name, estimateGrowth(warm.map(observe))];
    }),
  ) as SoakReport['growth'];
  const third = Math.ceil(warm.length / 3);
  /** Returns the difference between the medians of the last and the first third. */
  const more = (name: GrowingValue): number =>
    median(warm.slice(-third).map((entry) => entry[name])) -
    median(warm.slice(0, third).map((entry) => entry[name]));
  const { perHour, error } = growth.heapMiB;
  return {
    ...run,
    growth,
    metrics: [
      { name: 'faults', value: run.entries.length, atLeast: 1 },
      { name: 'faults failed', value: run.entries.filter(({ passed: is }) => !is).length, atMost: 0 },
      { name: 'aborted', value: run.abortedReason === undefined ? 0 : 1, atMost: 0 },
      { name: 'heap growth', value: perHour, unit: 'MiB/h' },
      // A growth that a short soak cannot distinguish from zero counts as zero.
      {
        name: 'heap growth beyond twice its standard error',
        value: perHour - 2 * error,
        unit: 'MiB/h',
        atMost: MAX_HEAP_MIB_PER_HOUR,
      },
      { name: 'descriptor growth', value: more('descriptors'), atMost: 20 },
      { name: 'socket growth', value: more('sockets'), atMost: 20 },
      { name: 'timer growth', value: more('timers'), atMost: 20 },
      { name: 'RSS growth', value: more('residentMiB'), unit: 'MiB' },
      {
        name: 'maximum event loop delay',
        value: Math.max(...run.entries.map(({ loopMaxMs }) => loopMaxMs)),
        unit: 'ms',
      },
    ],
  };
}

export function formatEntry(entry: SoakEntry): string {
  const { atMs, fault, passed: is, line, heapMiB, residentMiB, descriptors, sockets, timers } = entry;
  const at = `${String(Math.floor(atMs / 60_000)).padStart(3)}m${String(Math.floor(atMs / 1000) % 60).padStart(2, '0')}s`;
  const memory = `heap ${heapMiB.toFixed(1)} RSS ${residentMiB.toFixed(0)} MiB`;
  const handles = `fd ${descriptors} sockets ${sockets} timers ${timers} streams ${entry.streams}`;
  const activity = `loop ${entry.loopMaxMs.toFixed(0)} ms, ${entry.objects} objects, ${entry.objectWrites} object writes`;
  const text = `${at} ${is ? 'passed' : 'FAILED'} ${fault.padEnd(20)} ${memory}, ${handles}, ${activity}`;
  return is ? text : `${text}: ${line}`;
}

export function formatReport(report: SoakReport): string {
  const { minutes, seed, growth, metrics, abortedReason } = report;
  const lines = [
    `soak: ${minutes.toFixed(1)} minutes, seed ${seed}, ${report.entries.length} faults`,
    ...(abortedReason === undefined ? [] : [`aborted: ${abortedReason}`]),
    ...Object.entries(growth).map(
      ([what, { perHour, error }]) => `  ${what} per hour: ${perHour.toFixed(2)} ± ${error.toFixed(2)}`,
    ),
    ...metrics.map((metric) => `  ${formatMetric(metric)}`),
    metrics.every(isWithinBounds) ? 'all metrics are within bounds' : 'NOT all metrics are within bounds',
  ];
  return lines.join('\n');
}
