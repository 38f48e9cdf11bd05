/** 10,000 tunnels at once, then none: how near the operator comes to what the API server takes. */
import { setTimeout as delay } from 'node:timers/promises';
import { openBareLoop, type BareLoop } from './bare-loop.ts';
import { bareRows, type BareRow } from './bare-rows.ts';
import { startChild, type Child } from './child.ts';
import type { Figure } from './figure.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import { clientPortsOf, cpuMs } from './process-usage.ts';
import { openRowWatch, type RowWatch } from './row-watch.ts';
import { scenario, type Bench, type Scenario } from './scenario.ts';
import { openWorld } from './world.ts';

/** For 10,000 rows; a machine that is busy with something else still writes 50 a second. */
const LIMIT_MS = 200_000;
/** From the last row seen to the look at CPU: the operator still reads its own watch. Also lets the machine calm down. */
const REST_MS = 500;
/** The operator's pool for calls: what `--write-concurrency` is by default, and 24 for claims, Leases and events. */
const POOL = 64 + 24;

interface Stage {
  readonly bare: BareLoop;
  readonly operator: Operator;
  readonly fleet: Child<FleetCalls>;
  readonly watch: RowWatch;
  readonly apiPort: number;
}

/** One flood of rows by the operator, and the same by the bare loop. */
interface Compared {
  /** Rows a second over the bare loop's. */
  readonly ratio: number;
  /** From the first report sent to the last row seen on a watch. */
  readonly rowsPerSecond: number;
  readonly bareRowsPerSecond: number;
  readonly cpuMsPerRow: number;
  /** Connections to the API server, each a TLS handshake, that were opened while the operator wrote. */
  readonly opened: number;
}

/**
 * A fresh operator that has written nothing yet. Half of the bare loop's rows are written before the operator's and half
 * after, so that a machine that gets slower or faster meanwhile does so for both.
 *
 * @param reporters that hold the tunnels between them
 */
export function cold(reporters: number): Scenario {
  const name = `cold-${reporters}`;
  return scenario<Stage>(open, [
    {
      name,
      about: `10,000 tunnels of ${reporters === 1 ? '1 reporter' : `${reporters} reporters`} come, then go: rows a second over a bare loop, CPU a row`,
      measure: (stage, bench) => measure(stage, bench, name, reporters),
    },
  ]);
}

async function open(bench: Bench, undo: AsyncDisposableStack): Promise<Stage> {
  bench.progress('starting');
  const world = undo.use(await openWorld({ audit: false }));
  const bare = undo.use(await openBareLoop(world, await world.access('bare')));
  const access = await world.access('mirror');
  const watch = undo.use(await openRowWatch(world, access.namespace));
  const fleet = undo.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  // A second between reports, so that removals do not wait long to be reported.
  const operator = undo.use(await startOperator({ access, flags: ['--report-interval', '1s'] }));
  await operator.ready();
  return { bare, operator, fleet, watch, apiPort: Number(new URL(world.url).port) };
}

async function measure(stage: Stage, bench: Bench, name: string, reporters: number): Promise<Figure[]> {
  const { bare, operator, fleet, watch } = stage;
  const count = bench.sizes.cold;
  const rows = bareRows(0, count);

  /** When the first report of a change was sent. */
  async function reported(change: Promise<void>): Promise<number> {
    await change;
    return (await fleet.ask('settled', null)) ?? Number.NaN;
  }

  bench.progress('rows are created');
  const created = await compare(
    stage,
    rows,
    (some) => bare.create(some),
    async () => {
      const options = { address: operator.grpcAddress, reporters, tunnels: count / reporters };
      return await Promise.all([watch.nth('ADDED', count, LIMIT_MS), reported(fleet.ask('start', options))]);
    },
  );
  bench.progress('rows are deleted');
  const removed = await compare(
    stage,
    rows,
    (some) => bare.delete(some),
    async () => {
      return await Promise.all([watch.nth('DELETED', count, LIMIT_MS), reported(fleet.ask('clear', null))]);
    },
  );

  return [...figures(`${name}: new rows`, created), ...figures(`${name}: removed rows`, removed)];
}

/** @param mirror has the operator write as many rows; when the last row was seen, and when the first report was sent */
async function compare(
  { operator, apiPort }: Stage,
  rows: readonly BareRow[],
  bare: (rows: readonly BareRow[]) => Promise<number>,
  mirror: () => Promise<readonly [lastMs: number, sentMs: number]>,
): Promise<Compared> {
  const half = rows.length / 2;
  let bareMs = await bare(rows.slice(0, half));
  await delay(REST_MS);
  const portsBefore = clientPortsOf(apiPort);
  const cpuBeforeMs = cpuMs(operator.pid);
  const [lastMs, sentMs] = await mirror();
  const opened = [...clientPortsOf(apiPort)].filter((port) => !portsBefore.has(port)).length;
  await delay(REST_MS);
  const usedMs = cpuMs(operator.pid) - cpuBeforeMs;
  bareMs += await bare(rows.slice(half));
  await delay(REST_MS);
  const mirrorMs = lastMs - sentMs;
  return {
    ratio: bareMs / mirrorMs,
    rowsPerSecond: (rows.length / mirrorMs) * 1000,
    bareRowsPerSecond: (rows.length / bareMs) * 1000,
    cpuMsPerRow: usedMs / rows.length,
    opened,
  };
}

function figures(what: string, compared: Compared): Figure[] {
  return [
    { name: `${what} over bare`, unit: '', value: compared.ratio, target: { atLeast: 0.85 } },
    { name: what, unit: 'rows/s', value: compared.rowsPerSecond },
    { name: `${what}, bare`, unit: 'rows/s', value: compared.bareRowsPerSecond },
    {
      name: `${what}, operator CPU a row`,
      unit: 'ms',
      value: compared.cpuMsPerRow,
      target: { atMost: 0.25 },
    },
    { name: `${what}, connections opened`, unit: '', value: compared.opened, target: { atMost: POOL } },
  ];
}
