/** `status.recentDisconnects` of reporter objects. */
import { expect } from 'chai';
import { ANONYMOUS } from '../../src/core/peer.ts';
import type { ReporterDisconnect } from '../../src/core/reporter-object.ts';
import { PLAIN_ENVOY } from '../support/controller-harness.ts';
import { createMultiReplicaHarness, type MultiReplicaHarness } from '../support/multi-replica-harness.ts';
import { delta, fullPush, names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const NAME = names.reporterObjectName(RESPONDER);
const T1 = tunnel('node-1');

describe('the recent disconnects of a reporter', () => {
  let world: MultiReplicaHarness;
  let replica: ReturnType<MultiReplicaHarness['replica']>;

  beforeEach(async () => {
    world = createMultiReplicaHarness();
    replica = world.replica('a');
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(60_000);
    world.reporterApi.calls.length = 0;
  });
  afterEach(async () => {
    world.stop();
    await world.settle();
  });

  const recent = (): readonly ReporterDisconnect[] | undefined =>
    world.reporterApi.stored.get(NAME)?.status?.recentDisconnects;
  const summary = (): string[] | undefined =>
    recent()?.map(({ reason, durationSeconds }) => `${reason} ${durationSeconds}`);

  it('are absent before the first, and get one in the write that shows it', async () => {
    expect(recent()).to.equal(undefined);
    replica.disconnect(RESPONDER);
    await world.settle();
    expect(recent()).to.deep.equal([
      { time: '2026-11-23T00:02:00Z', reason: 'StreamEnded', durationSeconds: 60 },
    ]);
    expect(world.reporterApi.calls).to.deep.equal([`patchStatus ${NAME}`]);
  });

  it('keep the last ten, the newest first, with one write per disconnect and one per claim', async () => {
    for (let seconds = 1; seconds <= 12; seconds += 1) {
      replica.disconnect(RESPONDER);
      await world.advance(10_000);
      replica.connect(RESPONDER, fullPush(T1));
      await world.advance(1000 * seconds);
    }
    const durations = recent()?.map(({ durationSeconds }) => durationSeconds);
    expect(durations).to.deep.equal([11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
    expect(recent()?.map(({ time }) => time)).to.deep.equal(
      recent()
        ?.map(({ time }) => time)
        .toSorted()
        .toReversed(),
    );
    expect(world.reporterApi.calls.filter((call) => call === `patchStatus ${NAME}`)).to.have.length(24);
  });

  it('get one in the claim of a stream that follows before the disconnect was written', async () => {
    replica.disconnect(RESPONDER);
    replica.connect(RESPONDER, fullPush(T1));
    await world.settle();
    expect(summary()).to.deep.equal(['StreamEnded 60']);
    expect(world.reporterApi.calls).to.deep.equal([`patchStatus ${NAME}`]);
  });

  it('get one only once if the response to the write is lost', async () => {
    replica.state.dropsResponses = true;
    replica.disconnect(RESPONDER);
    await world.settle();
    replica.state.dropsResponses = false;
    await world.advance(20_000);
    replica.connect(RESPONDER, fullPush(T1));
    await world.advance(5000);
    expect(summary()).to.deep.equal(['StreamEnded 60']);
  });

  it('contain the reason of the condition', async () => {
    replica.intake.reporterDisconnected(RESPONDER, 'HeartbeatTimeout');
    await world.settle();
    expect(summary()).to.deep.equal(['HeartbeatTimeout 60']);
    expect(world.condition(RESPONDER, 'Connected')).to.equal('False HeartbeatTimeout');
  });

  it('get OwnerLost if the owner dies, whether the leader or a stream claims the reporter', async () => {
    const other = world.replica('b');
    other.state.leads = true;
    replica.crash();
    await world.advance(30_000);
    expect(summary()?.[0]).to.match(/^OwnerLost \d+$/);
    other.connect(RESPONDER, fullPush(T1));
    await world.advance(30_000);
    expect(summary()).to.have.length(1);
    const third = world.replica('c');
    other.crash();
    third.connect(RESPONDER, fullPush(T1));
    await world.advance(2000);
    expect(summary()).to.have.length(2);
    expect(summary()?.[0]).to.equal('OwnerLost 30');
  });

  const none: readonly (readonly [string, () => Promise<void>])[] = [
    [
      'the shutdown of its replica',
      async () => {
        replica.intake.reporterDisconnected(RESPONDER, 'shutdown');
        await world.advance(1000);
      },
    ],
    [
      'the reconnect to another replica while its own is replaced in a rollout',
      async () => {
        const other = world.replica('b');
        replica.shutDown();
        await world.advance(5000);
        other.connect(RESPONDER, fullPush(T1));
        await world.advance(20_000);
        expect(world.owner(RESPONDER)).to.equal('b');
      },
    ],
    [
      'a new stream that replaces the previous one',
      async () => {
        replica.intake.reporterConnected(RESPONDER, PLAIN_ENVOY, ANONYMOUS, true);
        replica.report(RESPONDER, fullPush(T1));
        await world.advance(1000);
      },
    ],
    [
      'a stream on another replica, and the end of the superseded one',
      async () => {
        const other = world.replica('b');
        other.connect(RESPONDER, fullPush(T1));
        await world.settle();
        replica.disconnect(RESPONDER);
        await world.advance(5000);
        other.report(RESPONDER, delta([]));
        await world.advance(5000);
        expect(world.owner(RESPONDER)).to.equal('b');
      },
    ],
    [
      'the end of a stream that never reported',
      async () => {
        replica.disconnect(RESPONDER);
        await world.settle();
        expect(summary()).to.deep.equal(['StreamEnded 60']);
        world.reporterApi.editManually(NAME, { recentDisconnects: null });
        replica.intake.reporterConnected(RESPONDER, PLAIN_ENVOY, ANONYMOUS);
        replica.disconnect(RESPONDER);
        await world.advance(5000);
      },
    ],
  ];
  for (const [what, act] of none) {
    it(`do not contain ${what}`, async () => {
      await act();
      expect(recent()).to.equal(undefined);
    });
  }
});
