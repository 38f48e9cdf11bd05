/**
 * Three replicas and one Envoy that moves between them, with everything that may go wrong in any order: half-open streams
 * whose reports come late, watches that lag (rows and reporters apart), calls that arrive late or whose answers are lost,
 * hands that delete rows and objects, replicas held for dead, and dead ones. Seeded, so that a failing play comes again.
 */
import { expect } from 'chai';

import type { Tunnel } from '../../src/core/tunnel.ts';
import { seededRandom } from '../../src/simulate/random.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

type Replica = ReturnType<MultiReplicaHarness['replica']>;

const PLAYS = 150;
const STEPS = 40;
/** After this the server has found out that nobody is at the other end (30 s and 10 s). */
const KEEPALIVE_MS = 40_000;
/** It lives throughout: nobody but a hand may delete its row. */
const LIVE = tunnel('live');
const NAME = names.reporterObjectName(RESPONDER);

/** One play; throws what is wrong, with its seed. */
async function play(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const below = (limit: number): number => random.below(limit);
  const world = createMultiReplicaHarness();
  const replicas = [world.replica('a'), world.replica('b'), world.replica('c')];
  const pick = (): Replica => replicas[below(replicas.length)] as Replica;
  const truth = new Map<string, Tunnel>([[LIVE.name, LIVE]]);
  const history: string[] = [];
  let at: Replica | undefined;
  /** Streams that nobody is at the other end of, with what their replica has not read yet. */
  let halfOpen: { readonly replica: Replica; readonly sinceMs: number; unread: (() => void)[] }[] = [];
  let serial = 0;

  const push = (): ReturnType<typeof fullPush> => fullPush(...truth.values());

  function leave(): void {
    if (at === undefined) return;
    const left = at;
    at = undefined;
    // What it was about to read is what was true then.
    const late = push();
    if (below(2) === 0) left.disconnect(RESPONDER);
    else {
      const unread = [(): void => left.report(RESPONDER, late)];
      halfOpen.push({ replica: left, sinceMs: world.clock.monotonicMs(), unread });
    }
  }

  function connect(): void {
    leave();
    at = pick();
    // The newest stream on a replica ends the older ones there.
    halfOpen = halfOpen.filter(({ replica }) => replica !== at);
    at.connect(RESPONDER, push());
  }

  const acts: [name: string, weight: number, act: () => void][] = [
    ['connects', 4, connect],
    ['leaves', 2, leave],
    ['reports', 6, () => at?.report(RESPONDER, delta([]))],
    [
      'a tunnel comes',
      3,
      () => {
        const come = tunnel(`t-${serial++}`);
        truth.set(come.name, come);
        at?.report(RESPONDER, delta([come]));
      },
    ],
    [
      'a tunnel goes',
      3,
      () => {
        const gone = [...truth.keys()].find((name) => name !== LIVE.name);
        if (gone === undefined) return;
        truth.delete(gone);
        at?.report(RESPONDER, delta([], [gone]));
      },
    ],
    ['reads late', 3, () => halfOpen.find(({ unread }) => unread.length > 0)?.unread.shift()?.()],
    ['rows lag', 2, () => (pick().state.watchesTunnels = false)],
    ['reporters lag', 2, () => (pick().state.watchesReporters = false)],
    ['calls are on their way', 2, () => pick().hold()],
    ['answers are lost', 1, () => (pick().state.dropsResponses = true)],
    ['may not write', 1, () => (pick().state.writes = false)],
    ['is held for dead', 1, () => pick().state.presumedDead.add(['a', 'b', 'c'][below(3)] ?? '')],
    ['leads', 2, () => (pick().state.leads = true)],
    ['mends', 6, () => mend(pick())],
    [
      'object deleted by hand',
      1,
      () => world.reporterApi.objects.has(NAME) && world.reporterApi.deleteManually(NAME),
    ],
    [
      'status edited by hand',
      1,
      () =>
        world.reporterApi.objects.has(NAME) && world.reporterApi.editManually(NAME, { connectedSince: null }),
    ],
  ];
  const total = acts.reduce((sum, [, weight]) => sum + weight, 0);

  function mend(replica: Replica): void {
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

  /** Of the row that lives throughout; it may go with a reporter that was lost for long, or whose object a hand deleted. */
  const wrongDeletions = (): string[] =>
    world.deletions.filter((deletion) => deletion.endsWith(' live') && !deletion.includes('expiring'));

  /** Keepalive ends them. */
  function endHalfOpen(): void {
    const nowMs = world.clock.monotonicMs();
    for (const { replica, sinceMs } of halfOpen) {
      if (nowMs - sinceMs >= KEEPALIVE_MS) replica.disconnect(RESPONDER);
    }
    halfOpen = halfOpen.filter(({ sinceMs }) => nowMs - sinceMs < KEEPALIVE_MS);
  }

  try {
    for (let steps = 0; steps < STEPS; steps += 1) {
      let left = below(total);
      const [name, , act] = acts.find(([, weight]) => (left -= weight) < 0) ?? acts[0] ?? ['', 0, () => {}];
      history.push(name);
      endHalfOpen();
      act();
      await world.advance([0, 100, 1100, 6000][below(4)] ?? 0);
    }
    expect(wrongDeletions(), 'deletions of a live row').to.deep.equal([]);

    // Everything heals, one Envoy is left, and what is half-open is found.
    for (const replica of replicas) mend(replica);
    (replicas[0] as Replica).state.leads = true;
    if (at === undefined) connect();
    for (let seconds = 0; seconds < 700; seconds += 5) {
      if (seconds === 45)
        for (const { replica } of halfOpen) if (replica !== at) replica.disconnect(RESPONDER);
      at?.report(RESPONDER, delta([]));
      await world.advance(5000);
    }
    expect(world.tunnelNames(RESPONDER), 'rows in the end').to.deep.equal([...truth.keys()].toSorted());
    expect(world.condition(RESPONDER, 'Ready')).to.equal('True Synced');
    expect(wrongDeletions(), 'deletions of a live row').to.deep.equal([]);
    world.tunnelApi.calls.length = 0;
    world.reporterApi.calls.length = 0;
    for (let times = 0; times < 24; times += 1) {
      at?.report(RESPONDER, delta([]));
      await world.advance(5000);
    }
    expect([world.tunnelApi.calls, world.reporterApi.calls], 'calls at rest').to.deep.equal([[], []]);
  } catch (error) {
    throw new Error(`seed ${seed}: ${(error as Error).message}; ${history.join(', ')}`, { cause: error });
  } finally {
    world.stop();
    await world.settle();
  }
}

describe('three replicas, and whatever happens in whatever order', () => {
  it(`a live row is never deleted, and rows become the truth and stay so (${PLAYS} plays)`, async function () {
    this.timeout(240_000);
    for (let seed = 1; seed <= PLAYS; seed += 1) await play(seed);
  });
});
