/** Hours of faults over real processes: a random one every half minute, judged after each, with an eye on what grows. */
import { setTimeout as delay } from 'node:timers/promises';
import { figureText, held, type Figure } from './figure.ts';
import { growthOf, median, type Growth, type Observation } from './growth.ts';
import { allThere, crashes, photograph, rowWritesOf, writesSince } from './judge.ts';
import { keepLogs } from './kept-logs.ts';
import { openProbe, PROBE_NODE_FLAGS, type ProcessFigures } from './process-figures.ts';
import { SOAK } from './scenario.ts';
import { shuffled } from './soak-faults.ts';
import { openStage, type Stage } from './stage.ts';

const FAULT_EVERY_MS = 30_000;
const BUILD_DEADLINE_MS = 5 * 60_000;
/** After a fault that was not held the world must come back by itself, or the soak ends. */
const RECOVERY_MS = 120_000;
/** Caches fill and code is compiled: not the growth that is looked for. At most this share of the soak, and this long. */
const WARM_UP = { share: 0.25, atMostMs: 5 * 60_000 };
const MOST_HEAP_MIB_AN_HOUR = 2;
const HOUR_MS = 3_600_000;
const STAGE = { replicas: 3, reporters: 30, tunnels: 50 };

/** What was seen after one fault. */
export interface SoakEntry extends ProcessFigures {
  readonly atMs: number;
  readonly fault: string;
  readonly held: boolean;
  /** What the fault came to, or why it was not held. */
  readonly line: string;
  readonly rowWrites: number;
}

/** What came of it all; JSON as it is. */
export interface SoakReport {
  readonly seed: number;
  readonly minutes: number;
  readonly entries: readonly SoakEntry[];
  /** Why the soak ended before its time, if it did. */
  readonly brokenOff: string | undefined;
  /** By the name of a figure, after the warm-up, with the number of streams held still. */
  readonly growth: Readonly<Record<'heapMiB' | 'residentMiB' | 'descriptors' | 'sockets' | 'timers', Growth>>;
  readonly figures: readonly Figure[];
}

/** What to play. */
export interface SoakOptions {
  readonly minutes: number;
  readonly seed: number;
  /** What is being done now. */
  readonly doing: (what: string) => void;
  /** The line of a fault. */
  readonly say: (line: string) => void;
}

/** Plays faults for so long; a report in any case, unless the world cannot even be built. */
export async function soak(options: SoakOptions): Promise<SoakReport> {
  const stage = await openStage({ ...STAGE, nodeFlags: PROBE_NODE_FLAGS, seed: options.seed });
  try {
    options.doing('the world is built');
    await allThere(stage, BUILD_DEADLINE_MS);
    return await play(stage, options);
  } finally {
    await stage.close();
  }
}

async function play(stage: Stage, { minutes, seed, doing, say }: SoakOptions): Promise<SoakReport> {
  const [watched] = stage.replicas.running;
  if (watched === undefined) throw new Error('there is no replica to watch');
  const probe = await openProbe(watched.process);
  const next = shuffled(stage.random);
  const entries: SoakEntry[] = [];
  let brokenOff: string | undefined;
  const startedMs = performance.now();
  const endMs = startedMs + minutes * 60_000;
  try {
    await probe.look();
    while (performance.now() < endMs && brokenOff === undefined) {
      const begunMs = performance.now();
      const fault = next();
      const before = await photograph(stage);
      const stepTold = (what: string): void => doing(`${fault.name}: ${what}`);
      const outcome = await fault.run(stage, SOAK, stepTold).then(
        (figures) => ({ held: figures.every(held), line: figures.map(figureText).join(', ') }),
        (error: unknown) => ({ held: false, line: (error as Error).message }),
      );
      if (!outcome.held) {
        say(`the operators' logs are in ${await keepLogs(stage, fault.name)}`);
        // So that one difference is not counted again under every fault that follows.
        brokenOff = await allThere(stage, RECOVERY_MS).then(
          () => undefined,
          (error: unknown) => `after ${fault.name}: ${(error as Error).message}`,
        );
      }
      if (crashes([watched]) > 0) {
        brokenOff = `the watched operator crashed: ${watched.process.stderr}`;
        break;
      }
      const writes = rowWritesOf(await writesSince(stage, before));
      const atMs = Math.round(performance.now() - startedMs);
      const entry = { atMs, fault: fault.name, ...outcome, rowWrites: writes, ...(await probe.look()) };
      entries.push(entry);
      say(entryText(entry));
      // Faults come on the half minute; one that took longer is followed by the next half minute's.
      const passedMs = performance.now() - begunMs;
      const restMs = Math.ceil(passedMs / FAULT_EVERY_MS) * FAULT_EVERY_MS - passedMs;
      doing('at rest until the next fault');
      if (performance.now() + restMs >= endMs) break;
      await delay(restMs);
    }
  } finally {
    probe.close();
  }
  return reportOf({ minutes: (performance.now() - startedMs) / 60_000, seed, entries, brokenOff });
}

