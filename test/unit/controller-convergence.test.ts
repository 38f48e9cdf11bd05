import { expect } from 'chai';
import * as fc from 'fast-check';

import { manifestFor, type ObservedTunnel, type TunnelObject } from '../../src/core/tunnel-object.ts';
import { reporterKey, sameIdentity, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { apiFailure, MemoryTunnelApi, connectionFailure } from '../support/memory-tunnel-api.ts';
import { createHarness, objectTexts, type ControllerHarness } from '../support/controller-harness.ts';
import { delta, fullPush, names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const REPORTERS = [RESPONDER, OTHER_RESPONDER];
const NAMES = ['node-1', 'node-2', 'acme:node-3'];

const anyReporter = fc.constantFrom(...REPORTERS);
const anyTunnel: fc.Arbitrary<Tunnel> = fc
  .record({
    name: fc.constantFrom(...NAMES),
    nodeID: fc.constantFrom('a', 'a', 'b'),
    tenantID: fc.constantFrom('acme', 'acme', 'beta'),
    createdAt: fc.constantFrom(undefined, '2026-11-23T05:00:00Z', '2026-11-23T05:00:01Z'),
  })
  .map(({ name, ...parts }) => tunnel(name, parts));

/** Two operators one after the other, the API server, and who meddles with it. */
interface Play {
  readonly api: MemoryTunnelApi;
  world: ControllerHarness;
  /** What each reporter holds, by the naive rule. */
  readonly held: Map<string, Map<string, Tunnel>>;
  /** Rows that the operator deleted without a reason. */
  readonly wrongs: string[];
}

type Happening = (play: Play) => void | Promise<void>;

function holdings({ held }: Play, reporter: ReporterId): Map<string, Tunnel> {
  const key = reporterKey(reporter);
  const found = held.get(key) ?? new Map<string, Tunnel>();
  held.set(key, found);
  return found;
}

/** Some row, if there is any. */
function pick({ api }: Play, index: number): TunnelObject | undefined {
  return [...api.stored.values()][index % Math.max(1, api.stored.size)];
}

const aFullPush: fc.Arbitrary<Happening> = fc
  .tuple(anyReporter, fc.uniqueArray(anyTunnel, { selector: ({ name }) => name }))
  .map(([reporter, tunnels]) => (play) => {
    const held = holdings(play, reporter);
    held.clear();
    for (const each of tunnels) held.set(each.name, each);
    play.world.report(reporter, fullPush(...tunnels));
  });

/** As Envoy makes it: of each name adds and removals alternate, and the lists have lost their order. */
const aDelta: fc.Arbitrary<Happening> = fc
  .tuple(anyReporter, fc.array(anyTunnel, { maxLength: 4 }))
  .map(([reporter, happened]) => (play) => {
    const held = holdings(play, reporter);
    const added: Tunnel[] = [];
    const removed: string[] = [];
    for (const each of happened) {
      if (held.delete(each.name)) {
        removed.push(each.name);
      } else {
        held.set(each.name, each);
        added.push(each);
      }
    }
    play.world.report(reporter, delta(added, removed));
  });

const anEdit: fc.Arbitrary<Happening> = fc.tuple(fc.nat(9), fc.nat(4)).map(([index, what]) => (play) => {
  const row = pick(play, index);
  if (row === undefined) return;
  const { name } = row.metadata;
  if (what === 0) play.api.editManually(name, { labels: { 'reverse-tunnel.io/tenant': 'mine' } });
  else if (what === 1) play.api.editManually(name, { labels: { team: 'network' } });
  else if (what === 2) play.api.editManually(name, { createdAt: null });
  else if (what === 3) play.api.editManually(name, { status: { state: 'Unknown' } });
  else play.api.deleteManually(name);
});

const aRowByHand: fc.Arbitrary<Happening> = fc
  .tuple(anyReporter, anyTunnel, fc.constantFrom('mine', 'yours', undefined))
  .map(([reporter, of, name]) => ({ api }) => {
    const manifest = manifestFor(names, reporter, of);
    if (!api.stored.has(name ?? manifest.name))
      api.createManually({ ...manifest, name: name ?? manifest.name });
  });

const aFinalizer: fc.Arbitrary<Happening> = fc.nat(9).map((index) => (play) => {
  const row = pick(play, index);
  if (row !== undefined) play.api.addFinalizer(row.metadata.name);
});

const aRelease: fc.Arbitrary<Happening> = fc.nat(9).map((index) => (play) => {
  const row = pick(play, index);
  if (row !== undefined) play.api.removeFinalizer(row.metadata.name);
});

const FAILURES = [
  connectionFailure(),
  apiFailure('throttled', { retryAfterMs: 1000 }),
  apiFailure('unavailable', { status: 500 }),
  apiFailure('rejected', { status: 403 }),
  apiFailure('terminating', { status: 403 }),
];
/** The next calls fail, some after they were made. */
const aFault: fc.Arbitrary<Happening> = fc
  .tuple(fc.constantFrom(...FAILURES), fc.integer({ min: 1, max: 5 }), fc.boolean())
  .map(([failure, times, afterwards]) => (play) => {
    let left = times;
    const fail = (): void => {
      left -= 1;
      if (left >= 0) throw failure;
    };
    if (afterwards) play.api.after = fail;
    else play.api.before = fail;
  });

/** From now on calls take their time, there or back. */
const aSlowServer: fc.Arbitrary<Happening> = fc
  .tuple(fc.nat(400), fc.boolean())
  .map(([ms, back]) => (play) => {
    const wait = (): Promise<void> =>
      new Promise((resolve) => {
        play.world.clock.setTimer(ms, resolve);
      });
    if (back) play.api.after = wait;
    else play.api.before = wait;
  });

/** The watch brings some events, or everything is listed. */
const aWatch: fc.Arbitrary<Happening> = fc.nat(6).map((most) => ({ api, world }) => {
  if (most === 0) api.relist(world.cache);
  else api.deliver(world.cache, most);
});

/** Time passes; the watch brings nothing meanwhile. */
const aWhile: fc.Arbitrary<Happening> = fc.oneof(fc.nat(50), fc.nat(2000), fc.nat(60_000)).map(
  (ms) =>
    ({ world }) =>
      world.advanceUnwatched(ms),
);

/** The operator dies, with its calls on their way, and another one begins. */
const aRestart: fc.Arbitrary<Happening> = fc.constant(async (play: Play) => {
  play.world.workers.stop();
  await play.world.advanceUnwatched(1000);
  play.world = createHarness({ api: play.api, concurrency: 3 });
  await play.world.start();
});

const anyCourse = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: aFullPush },
    { weight: 6, arbitrary: aDelta },
    { weight: 4, arbitrary: anEdit },
    { weight: 2, arbitrary: aRowByHand },
    { weight: 1, arbitrary: aFinalizer },
    { weight: 1, arbitrary: aRelease },
    { weight: 3, arbitrary: aFault },
    { weight: 2, arbitrary: aSlowServer },
    { weight: 8, arbitrary: aWatch },
    { weight: 8, arbitrary: aWhile },
    { weight: 1, arbitrary: aRestart },
  ),
  { maxLength: 60, size: 'max' },
);

