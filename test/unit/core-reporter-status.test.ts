import { expect } from 'chai';

import type { ReporterStatus } from '../../src/core/reporter-object.ts';
import { statusChange, statusPatch, type StatusInputs } from '../../src/core/reporter-status.ts';

const THEN = '2026-11-23T05:00:00Z';
const NOW = '2026-11-23T05:01:00Z';

const GOOD: StatusInputs = {
  connected: 'StreamOpen',
  synced: { reason: 'UpToDate' },
  conflict: false,
  connectedSince: THEN,
  lastFullPush: { time: THEN, tunnels: 7 },
  tunnels: { reported: 7, applied: 7, rejected: 0 },
  reportIntervalSeconds: 5,
  envoy: { version: '1.38.0', locality: { region: 'eu', zone: 'a' } },
};

/** The status that stands after these facts were written. */
function written(facts: StatusInputs): ReporterStatus {
  const patch = statusPatch(facts, undefined, THEN);
  return Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== null));
}

function conditions(facts: StatusInputs): string[] {
  return (written(facts).conditions ?? []).map(({ type, status, reason }) => `${type}=${status} ${reason}`);
}

describe("a reporter's conditions", () => {
  const table: [string, Partial<StatusInputs>, string[]][] = [
    ['served and mirrored', {}, ['Connected=True StreamOpen', 'Synced=True UpToDate', 'Ready=True Synced']],
    [
      'rows are being written',
      { synced: { reason: 'SyncInProgress' } },
      ['Connected=True StreamOpen', 'Synced=False SyncInProgress', 'Ready=False NotSynced'],
    ],
    [
      'only changes came',
      { synced: { reason: 'AwaitingFullPush' } },
      ['Connected=True StreamOpen', 'Synced=Unknown AwaitingFullPush', 'Ready=Unknown AwaitingFullPush'],
    ],
    [
      'rows are refused',
      { synced: { reason: 'WritesRejected', objects: 3, answer: '422' } },
      ['Connected=True StreamOpen', 'Synced=False WritesRejected', 'Ready=False NotSynced'],
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
      'it is silent',
      { connected: 'HeartbeatTimeout' },
      ['Connected=False HeartbeatTimeout', 'Synced=Unknown NotConnected', 'Ready=False NotConnected'],
    ],
    [
      'its owner is gone',
      { connected: 'OwnerLost' },
      ['Connected=False OwnerLost', 'Synced=Unknown NotConnected', 'Ready=False NotConnected'],
    ],
    [
      'another uses its id',
      { conflict: true },
      [
        'Connected=True StreamOpen',
        'Synced=True UpToDate',
        'Ready=True Synced',
        'IdentityConflict=True DuplicateReporterID',
      ],
    ],
  ];
  for (const [situation, facts, expected] of table) {
    it(situation, () => {
      expect(conditions({ ...GOOD, ...facts })).to.deep.equal(expected);
    });
  }

  it('keep their time while their status stays, also with another reason', () => {
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

  it("show the API server's answer without what the CRD refuses, and short", () => {
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

describe('a status is written', () => {
  const change = (facts: Partial<StatusInputs>): string => statusChange({ ...GOOD, ...facts }, written(GOOD));

  it('never for what it says already, nor for an identical full push or another stream alone', () => {
    expect(change({})).to.equal('none');
    expect(change({ lastFullPush: { time: NOW, tunnels: 7 } })).to.equal('none');
  });

  it('at once when its meaning changes', () => {
    expect(change({ connected: 'HeartbeatTimeout' })).to.equal('conditions');
    expect(change({ synced: { reason: 'SyncInProgress' } })).to.equal('conditions');
    expect(change({ conflict: true })).to.equal('conditions');
    expect(statusChange(GOOD, undefined)).to.equal('conditions');
    const foreign = { ...written(GOOD), conditions: [] };
    expect(statusChange(GOOD, foreign)).to.equal('conditions');
  });

  it('in time when only numbers change', () => {
    expect(change({ tunnels: { reported: 8, applied: 7, rejected: 0 } })).to.equal('counts');
    expect(change({ lastFullPush: { time: NOW, tunnels: 8 } })).to.equal('counts');
    expect(change({ reportIntervalSeconds: 6 })).to.equal('counts');
  });

  it('without what its owner does not know, which stays as it stands', () => {
    const heir: StatusInputs = {
      ...GOOD,
      connected: 'OwnerLost',
      connectedSince: undefined,
      lastFullPush: undefined,
      tunnels: undefined,
      reportIntervalSeconds: undefined,
      envoy: undefined,
    };
    expect(Object.keys(statusPatch(heir, written(GOOD), NOW)).toSorted()).to.deep.equal([
      'conditions',
      'connectedSince',
      'observedGeneration',
    ]);
  });

  it('with what is gone named, as a merge patch keeps the rest', () => {
    const moved = statusPatch(
      { ...GOOD, envoy: { version: undefined, locality: { region: 'us' } } },
      written(GOOD),
      NOW,
    );
    expect(moved).to.deep.include({ envoyVersion: null, locality: { region: 'us', zone: null } });
  });
});
