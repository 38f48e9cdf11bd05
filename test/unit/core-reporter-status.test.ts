import { expect } from 'chai';

import type { ReporterStatus } from '../../src/core/reporter-object.ts';
import { statusChange, statusPatch, type StatusInputs } from '../../src/core/reporter-status.ts';

const THEN = '2026-11-23T05:00:00Z';
const NOW = '2026-11-23T05:01:00Z';

const GOOD: StatusInputs = {
  connected: 'StreamOpen',
  synced: { reason: 'UpToDate' },
  conflict: false,
  flapping: undefined,
  connectedSince: THEN,
  lastFullPush: { time: THEN, tunnels: 7 },
  tunnels: { reported: 7, applied: 7, rejected: 0 },
  reportIntervalSeconds: 5,
  envoy: { version: '1.38.0', locality: { region: 'eu', zone: 'a' } },
  disconnects: [],
};

/** Returns the status after these inputs were written. */
function written(inputs: StatusInputs): ReporterStatus {
  const patch = statusPatch(inputs, undefined, THEN);
  return Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== null));
}

function conditions(inputs: StatusInputs): string[] {
  return (written(inputs).conditions ?? []).map(({ type, status, reason }) => `${type}=${status} ${reason}`);
}

describe('reporter conditions', () => {
  const table: [string, Partial<StatusInputs>, string[]][] = [
    [
      'all objects are up to date',
      {},
      ['Connected=True StreamOpen', 'Synced=True UpToDate', 'Ready=True Synced'],
    ],
    [
      'objects are being written',
      { synced: { reason: 'SyncInProgress' } },
      ['Connected=True StreamOpen', 'Synced=False SyncInProgress', 'Ready=False NotSynced'],
    ],
    [
      'only deltas were received',
      { synced: { reason: 'AwaitingFullPush' } },
      ['Connected=True StreamOpen', 'Synced=Unknown AwaitingFullPush', 'Ready=Unknown AwaitingFullPush'],
    ],
    [
      'the API server rejects writes',
      { synced: { reason: 'WritesRejected', objects: 3, answer: '422' } },
      ['Connected=True StreamOpen', 'Synced=False WritesRejected', 'Ready=False NotSynced'],
    ],
    [
      'removals are held',
      { synced: { reason: 'RemovalsHeld', objects: 60, until: NOW } },
      ['Connected=True StreamOpen', 'Synced=False RemovalsHeld', 'Ready=False NotSynced'],
    ],
    [
      'tunnels were rejected',
      { synced: { reason: 'TunnelsRejected', tunnels: 2, first: 'name: empty' } },
      ['Connected=True StreamOpen', 'Synced=False TunnelsRejected', 'Ready=False NotSynced'],
    ],
    [
      'the stream was closed',
      { connected: 'StreamEnded' },
      ['Connected=False StreamEnded', 'Synced=Unknown NotConnected', 'Ready=False NotConnected'],
    ],
    [
      'no report arrived within the heartbeat timeout',
      { connected: 'HeartbeatTimeout' },
      ['Connected=False HeartbeatTimeout', 'Synced=Unknown NotConnected', 'Ready=False NotConnected'],
    ],
    [
      'the owner has stopped',
      { connected: 'OwnerLost' },
      ['Connected=False OwnerLost', 'Synced=Unknown NotConnected', 'Ready=False NotConnected'],
    ],
    [
      'tunnels flap',
      { flapping: { tunnels: 2, worst: ['node-1', 'node-2'] } },
      [
        'Connected=True StreamOpen',
        'Synced=True UpToDate',
        'Ready=True Synced',
        'Flapping=True TunnelsFlapping',
      ],
    ],
    [
      'another Envoy uses the ID',
      { conflict: true },
      [
        'Connected=True StreamOpen',
        'Synced=True UpToDate',
        'Ready=True Synced',
        'IdentityConflict=True DuplicateReporterID',
      ],
    ],
  ];
  for (const [situation, inputs, expected] of table) {
    it(`are correct when ${situation}`, () => {
      expect(conditions({ ...GOOD, ...inputs })).to.deep.equal(expected);
    });
  }

  it('keep their transition time while the status is unchanged, even if the reason changes', () => {
    const before = written({ ...GOOD, synced: { reason: 'SyncInProgress' } });
    const patch = statusPatch(
      { ...GOOD, synced: { reason: 'TunnelsRejected', tunnels: 1, first: '' } },
      before,
      NOW,
    );
    expect(patch.conditions?.map(({ lastTransitionTime }) => lastTransitionTime)).to.deep.equal([
      THEN,
      THEN,
      THEN,
    ]);
    const up = statusPatch(GOOD, before, NOW);
    expect(up.conditions?.map(({ lastTransitionTime }) => lastTransitionTime)).to.deep.equal([
      THEN,
      NOW,
      NOW,
    ]);
  });

  it('contain the sanitized and truncated response of the API server', () => {
    const answer = `bad \u202e\u0007 ${'x'.repeat(5000)}`;
    const patch = statusPatch(
      { ...GOOD, synced: { reason: 'WritesRejected', objects: 1, answer } },
      undefined,
      NOW,
    );
    const message = patch.conditions?.[1]?.message ?? '';
    expect(message).to.match(/^the API server rejected writes of 1 ReverseTunnel objects: bad \?\? x+…$/);
    expect(message.length).to.be.at.most(1000);
  });
});

describe('status changes', () => {
  const change = (inputs: Partial<StatusInputs>): string =>
    statusChange({ ...GOOD, ...inputs }, written(GOOD));

  it('are none for equal inputs, an identical full push or only another stream', () => {
    expect(change({})).to.equal('none');
    expect(change({ lastFullPush: { time: NOW, tunnels: 7 } })).to.equal('none');
  });

  it('are conditions if the status or reason of a condition changes', () => {
    expect(change({ connected: 'HeartbeatTimeout' })).to.equal('conditions');
    expect(change({ synced: { reason: 'SyncInProgress' } })).to.equal('conditions');
    expect(change({ conflict: true })).to.equal('conditions');
    expect(statusChange(GOOD, undefined)).to.equal('conditions');
    const foreign = { ...written(GOOD), conditions: [] };
    expect(statusChange(GOOD, foreign)).to.equal('conditions');
  });

  it('are counts if only numbers change', () => {
    expect(change({ tunnels: { reported: 8, applied: 7, rejected: 0 } })).to.equal('counts');
    expect(change({ lastFullPush: { time: NOW, tunnels: 8 } })).to.equal('counts');
    expect(change({ reportIntervalSeconds: 6 })).to.equal('counts');
  });

  it('omit fields that the owner does not know', () => {
    const takenOver: StatusInputs = {
      ...GOOD,
      connected: 'OwnerLost',
      connectedSince: undefined,
      lastFullPush: undefined,
      tunnels: undefined,
      reportIntervalSeconds: undefined,
      envoy: undefined,
    };
    expect(Object.keys(statusPatch(takenOver, written(GOOD), NOW)).toSorted()).to.deep.equal([
      'conditions',
      'connectedSince',
      'observedGeneration',
    ]);
  });

  it('set fields that are no longer reported to null', () => {
    const moved = statusPatch(
      { ...GOOD, envoy: { version: undefined, locality: { region: 'us' } } },
      written(GOOD),
      NOW,
    );
    expect(moved).to.deep.include({ envoyVersion: null, locality: { region: 'us', zone: null } });
  });
});