/** Why a row may not be deleted, by what the ledger knows when that is sent; undefined when it may. */
function wrongOf({ api, world }: Play, { name, uid, resourceVersion }: ObservedTunnel): string | undefined {
  const stored = api.stored.get(name);
  // Refused by its preconditions.
  if (stored?.metadata.uid !== uid || stored.metadata.resourceVersion !== resourceVersion) return undefined;
  const { spec } = stored;
  const known = world.ledger.tunnelState(reporterKey(spec.reporter), spec.tunnelName);
  if (known.state === 'absent') return undefined;
  const rightful =
    known.state === 'present' &&
    name === names.tunnelObjectName(spec.reporter, known.tunnel) &&
    sameIdentity(known.tunnel, { ...spec, name: spec.tunnelName, createdAt: undefined });
  return known.state === 'unknown' || rightful ? `delete ${name}, which is ${known.state}` : undefined;
}

async function playThrough(course: readonly Happening[]): Promise<Play> {
  const api = new MemoryTunnelApi();
  const play: Play = { api, world: createHarness({ api, concurrency: 3 }), held: new Map(), wrongs: [] };
  const remove = api.delete.bind(api);
  api.delete = (row) => {
    const wrong = wrongOf(play, row);
    if (wrong !== undefined) play.wrongs.push(wrong);
    return remove(row);
  };
  await play.world.start();
  for (const happens of course) await happens(play);

  // Everybody leaves it alone, and every reporter says what it holds.
  api.before = () => {};
  api.after = () => {};
  for (const reporter of REPORTERS) {
    play.world.report(reporter, fullPush(...holdings(play, reporter).values()));
  }
  for (const name of api.stored.keys()) api.removeFinalizer(name);
  await play.world.advance(1_200_000);
  return play;
}

describe('whatever happens', () => {
  it('the rows come to be what the reporters hold, and nobody writes any more', async function () {
    this.timeout(120_000);
    await fc.assert(
      fc.asyncProperty(anyCourse, async (course) => {
        const play = await playThrough(course);
        const { api, world } = play;
        expect(play.wrongs).to.deep.equal([]);

        const wanted = REPORTERS.flatMap((reporter) =>
          [...holdings(play, reporter).values()].map((of) => {
            const { name, labels, spec } = manifestFor(names, reporter, of);
            const {
              labels: found,
              uid,
              resourceVersion,
            } = api.stored.get(name)?.metadata ?? {
              labels: {},
              uid: '',
              resourceVersion: '',
            };
            const foreign = Object.entries(found ?? {}).filter(([label]) => label === 'team');
            return {
              metadata: { name, uid, resourceVersion, labels: { ...labels, ...Object.fromEntries(foreign) } },
              spec,
              status: {
                state: 'Connected',
                conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }],
              },
            };
          }),
        );
        expect(objectTexts(api.stored.values())).to.deep.equal(objectTexts(wanted));

        const { writes } = api;
        for (const reporter of REPORTERS) {
          world.report(reporter, fullPush(...structuredClone([...holdings(play, reporter).values()])));
        }
        await world.advance(600_000);
        expect(api.writes, 'writes once all is well').to.equal(writes);
        expect(world.queue.idle, 'nothing waits for a worker, and none works').to.equal(true);
        expect(world.queue.delayedCount).to.equal(0);
        expect(world.clock.pendingTimersMs, 'no timer is left').to.deep.equal([]);
      }),
      { numRuns: 300 },
    );
  });
});