function reportOf(run: Pick<SoakReport, 'minutes' | 'seed' | 'entries' | 'brokenOff'>): SoakReport {
  const warmUpMs = Math.min(WARM_UP.share * run.minutes * 60_000, WARM_UP.atMostMs);
  const warm = run.entries.filter(({ atMs }) => atMs > warmUpMs);
  const grown = (what: (entry: SoakEntry) => number): Growth =>
    growthOf(
      warm.map((entry): Observation => ({
        hours: entry.atMs / HOUR_MS,
        value: what(entry),
        load: entry.streams,
      })),
    );
  const growth = {
    heapMiB: grown(({ heapMiB }) => heapMiB),
    residentMiB: grown(({ residentMiB }) => residentMiB),
    descriptors: grown(({ descriptors }) => descriptors),
    sockets: grown(({ sockets }) => sockets),
    timers: grown(({ timers }) => timers),
  };
  const third = Math.ceil(warm.length / 3);
  /** How much more the last third has than the first one, in the middle. */
  const more = (what: (entry: SoakEntry) => number): number =>
    median(warm.slice(-third).map(what)) - median(warm.slice(0, third).map(what));
  const { perHour, error } = growth.heapMiB;
  return {
    ...run,
    growth,
    figures: [
      { what: 'faults', value: run.entries.length, atLeast: 1 },
      { what: 'faults not held', value: run.entries.filter(({ held: is }) => !is).length, atMost: 0 },
      { what: 'broken off', value: run.brokenOff === undefined ? 0 : 1, atMost: 0 },
      { what: 'heap growth', value: perHour, unit: 'MiB/h' },
      // What a soak of minutes cannot tell from nothing is no growth.
      {
        what: 'heap growth beyond twice its error',
        value: perHour - 2 * error,
        unit: 'MiB/h',
        atMost: MOST_HEAP_MIB_AN_HOUR,
      },
      { what: 'descriptors more', value: more(({ descriptors }) => descriptors), atMost: 20 },
      { what: 'sockets more', value: more(({ sockets }) => sockets), atMost: 20 },
      { what: 'timers more', value: more(({ timers }) => timers), atMost: 20 },
      { what: 'RSS more', value: more(({ residentMiB }) => residentMiB), unit: 'MiB' },
      {
        what: 'event loop delay, longest',
        value: Math.max(...run.entries.map(({ loopMaxMs }) => loopMaxMs)),
        unit: 'ms',
      },
    ],
  };
}

/** One line of the table. */
export function entryText(entry: SoakEntry): string {
  const { atMs, fault, held: is, line, heapMiB, residentMiB, descriptors, sockets, timers } = entry;
  const at = `${String(Math.floor(atMs / 60_000)).padStart(3)}m${String(Math.floor(atMs / 1000) % 60).padStart(2, '0')}s`;
  const memory = `heap ${heapMiB.toFixed(1)} RSS ${residentMiB.toFixed(0)} MiB`;
  const handles = `fd ${descriptors} sockets ${sockets} timers ${timers} streams ${entry.streams}`;
  const rest = `loop ${entry.loopMaxMs.toFixed(0)} ms, ${entry.rows} rows, ${entry.rowWrites} row writes`;
  const text = `${at} ${is ? 'held    ' : 'NOT HELD'} ${fault.padEnd(20)} ${memory}, ${handles}, ${rest}`;
  return is ? text : `${text}: ${line}`;
}

/** The end of the report, for people. */
export function reportText(report: SoakReport): string {
  const { minutes, seed, growth, figures, brokenOff } = report;
  const lines = [
    `soak: ${minutes.toFixed(1)} minutes, seed ${seed}, ${report.entries.length} faults`,
    ...(brokenOff === undefined ? [] : [`broken off: ${brokenOff}`]),
    ...Object.entries(growth).map(
      ([what, { perHour, error }]) => `  ${what} an hour: ${perHour.toFixed(2)} ± ${error.toFixed(2)}`,
    ),
    ...figures.map((figure) => `  ${figureText(figure)}`),
    figures.every(held) ? 'every bound was held' : 'NOT every bound was held',
  ];
  return lines.join('\n');
}
