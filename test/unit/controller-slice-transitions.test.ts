import { expect } from 'chai';
import type { MirroredTunnels } from '../../src/controller/mirrored-tunnels.ts';
import { SliceTransitionRecorder } from '../../src/controller/slice-transitions.ts';
import type { RecordedTransition, TransitionRecorder } from '../../src/controller/transition-recorder.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { connectionFailure } from '../support/memory-api.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';
import {
  BATCH_MS,
  representAllAs,
  startWithSlices,
  storedSlices,
  tunnelRange,
  type SliceWorld,
} from '../support/slice-world.ts';

const LATER = '2026-11-23T06:00:00Z';

/** Starts a replica with a tunnel log, and two tunnels in a slice. */
async function startWithLog(): Promise<SliceWorld & { readonly takeLog: () => string[] }> {
  const recorded: RecordedTransition[] = [];
  const transitionSink = { write: (transition: RecordedTransition) => void recorded.push(transition) };
  const world = await startWithSlices({ transitionSink });
  const takeLog = (): string[] =>
    recorded
      .splice(0)
      .map(({ tunnel: { name }, reason, state }) => `${name} ${state} ${reason}`)
      .toSorted();
  world.report(RESPONDER, fullPush(...tunnelRange(1, 2)));
  await world.advance(BATCH_MS);
  return { ...world, takeLog };
}

describe('the tunnel log of tunnels in slices', () => {
  const changes: [title: string, change: (world: SliceWorld) => void | Promise<void>, log: string[]][] = [
    [
      'a new tunnel',
      (world) => world.report(RESPONDER, delta([tunnel('node-3')])),
      ['node-3 Connected Connected'],
    ],
    [
      'a removed tunnel',
      (world) => world.report(RESPONDER, delta([], ['node-1'])),
      ['node-1 Closed Removed'],
    ],
    [
      'a tunnel that a full push lacks',
      (world) => world.report(RESPONDER, fullPush(tunnel('node-1'))),
      ['node-2 Closed AbsentFromFullPush'],
    ],
    [
      'a tunnel that was established again',
      (world) => world.report(RESPONDER, delta([tunnel('node-1', { createdAt: LATER })])),
      ['node-1 Connected Replaced'],
    ],
    [
      'a tunnel with another identity',
      (world) => world.report(RESPONDER, delta([tunnel('node-1', { nodeID: 'other' })])),
      ['node-1 Closed Replaced', 'node-1 Connected Replaced'],
    ],
    [
      'a deleted slice',
      (world) => world.sliceApi.deleteManually(storedSlices(world)[0]?.metadata.name ?? ''),
      ['node-1 Connected Recovered', 'node-2 Connected Recovered'],
    ],
    [
      'a new tunnel whose response is lost',
      (world) => {
        let lost = false;
        world.sliceApi.after = () => {
          if (lost) return;
          lost = true;
          throw connectionFailure();
        };
        world.report(RESPONDER, delta([tunnel('node-3')]));
      },
      ['node-3 Connected Connected'],
    ],
    ['the same full push', (world) => world.report(RESPONDER, fullPush(...tunnelRange(1, 2))), []],
    [
      'a change of the representation, and back',
      async (world) => {
        world.authorizer.onPoliciesChanged(representAllAs('objects'));
        await world.advance(5000);
        expect(world.api.stored.size).to.equal(2);
        world.authorizer.onPoliciesChanged(representAllAs('slices'));
      },
      [],
    ],
  ];
  for (const [title, change, log] of changes) {
    it(`contains what happened, and nothing else: ${title}`, async () => {
      const world = await startWithLog();
      expect(world.takeLog()).to.deep.equal(['node-1 Connected Connected', 'node-2 Connected Connected']);
      await change(world);
      await world.advance(5000);
      expect(world.takeLog()).to.deep.equal(log);
    });
  }
});

describe('the transitions of a slice whose response was lost', () => {
  const key = reporterKey(RESPONDER);
  const create = { type: 'create', tunnels: [tunnel('node-1')] } as const;

  function createRecorder(): { readonly recorder: SliceTransitionRecorder; readonly settled: string[] } {
    const settled: string[] = [];
    const transitions = {
      plan: () => undefined,
      outcomeUnknown() {},
      settled: (_key: string, name: string) => void settled.push(name),
    } as unknown as TransitionRecorder;
    const mirrored = { forms: () => [] } as unknown as MirroredTunnels;
    return { recorder: new SliceTransitionRecorder(transitions, mirrored), settled };
  }

  it('are settled once the slice is compared again', () => {
    const { recorder, settled } = createRecorder();
    recorder.plan(key, 'slice', create).outcomeUnknown();
    recorder.settled(key, 'slice', []);
    recorder.settled(key, 'slice', []);
    expect(settled).to.deep.equal(['node-1']);
  });

  it('are forgotten with the reporter', () => {
    const { recorder, settled } = createRecorder();
    recorder.plan(key, 'slice', create).outcomeUnknown();
    recorder.onReporterRemoved(key);
    recorder.settled(key, 'slice', []);
    expect(settled).to.be.empty;
  });
});
