/**
 * Three replicas and one Envoy that moves between them, with faults in random order: half-open streams with delayed
 * reports, watches that lag (objects and reporter objects separately), delayed requests, lost responses, manual deletes
 * and edits, replicas that are dead or wrongly presumed dead. Seeded, so that a failing run can be repeated.
 */
import { expect } from 'chai';

import type { Tunnel } from '../../src/core/tunnel.ts';
import { seededRandom } from '../../src/simulate/random.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

type Replica = ReturnType<MultiReplicaHarness['replica']>;

const RUNS = 150;
const STEPS = 40;
/** The time in which keepalive detects a half-open stream (interval 30 s, timeout 10 s). */
const KEEPALIVE_MS = 40_000;
/** Connected throughout: its object must only be deleted manually. */
const LIVE = tunnel('live');
const NAME = names.reporterObjectName(RESPONDER);

/** Changes of objects, and lines of the tunnel logs, in all runs; without lost responses, every change has a line. */
const seen = { changes: 0, lines: 0, withoutLine: 0 };

/** Counts what the objects have shown, by `object state`: Connected when one is created or no longer Unknown. */
function countChanges(harness: MultiReplicaHarness): () => Map<string, number> {
  const states = new Map<string, string>();
  const counts = new Map<string, number>();
  const deliver = harness.tunnelApi.watch({
    replaceBegin() {},
    replaceItem() {},
    replaceEnd() {},
    event(type, { metadata: { name }, status }) {
      const state = type === 'DELETED' ? 'Closed' : (status?.state ?? '');
      if (states.get(name) !== state)
        counts.set(`${name} ${state}`, (counts.get(`${name} ${state}`) ?? 0) + 1);
      states.set(name, state);
    },
  });
  return () => {
    deliver();
    return counts;
  };
}

/** Checks that the logs of all replicas together contain no transition twice. */
function checkLogs(harness: MultiReplicaHarness, changes: Map<string, number>, isComplete: boolean): void {
  const lines = new Map<string, number>();
  for (const { objectName, state } of harness.transitions)
    lines.set(`${objectName} ${state}`, (lines.get(`${objectName} ${state}`) ?? 0) + 1);
  for (const [what, count] of lines) expect(count, `lines of ${what}`).to.be.at.most(changes.get(what) ?? 0);
  for (const [what, count] of changes) {
    seen.changes += count;
    seen.lines += lines.get(what) ?? 0;
    if (isComplete) seen.withoutLine += count - (lines.get(what) ?? 0);
  }
}

