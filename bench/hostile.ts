/** One reporter at 100 times the rate of the others, which are not to notice: report → row of the others, p99. */
import { setTimeout as delay } from 'node:timers/promises';
import type { ReportedTunnel } from '../src/grpc/report-message.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet-options.ts';
import { poll } from '../test/support/operator-process.ts';
import { openBareLoop, type BareLoop } from './bare-loop.ts';
import { bareRows, NAMES, type BareRow } from './bare-rows.ts';
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
/** Each other's report of that kind is a row, and soon none; as many are not allowed. */
const HOSTILE_TENANT = 'hostile';
const HELD_TO = 10;
/**
 * What the others are looked at beside; also the ids of the two that are hostile. `bare`: as many writes as the hostile one
 * brings about, past the operator, so that what the API server itself costs the others is known. In turns, so that a
 * machine that gets slower or faster meanwhile does so for all.
 */
const PHASES = ['calm', 'hostile', 'hostile-held', 'bare'] as const;
const ROUNDS = 6;
const WARM_UP_MS = 3000;
const LIMIT_MS = 120_000;
/** Rows of the hostile ones stay as they are between two phases. */
const FLAGS = ['--unknown-after', '10m', '--expire-after', '20m'];
/** Serials far apart, so that no two tunnels meet. */
const HOSTILE_SERIAL = 30_000_000;
const OTHERS_SERIAL = 40_000_000;
const BARE_SERIAL = 50_000_000;

type Beside = (typeof PHASES)[number];

interface Stage {
  readonly operator: Operator;
  readonly watch: RowWatch;
  readonly others: readonly RawReporter[];
  /** Writes into another namespace. */
  readonly bareLoop: BareLoop;
  /** One that was never made before. */
  readonly nextBareRow: () => BareRow;
}

