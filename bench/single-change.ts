/** One tunnel comes or goes while 50,000 stay: from the report to the row on somebody's watch. */
import { setTimeout as delay } from 'node:timers/promises';
import { poll } from '../test/support/operator-process.ts';
import { bareRows, NAMES } from './bare-rows.ts';
import { openBareLoop } from './bare-loop.ts';
import { percentile, type Figure } from './figure.ts';
import { machineMs } from './machine-clock.ts';
import { openRawReporter, reportedTunnels } from './raw-reporter.ts';
import type { ResidentStage } from './resident-stage.ts';
import { openRowWatch, type RowEvent, type RowWatch } from './row-watch.ts';
import type { Bench, Measurement } from './scenario.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet-options.ts';

/** 20 of each a second: reports and bare requests take turns, so that what disturbs the one disturbs the other. */
const GAP_MS = 25;
const LIMIT_MS = 60_000;
const REPORTER = 'single';
/** Serials far from the fleet's. */
const FIRST_SERIAL = 20_000_000;

/** Something that is sent, and the row in which it will show. */
interface Change {
  readonly row: string;
  readonly send: () => Promise<unknown>;
}

export const singleChange: Measurement<ResidentStage> = {
  name: 'single',
  about:
    'one tunnel added or removed, 20 a second, 50,000 resident: report → watch over bare request → watch',
  measure,
};

async function measure(stage: ResidentStage, bench: Bench): Promise<Figure[]> {
  const { world, access, operator } = stage;
  await stage.growTo(bench.sizes.residentTunnels, bench);
  await using undo = new AsyncDisposableStack();
  const bareAccess = await world.access('bare');
  const bare = undo.use(await openBareLoop(world, bareAccess));
  const mirrorWatch = undo.use(await openRowWatch(world, access.namespace));
  const bareWatch = undo.use(await openRowWatch(world, bareAccess.namespace));
  const reporter = await openRawReporter(operator.grpcAddress, REPORTER);
  undo.defer(() => reporter.close());
  await reporter.send({ fullPush: true });

  const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: REPORTER };
  const tunnels = reportedTunnels(FIRST_SERIAL, bench.sizes.singles).map((tunnel) => ({
    tunnel,
    row: NAMES.rowName(id, { ...tunnel, createdAt: undefined }),
  }));
  const rows = bareRows(FIRST_SERIAL, bench.sizes.singles);

  async function phase(
    what: string,
    type: RowEvent,
    reports: Change[],
    requests: Change[],
  ): Promise<Figure[]> {
    bench.progress(`${reports.length} ${what}, one by one`);
    const mirrored = latencies(mirrorWatch, type);
    const direct = latencies(bareWatch, type);
    const startedMs = machineMs();
    const answers: Promise<unknown>[] = [];
    for (const [index, report] of reports.entries()) {
      const request = requests[index];
      await untilMs(startedMs + 2 * index * GAP_MS);
      answers.push(mirrored.send(report));
      await untilMs(startedMs + (2 * index + 1) * GAP_MS);
      if (request !== undefined) answers.push(direct.send(request));
    }
    await Promise.all(answers);
    return compared(`one tunnel ${what}`, await mirrored.all(), await direct.all());
  }

  return [
    ...(await phase(
      'added',
      'ADDED',
      tunnels.map(({ tunnel, row }) => ({ row, send: () => reporter.send({ added: [tunnel] }) })),
      rows.map((row) => ({ row: row.name, send: () => bare.create([row]) })),
    )),
    ...(await phase(
      'removed',
      'DELETED',
      tunnels.map(({ tunnel, row }) => ({ row, send: () => reporter.send({ removedNames: [tunnel.name] }) })),
      rows.map((row) => ({ row: row.name, send: () => bare.delete([row]) })),
    )),
  ];
}

/** Notes when each change was sent and when its row was seen. */
function latencies(watch: RowWatch, wanted: RowEvent) {
  const sentMs = new Map<string, number>();
  const seenAfterMs: number[] = [];
  watch.onEvent = (type, line, seenMs) => {
    if (type !== wanted) return;
    const { object } = JSON.parse(line) as { object: { metadata: { name: string } } };
    const since = sentMs.get(object.metadata.name);
    if (since === undefined) return;
    sentMs.delete(object.metadata.name);
    seenAfterMs.push(seenMs - since);
  };
  return {
    send({ row, send }: Change): Promise<unknown> {
      sentMs.set(row, machineMs());
      const answer = send();
      // Awaited only at the end; until then a failure is nobody's.
      answer.catch(() => undefined);
      return answer;
    },
    /** All of them in ms, ascending, once every row was seen. */
    all: () => poll(LIMIT_MS, () => (sentMs.size === 0 ? seenAfterMs.toSorted((a, b) => a - b) : undefined)),
  };
}

async function untilMs(atMs: number): Promise<void> {
  const leftMs = atMs - machineMs();
  if (leftMs > 0) await delay(leftMs);
}

function compared(what: string, mirrored: readonly number[], direct: readonly number[]): Figure[] {
  return [
    { percent: 50, atMost: 1.15 },
    { percent: 99, atMost: 1.3 },
  ].flatMap(({ percent, atMost }) => {
    const [ms, bareMs] = [percentile(mirrored, percent), percentile(direct, percent)];
    return [
      { name: `${what}, p${percent} over bare`, unit: '', value: ms / bareMs, target: { atMost } },
      { name: `${what}, p${percent}`, unit: 'ms', value: ms },
      { name: `${what}, p${percent}, bare`, unit: 'ms', value: bareMs },
    ];
  });
}