/** Runs the faults of one seed; throws an error that names the seed and the faults. */
async function run(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const below = (limit: number): number => random.below(limit);
  const harness = createMultiReplicaHarness();
  const changes = countChanges(harness);
  const replicas = [harness.replica('a'), harness.replica('b'), harness.replica('c')];
  const pick = (): Replica => replicas[below(replicas.length)] as Replica;
  const tunnels = new Map<string, Tunnel>([[LIVE.name, LIVE]]);
  const history: string[] = [];
  let current: Replica | undefined;
  /** Half-open streams, with the reports that their replica has not read yet. */
  let halfOpen: { readonly replica: Replica; readonly sinceMs: number; unread: (() => void)[] }[] = [];
  let serial = 0;

  const push = (): ReturnType<typeof fullPush> => fullPush(...tunnels.values());

  function leave(): void {
    if (current === undefined) return;
    const previous = current;
    current = undefined;
    // The unread report has the content at this time.
    const late = push();
    if (below(2) === 0) previous.disconnect(RESPONDER);
    else {
      const unread = [(): void => previous.report(RESPONDER, late)];
      halfOpen.push({ replica: previous, sinceMs: harness.clock.monotonicMs(), unread });
    }
  }

  function connect(): void {
    leave();
    current = pick();
    // The newest stream on a replica ends the older ones there.
    halfOpen = halfOpen.filter(({ replica }) => replica !== current);
    current.connect(RESPONDER, push());
  }

  const faults: [name: string, weight: number, inject: () => void][] = [
    ['connect', 4, connect],
    ['leave', 2, leave],
    ['report', 6, () => current?.report(RESPONDER, delta([]))],
    [
      'tunnel added',
      3,
      () => {
        const added = tunnel(`t-${serial++}`);
        tunnels.set(added.name, added);
        current?.report(RESPONDER, delta([added]));
      },
    ],
    [
      'tunnel removed',
      3,
      () => {
        const removed = [...tunnels.keys()].find((name) => name !== LIVE.name);
        if (removed === undefined) return;
        tunnels.delete(removed);
        current?.report(RESPONDER, delta([], [removed]));
      },
    ],
    ['delayed read', 3, () => halfOpen.find(({ unread }) => unread.length > 0)?.unread.shift()?.()],
    ['objects lag', 2, () => (pick().state.watchesTunnels = false)],
    ['reporters lag', 2, () => (pick().state.watchesReporters = false)],
    ['requests delayed', 2, () => pick().hold()],
    ['responses lost', 1, () => (pick().state.dropsResponses = true)],
    ['fenced', 1, () => (pick().state.writes = false)],
    ['presumed dead', 1, () => pick().state.presumedDead.add(['a', 'b', 'c'][below(3)] ?? '')],
    ['leader', 2, () => (pick().state.leads = true)],
    ['recover', 6, () => recover(pick())],
    [
      'reporter object deleted manually',
      1,
      () => harness.reporterApi.stored.has(NAME) && harness.reporterApi.deleteManually(NAME),
    ],
    [
      'status edited manually',
      1,
      () =>
        harness.reporterApi.stored.has(NAME) &&
        harness.reporterApi.editManually(NAME, { connectedSince: null }),
    ],
  ];
  const total = faults.reduce((sum, [, weight]) => sum + weight, 0);

  function recover(replica: Replica): void {
    const { state } = replica;
    state.watchesTunnels = true;
    state.watchesReporters = true;
    state.dropsResponses = false;
    state.presumedDead.clear();
    state.leads = false;
    replica.release();
    if (!state.writes) {
      state.writes = true;
      replica.reporters.resume();
    }
  }

  /** Deletes of the object of LIVE. An expiry delete or the manual delete of the reporter object may delete it, too. */
  const wrongDeletions = (): string[] =>
    harness.deletions.filter((deletion) => deletion.endsWith(' live') && !deletion.includes('expiring'));

  /** Ends half-open streams as keepalive does. */
  function endHalfOpen(): void {
    const nowMs = harness.clock.monotonicMs();
    for (const { replica, sinceMs } of halfOpen) {
      if (nowMs - sinceMs >= KEEPALIVE_MS) replica.disconnect(RESPONDER);
    }
    halfOpen = halfOpen.filter(({ sinceMs }) => nowMs - sinceMs < KEEPALIVE_MS);
  }

  try {
    for (let steps = 0; steps < STEPS; steps += 1) {
      let position = below(total);
      const [name, , inject] = faults.find(([, weight]) => (position -= weight) < 0) ??
        faults[0] ?? ['', 0, () => {}];
      history.push(name);
      endHalfOpen();
      inject();
      await harness.advance([0, 100, 1100, 6000][below(4)] ?? 0);
    }
    expect(wrongDeletions(), 'deletes of the object of a connected tunnel').to.deep.equal([]);

    // Everything recovers, one Envoy remains, and half-open streams are detected.
    for (const replica of replicas) recover(replica);
    (replicas[0] as Replica).state.leads = true;
    if (current === undefined) connect();
    for (let seconds = 0; seconds < 700; seconds += 5) {
      if (seconds === 45)
        for (const { replica } of halfOpen) if (replica !== current) replica.disconnect(RESPONDER);
      current?.report(RESPONDER, delta([]));
      await harness.advance(5000);
    }
    expect(harness.tunnelNames(RESPONDER), 'objects at the end').to.deep.equal(
      [...tunnels.keys()].toSorted(),
    );
    expect(harness.condition(RESPONDER, 'Ready')).to.equal('True Synced');
    expect(wrongDeletions(), 'deletes of the object of a connected tunnel').to.deep.equal([]);
    checkLogs(harness, changes(), !history.includes('responses lost'));
    harness.tunnelApi.calls.length = 0;
    harness.reporterApi.calls.length = 0;
    for (let reports = 0; reports < 24; reports += 1) {
      current?.report(RESPONDER, delta([]));
      await harness.advance(5000);
    }
    expect([harness.tunnelApi.calls, harness.reporterApi.calls], 'requests while idle').to.deep.equal([
      [],
      [],
    ]);
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}; ${history.join(', ')}`, { cause: error });
  } finally {
    harness.stop();
    await harness.settle();
  }
}

describe('three replicas with faults in any order', () => {
  it(`never delete the object of a connected tunnel, converge, and log each change once (${RUNS} runs)`, async function () {
    this.timeout(240_000);
    for (let seed = 1; seed <= RUNS; seed += 1) await run(seed);
    reportMeasurement(`${seen.changes} changes of objects, ${seen.lines} lines in the tunnel logs`);
    expect(seen.withoutLine).to.equal(0);
    expect(seen.lines).to.be.above(0.95 * seen.changes);
  });
});
