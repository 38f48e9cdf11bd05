/** One reporter at 100 times the rate of the others, which are not to notice: report → row of the others, p99. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ReportedTunnel } from '../src/grpc/report-message.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet-options.ts';
import { poll } from '../test/support/operator-process.ts';
import { NAMES } from './bare-rows.ts';
import { percentile, type Figure } from './figure.ts';
import { machineMs } from './machine-clock.ts';
import { startOperator, type Operator } from './operator.ts';
import { openRawReporter, reportedTunnels, type RawReporter } from './raw-reporter.ts';
import { openRowWatch, type RowWatch } from './row-watch.ts';
import { scenario, type Bench } from './scenario.ts';
import { API, openWorld, type Access, type World } from './world.ts';

/** Each sends one report a second: one tunnel more, one less. */
const OTHERS = 20;
const REPORT_EVERY_MS = 1000;
const TIMES_THE_RATE = 100;
/** What is gone before it was written has no row, and is none to wait for. */
const STAY_REPORTS = 10;
const HOSTILE = 'hostile';
const LIMIT_MS = 60_000;
/** Serials far apart, so that no two tunnels meet. */
const HOSTILE_SERIAL = 30_000_000;
const OTHERS_SERIAL = 40_000_000;

interface Stage {
  readonly world: World;
  readonly access: Access;
  readonly operator: Operator;
  readonly watch: RowWatch;
  readonly others: readonly RawReporter[];
}

export const hostile = scenario<Stage>(
  async (bench, undo) => {
    bench.progress('starting');
    const world = undo.use(await openWorld({ audit: false }));
    const access = await world.access('mirror');
    await makePolicy(world, access, 'others', { reporters: { ids: ['other-*'] }, tenants: ['*'] });
    const operator = undo.use(await startOperator({ access }));
    await operator.ready();
    const watch = undo.use(await openRowWatch(world, access.namespace));
    const others: RawReporter[] = [];
    for (let i = 0; i < OTHERS; i += 1) {
      const reporter = await openRawReporter(operator.grpcAddress, `other-${i}`);
      undo.defer(() => reporter.close());
      await reporter.send({ fullPush: true });
      others.push(reporter);
    }
    return { world, access, operator, watch, others };
  },
  [
    {
      name: 'hostile',
      about: `${OTHERS} reporters beside one at ${TIMES_THE_RATE} times their rate: their report → row, p99, over a calm run`,
      measure,
    },
  ],
);

async function measure(stage: Stage, bench: Bench): Promise<Figure[]> {
  const { world, access } = stage;
  const { hostileMs } = bench.sizes;
  let serial = OTHERS_SERIAL;
  const phase = async (what: string, ms: number): Promise<number[]> => {
    bench.progress(what);
    const latencies = await othersFor(stage, ms, serial);
    serial += latencies.length;
    return latencies;
  };

  await phase('warming up', hostileMs / 3);
  // Half before and half after, so that a machine that gets slower or faster meanwhile does so for both.
  const calm = await phase('calm', hostileMs / 2);
  const rule = { reporters: { ids: [HOSTILE] }, tenants: [HOSTILE] };
  await makePolicy(world, access, HOSTILE, rule);
  const free = await beside(stage, () => phase('beside a hostile one', hostileMs));
  await removePolicy(world, access, HOSTILE);
  await makePolicy(world, access, HOSTILE, { ...rule, limits: { reportsPerSecond: 10 } });
  const limited = await beside(stage, () => phase('beside a hostile one with a limit', hostileMs));
  calm.push(...(await phase('calm again', hostileMs / 2)));

  const p99 = (latencies: readonly number[]): number =>
    percentile(
      latencies.toSorted((a, b) => a - b),
      99,
    );
  const figures = (what: string, latencies: readonly number[]): Figure[] => [
    {
      name: `others beside ${what}, p99 over calm`,
      unit: '',
      value: p99(latencies) / p99(calm),
      target: { atMost: 2 },
    },
    { name: `others beside ${what}, p99`, unit: 'ms', value: p99(latencies) },
  ];
  return [
    ...figures('a hostile reporter', free),
    ...figures('one held to 10 reports/s', limited),
    { name: 'others in a calm run, p99', unit: 'ms', value: p99(calm) },
  ];
}