export const hostile = scenario<Stage>(
  async (bench, undo) => {
    bench.progress('starting');
    const world = undo.use(await openWorld({ audit: false }));
    const access = await world.access('mirror');
    await makePolicy(world, access, 'others', { reporters: { ids: ['other-*'] }, tenants: ['*'] });
    const rule = { reporters: { ids: ['hostile'] }, tenants: [HOSTILE_TENANT] };
    await makePolicy(world, access, 'hostile', rule);
    await makePolicy(world, access, 'hostile-held', {
      ...rule,
      reporters: { ids: ['hostile-held'] },
      limits: { reportsPerSecond: HELD_TO },
    });
    const operator = undo.use(await startOperator({ access, flags: FLAGS }));
    await operator.ready();
    const watch = undo.use(await openRowWatch(world, access.namespace));
    const others: RawReporter[] = [];
    for (let i = 0; i < OTHERS; i += 1) {
      const reporter = await openRawReporter(operator.grpcAddress, `other-${i}`);
      undo.defer(() => reporter.close());
      await reporter.send({ fullPush: true });
      others.push(reporter);
    }
    const bareLoop = undo.use(await openBareLoop(world, await world.access('bare')));
    let made = 0;
    const nextBareRow = (): BareRow => {
      const [row] = bareRows(BARE_SERIAL + made, 1);
      made += 1;
      if (row === undefined) throw new Error('no row was made');
      return row;
    };
    return { operator, watch, others, bareLoop, nextBareRow };
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
  const { operator } = stage;
  const reports = othersReport(stage);
  bench.progress('warming up');
  await delay(WARM_UP_MS);
  for (let round = 1; round <= ROUNDS; round += 1) {
    for (const beside of PHASES) {
      bench.progress(`round ${round} of ${ROUNDS}: ${beside}`);
      const close = await begin(stage, beside);
      reports.beside = beside;
      await delay(bench.sizes.hostileMs / ROUNDS);
      reports.beside = undefined;
      close?.();
      // What is left of it is nothing that the next phase is to be judged by.
      await poll(LIMIT_MS, async () =>
        (await operator.metric('workqueue_depth')) < OTHERS ? true : undefined,
      );
    }
  }
  await reports.end();
  const p99 = (beside: Beside): number =>
    percentile(
      reports.latenciesMs[beside].toSorted((a, b) => a - b),
      99,
    );
  const figures = (what: string, beside: Beside): Figure[] => [
    {
      name: `others beside ${what}, p99 over calm`,
      unit: '',
      value: p99(beside) / p99('calm'),
      target: { atMost: 2 },
    },
    { name: `others beside ${what}, p99`, unit: 'ms', value: p99(beside) },
  ];
  return [
    ...figures('a hostile reporter', 'hostile'),
    ...figures(`one held to ${HELD_TO} reports/s`, 'hostile-held'),
    {
      name: 'others beside as many writes of a bare loop, p99 over calm',
      unit: '',
      value: p99('bare') / p99('calm'),
    },
    { name: 'others in a calm run, p99', unit: 'ms', value: p99('calm') },
  ];
}

/** Begins what the others are to be looked at beside; gives what ends it. */
async function begin(stage: Stage, beside: Beside): Promise<(() => void) | undefined> {
  if (beside === 'calm') return undefined;
  if (beside === 'bare') return writeFast(stage);
  return await reportFast(stage.operator, beside);
}

/** Writes what a hostile reporter brings about: a row made, and the one before it deleted, at its rate. */
function writeFast({ bareLoop, nextBareRow }: Stage): () => void {
  let last: Promise<BareRow> | undefined;
  return evenly(REPORT_EVERY_MS / TIMES_THE_RATE, () => {
    const row = nextBareRow();
    const before = last;
    last = bareLoop.create([row]).then(() => row);
    // The one that fails is missing from the writes, and the next goes on: the others' rows are what counts here.
    last.catch(() => undefined);
    before?.then((old) => bareLoop.delete([old])).catch(() => undefined);
  });
}

/** Has the others report, evenly, until it is ended; how long each new tunnel took to be a row on a watch. */
function othersReport({ watch, others }: Stage) {
  const latenciesMs: Record<Beside, number[]> = { calm: [], hostile: [], 'hostile-held': [], bare: [] };
  const waiting = new Map<string, { readonly sentMs: number; readonly beside: Beside | undefined }>();
  watch.onEvent = (type, line, seenMs) => {
    if (type !== 'ADDED') return;
    const { object } = JSON.parse(line) as { object: { metadata: { name: string } } };
    const sent = waiting.get(object.metadata.name);
    waiting.delete(object.metadata.name);
    if (sent?.beside !== undefined) latenciesMs[sent.beside].push(seenMs - sent.sentMs);
  };
  const held: ReportedTunnel[] = [];
  const answers: Promise<unknown>[] = [];
  const reporting = {
    latenciesMs,
    /** What the reports to come are sent beside; undefined: they do not count. */
    beside: undefined as Beside | undefined,
    async end(): Promise<void> {
      stop();
      await Promise.all(answers);
      await poll(LIMIT_MS, () => (waiting.size === 0 ? true : undefined));
    },
  };
  const stop = evenly(REPORT_EVERY_MS / OTHERS, (index) => {
    const [tunnel] = reportedTunnels(OTHERS_SERIAL + index, 1);
    const place = index % OTHERS;
    const reporter = others[place];
    if (tunnel === undefined || reporter === undefined) return;
    const id = { cluster: FLEET_DEFAULTS.reporterCluster, id: `other-${place}` };
    const row = NAMES.rowName(id, { ...tunnel, createdAt: undefined });
    waiting.set(row, { sentMs: machineMs(), beside: reporting.beside });
    held.push(tunnel);
    const gone = held.length > STAY_REPORTS * OTHERS ? held.shift() : undefined;
    const answer = reporter.send({ added: [tunnel], removedNames: gone === undefined ? [] : [gone.name] });
    // Awaited only at the end; until then a failure is nobody's.
    answer.catch(() => undefined);
    answers.push(answer);
  });
  return reporting;
}

/** Has a reporter report at its rate until what this gives is called. */
async function reportFast({ grpcAddress }: Operator, id: string): Promise<() => void> {
  const reporter = await openRawReporter(grpcAddress, id);
  await reporter.send({ fullPush: true });
  let last: ReportedTunnel[] = [];
  const stop = evenly(REPORT_EVERY_MS / TIMES_THE_RATE, (index) => {
    const [mine, theirs] = reportedTunnels(HOSTILE_SERIAL + 2 * index, 2);
    if (mine === undefined || theirs === undefined) return;
    // One of its own, which goes again, and one that is not its own.
    const added = [{ ...mine, tenantID: HOSTILE_TENANT }, theirs];
    reporter.send({ added, removedNames: last.map(({ name }) => name) }).catch(() => undefined);
    last = added;
  });
  return () => {
    stop();
    reporter.close();
  };
}

/** Calls something every so often, as many times as the time that has passed asks for; gives what ends it. */
function evenly(everyMs: number, act: (index: number) => void): () => void {
  const startedMs = machineMs();
  let index = 0;
  const timer = setInterval(() => {
    for (; startedMs + index * everyMs <= machineMs(); index += 1) act(index);
  }, everyMs);
  return () => clearInterval(timer);
}

async function makePolicy(world: World, { namespace }: Access, name: string, rule: object): Promise<void> {
  const { status, body } = await world.request('POST', policiesPath(namespace), {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnelPolicy',
    metadata: { name },
    spec: { rules: [{ peers: [{ any: true }], ...rule }] },
  });
  if (status !== 201) throw new Error(`policy ${name}: ${status} ${JSON.stringify(body)}`);
}

function policiesPath(namespace: string): string {
  return `${API}/namespaces/${namespace}/reversetunnelpolicies`;
}
