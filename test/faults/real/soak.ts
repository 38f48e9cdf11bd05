/** Hours of faults over real processes: a random one every half minute, judged after each, with an eye on what grows. */
import { setTimeout as delay } from 'node:timers/promises';
import { formatMetric, isWithinBounds, type Metric } from './metric.ts';
import { estimateGrowth, median, type Growth, type Observation } from './growth.ts';
import { waitForInitialSync, countCrashes, snapshot, objectWriteCount, writesSince } from './convergence.ts';
import { saveLogs } from './save-logs.ts';
import { openProbe, PROBE_NODE_FLAGS, type ProcessStats } from './process-stats.ts';
import { SOAK } from './scenario.ts';
import { shuffledFaults } from './soak-faults.ts';
import { openFaultFixture, type FaultFixture } from './fault-fixture.ts';

const FAULT_INTERVAL_MS = 30_000;
const BUILD_DEADLINE_MS = 5 * 60_000;
/** After a fault that was not held the world must come back by itself, or the soak ends. */
const RECOVERY_MS = 120_000;
/** Caches fill and code is compiled: not the growth that is looked for. At most this share of the soak, and this long. */
const WARM_UP = { share: 0.25, atMostMs: 5 * 60_000 };
const MAX_HEAP_MIB_PER_HOUR = 2;
const HOUR_MS = 3_600_000;
const FIXTURE_OPTIONS = { replicas: 3, reporters: 30, tunnels: 50 };

/** What was seen after one fault. */
export interface SoakEntry extends ProcessStats {
  readonly atMs: number;
  readonly fault: string;
  readonly held: boolean;
  /** What the fault came to, or why it was not held. */
  readonly line: string;
  readonly objectWrites: number;
}

/** What came of it all; JSON as it is. */
export interface SoakReport {
  readonly seed: number;
  readonly minutes: number;
  readonly entries: readonly SoakEntry[];
  /** Why the soak ended before its time, if it did. */
  readonly abortedReason: string | undefined;
  /** By the name of a figure, after the warm-up, with the number of streams held still. */
  readonly growth: Readonly<Record<'heapMiB' | 'residentMiB' | 'descriptors' | 'sockets' | 'timers', Growth>>;
  readonly metrics: readonly Metric[];
}

/** What to play. */
export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  /** What is being done now. */
  readonly setStatus: (what: string) => void;
  /** The line of a fault. */
  readonly print: (line: string) => void;
}