/** Has the others report for so long; how many ms each new tunnel took to be a row on a watch. */
async function othersFor({ watch, others }: Stage, ms: number, serial: number): Promise<number[]> {
  const count = Math.round((ms / REPORT_EVERY_MS) * OTHERS);
  const tunnels = reportedTunnels(serial, count);
  const sentMs = new Map<string, number>();
  const seenAfterMs: number[] = [];
  watch.onEvent = (type, line, seenMs) => {
    if (type !== 'ADDED') return;
    const { object } = JSON.parse(line) as { object: { metadata: { name: string } } };
    const since = sentMs.get(object.metadata.name);
    if (since === undefined) return;
    sentMs.delete(object.metadata.name);
    seenAfterMs.push(seenMs - since);
  };
  const startedMs = machineMs();
  const answers: Promise<unknown>[] = [];
  for (const [index, tunnel] of tunnels.entries()) {
    const leftMs = startedMs + (index * REPORT_EVERY_MS) / OTHERS - machineMs();
    if (leftMs > 0) await delay(leftMs);
    const place = index % OTHERS;
    const gone = tunnels[index - STAY_REPORTS * OTHERS];
    const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: `other-${place}` };
    sentMs.set(NAMES.rowName(id, { ...tunnel, createdAt: undefined }), machineMs());
    const report = { added: [tunnel], removedNames: gone === undefined ? [] : [gone.name] };
    const answer = others[place]?.send(report) ?? Promise.resolve();
    // Awaited only at the end; until then a failure is nobody's.
    answer.catch(() => undefined);
    answers.push(answer);
  }
  await Promise.all(answers);
  await poll(LIMIT_MS, () => (sentMs.size === 0 ? true : undefined));
  return seenAfterMs;
}

/** Has something done while the hostile reporter reports; then waits until nothing of it is left to be written. */
async function beside<T>({ operator }: Stage, act: () => Promise<T>): Promise<T> {
  // Its policy is in force a moment after it was made.
  const reporter = await poll(LIMIT_MS, async () => {
    const opened = await openRawReporter(operator.grpcAddress, HOSTILE);
    const ok = await opened.send({ fullPush: true }).catch(() => undefined);
    if (ok !== undefined) return opened;
    opened.close();
    return undefined;
  });
  let serial = HOSTILE_SERIAL;
  let last: ReportedTunnel[] = [];
  const gapMs = REPORT_EVERY_MS / TIMES_THE_RATE;
  const startedMs = machineMs();
  let sent = 0;
  const reports = setInterval(() => {
    for (; startedMs + sent * gapMs <= machineMs(); sent += 1) {
      const [mine, theirs] = reportedTunnels(serial, 2);
      if (mine === undefined || theirs === undefined) return;
      serial += 2;
      // One of its own that stays a while, and one that is not its own.
      const added = [{ ...mine, tenantID: HOSTILE }, theirs];
      reporter.send({ added, removedNames: last.map(({ name }) => name) }).catch(() => undefined);
      last = added;
    }
  }, gapMs);
  try {
    return await act();
  } finally {
    clearInterval(reports);
    reporter.close();
    await poll(LIMIT_MS, async () => ((await operator.metric('workqueue_depth')) === 0 ? true : undefined));
  }
}

async function makePolicy(world: World, { namespace }: Access, name: string, rule: object): Promise<void> {
  const { status, body } = await world.request('POST', policiesPath(namespace), {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelPolicy',
    metadata: { name },
    spec: { rules: [{ peers: [{ anybody: true }], ...rule }] },
  });
  if (status !== 201) throw new Error(`policy ${name}: ${status} ${JSON.stringify(body)}`);
}

async function removePolicy(world: World, { namespace }: Access, name: string): Promise<void> {
  const { status, body } = await world.request('DELETE', `${policiesPath(namespace)}/${name}`);
  if (status !== 200) throw new Error(`policy ${name}: ${status} ${JSON.stringify(body)}`);
}

function policiesPath(namespace: string): string {
  return `${API}/namespaces/${namespace}/reversetunnelpolicies`;
}