/** Plays faults for so long; a report in any case, unless the world cannot even be built. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const fixture = await openFaultFixture({
    ...FIXTURE_OPTIONS,
    nodeFlags: PROBE_NODE_FLAGS,
    seed: options.seed,
  });
  try {
    options.setStatus('the world is built');
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
        (metrics) => ({ held: metrics.every(isWithinBounds), line: metrics.map(formatMetric).join(', ') }),
        (error: unknown) => ({ held: false, line: (error as Error).message }),
      );
      if (!outcome.held) {
        print(`the operators' logs are in ${await saveLogs(fixture, fault.name)}`);
        // So that one difference is not counted again under every fault that follows.
        abortedReason = await waitForInitialSync(fixture, RECOVERY_MS).then(
          () => undefined,
          (error: unknown) => `after ${fault.name}: ${(error as Error).message}`,
        );
      }
      if (countCrashes([watched]) > 0) {
        abortedReason = `the watched operator crashed: ${watched.process.stderr}`;
        break;
      }
      const writes = objectWriteCount(await writesSince(fixture, before));
      const atMs = Math.round(performance.now() - startedMs);
      const entry = { atMs, fault: fault.name, ...outcome, objectWrites: writes, ...(await probe.sample()) };
      entries.push(entry);
      print(formatEntry(entry));
      // Faults come on the half minute; one that took longer is followed by the next half minute's.
      const passedMs = performance.now() - begunMs;
      const waitMs = Math.ceil(passedMs / FAULT_INTERVAL_MS) * FAULT_INTERVAL_MS - passedMs;
      setStatus('at rest until the next fault');
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
  const growthIn = (what: (entry: SoakEntry) => number): Growth =>
    estimateGrowth(
      warm.map((entry): Observation => ({
        hours: entry.atMs / HOUR_MS,
        value: what(entry),
        load: entry.streams,
      })),
    );
  const growth = {
    heapMiB: growthIn(({ heapMiB }) => heapMiB),
    residentMiB: growthIn(({ residentMiB }) => residentMiB),
    descriptors: growthIn(({ descriptors }) => descriptors),
    sockets: growthIn(({ sockets }) => sockets),
    timers: growthIn(({ timers }) => timers),
  };
  const third = Math.ceil(warm.length / 3);
  /** How much more the last third has than the first one, in the middle. */
  const more = (what: (entry: SoakEntry) => number): number =>
    median(warm.slice(-third).map(what)) - median(warm.slice(0, third).map(what));
  const { perHour, error } = growth.heapMiB;
  return {
    ...run,
    growth,
    metrics: [
      { name: 'faults', value: run.entries.length, atLeast: 1 },
      { name: 'faults not held', value: run.entries.filter(({ held: is }) => !is).length, atMost: 0 },
      { name: 'broken off', value: run.abortedReason === undefined ? 0 : 1, atMost: 0 },
      { name: 'heap growth', value: perHour, unit: 'MiB/h' },
      // What a soak of minutes cannot tell from nothing is no growth.
      {
        name: 'heap growth beyond twice its error',
        value: perHour - 2 * error,
        unit: 'MiB/h',
        atMost: MAX_HEAP_MIB_PER_HOUR,
      },
      { name: 'descriptors more', value: more(({ descriptors }) => descriptors), atMost: 20 },
      { name: 'sockets more', value: more(({ sockets }) => sockets), atMost: 20 },
      { name: 'timers more', value: more(({ timers }) => timers), atMost: 20 },
      { name: 'RSS more', value: more(({ residentMiB }) => residentMiB), unit: 'MiB' },
      {
        name: 'event loop delay, longest',
        value: Math.max(...run.entries.map(({ loopMaxMs }) => loopMaxMs)),
        unit: 'ms',
      },
    ],
  };
}

/** One line of the table. */
export function formatEntry(entry: SoakEntry): string {
  const { atMs, fault, held: is, line, heapMiB, residentMiB, descriptors, sockets, timers } = entry;
  const at = `${String(Math.floor(atMs / 60_000)).padStart(3)}m${String(Math.floor(atMs / 1000) % 60).padStart(2, '0')}s`;
  const memory = `heap ${heapMiB.toFixed(1)} RSS ${residentMiB.toFixed(0)} MiB`;
  const handles = `fd ${descriptors} sockets ${sockets} timers ${timers} streams ${entry.streams}`;
  const activity = `loop ${entry.loopMaxMs.toFixed(0)} ms, ${entry.objects} rows, ${entry.objectWrites} row writes`;
  const text = `${at} ${is ? 'held    ' : 'NOT HELD'} ${fault.padEnd(20)} ${memory}, ${handles}, ${activity}`;
  return is ? text : `${text}: ${line}`;
}

/** The end of the report, for people. */
export function formatReport(report: SoakReport): string {
  const { minutes, seed, growth, metrics, abortedReason } = report;
  const lines = [
    `soak: ${minutes.toFixed(1)} minutes, seed ${seed}, ${report.entries.length} faults`,
    ...(abortedReason === undefined ? [] : [`broken off: ${abortedReason}`]),
    ...Object.entries(growth).map(
      ([what, { perHour, error }]) => `  ${what} an hour: ${perHour.toFixed(2)} ± ${error.toFixed(2)}`,
    ),
    ...metrics.map((figure) => `  ${formatMetric(figure)}`),
    metrics.every(isWithinBounds) ? 'every bound was held' : 'NOT every bound was held',
  ];
  return lines.join('\n');
}
