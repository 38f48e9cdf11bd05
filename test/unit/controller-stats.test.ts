import { expect } from 'chai';
import { PendingWrites } from '../../src/controller/pending-writes.ts';
import { createReporterEntry, type ReporterEntry } from '../../src/controller/reporter-entry.ts';
import { collectReporterStats } from '../../src/controller/controller-stats.ts';
import type { Ownership } from '../../src/core/ownership.ts';

const NOW_MS = 100_000;
const ROWS: Readonly<Record<string, number>> = { disconnected: 3, connected: 5 };

function entry(key: string, owns: boolean, facts: Partial<ReporterEntry> = {}): ReporterEntry {
  const ownership = { owns, hasConfirmedClaim: owns } as unknown as Ownership;
  return { ...createReporterEntry(key, { cluster: 'edge', id: key }, key, ownership), ...facts };
}

function stream(rejected = 0): NonNullable<ReporterEntry['stream']> {
  const envoy = {} as NonNullable<ReporterEntry['stream']>['envoy'];
  return {
    envoy,
    connectedSince: undefined,
    connectedMs: undefined,
    lastFullPush: undefined,
    rejected,
    firstRejection: '',
  };
}

function pendingWrites({
  rejected = [],
  backlogSinceMs,
}: {
  rejected?: string[];
  backlogSinceMs?: number;
}): PendingWrites {
  const pending = new PendingWrites();
  for (const name of rejected) pending.reject(name, '422', rejected.length);
  if (backlogSinceMs !== undefined) pending.updateBacklog(rejected.length + 1, backlogSinceMs);
  return pending;
}

function skipped(isChange: boolean): PendingWrites {
  const pending = new PendingWrites();
  pending.skip(NOW_MS - 120_000, isChange);
  return pending;
}

const figures = (
  entries: readonly ReporterEntry[],
  pending: Readonly<Record<string, number>> = {},
  outside: Readonly<Record<string, number>> = {},
  nowMs = NOW_MS,
) =>
  collectReporterStats(
    entries,
    {
      mirrored: { hasObjects: (key) => (ROWS[key] ?? 0) > 0 },
      queue: { pending: (key) => pending[key] ?? 0 },
      ledger: { deniedCount: (key) => outside[key] ?? 0 },
    },
    nowMs,
  );

describe('statistics of the reporters of a replica', () => {
  it('count each reporter in one state: with a stream, without one, with remaining objects, without objects', () => {
    const { byState, owned } = figures([
      entry('connected', true, { stream: stream() }),
      entry('superseded', false, { stream: stream() }),
      entry('disconnected', true),
      entry('gone', true),
      entry('of another replica', false),
    ]);
    expect(byState).to.deep.equal({ connected: 1, pending: 1, disconnected: 1, idle: 1 });
    expect(owned).to.equal(3);
  });

  it('count a reporter in conflict from the fourth flap within a minute until 10 minutes after the last one', () => {
    const flapping = entry('flapping', true, { stream: stream() });
    const reconnected = entry('reconnected', true, { stream: stream() });
    const inConflictAt = (nowMs: number): number =>
      figures([flapping, reconnected], {}, {}, nowMs).inConflict;
    for (let i = 0; i < 3; i += 1)
      for (const { streamFlaps } of [flapping, reconnected]) streamFlaps.record(NOW_MS + i);
    expect(inConflictAt(NOW_MS + 3)).to.equal(0);
    flapping.streamFlaps.record(NOW_MS + 3);
    expect(inConflictAt(NOW_MS + 3)).to.equal(1);
    // The conflict outlasts the delay before a repeated claim, during which no flap is visible.
    flapping.streamFlaps.record(NOW_MS + 300_000);
    expect(inConflictAt(NOW_MS + 899_999)).to.equal(1);
    expect(inConflictAt(NOW_MS + 900_000)).to.equal(0);
  });

  it('count currently rejected tunnels by reason', () => {
    const entries = [
      entry('a', true, { stream: stream(2), pendingWrites: pendingWrites({ rejected: ['x'] }) }),
      entry('b', true, { stream: stream(1) }),
      entry('c', true, { pendingWrites: pendingWrites({ rejected: ['y', 'z'] }) }),
    ];
    const { rejected } = figures(entries, {}, { b: 4, c: 1 });
    expect(rejected).to.deep.equal({ invalid: 3, rejected: 3, policy: 5 });
  });

  it('report the age of the oldest pending write', () => {
    const waiting = [
      entry('a', true, { stream: stream(), pendingWrites: pendingWrites({ backlogSinceMs: NOW_MS - 5000 }) }),
      entry('b', true, { stream: stream(), pendingWrites: pendingWrites({ backlogSinceMs: NOW_MS - 9000 }) }),
      entry('done since', true, {
        stream: stream(),
        pendingWrites: pendingWrites({ backlogSinceMs: NOW_MS - 60_000 }),
      }),
    ];
    expect(figures(waiting, { a: 1, b: 4 }).backlogMs).to.equal(9000);
    expect(figures(waiting).backlogMs).to.equal(0);
    expect(figures([]).backlogMs).to.equal(0);
  });

  it('count changes that are skipped while this replica cannot write, as during an outage', () => {
    const pending = { pendingWrites: skipped(true) };
    expect(figures([entry('owned', true, { stream: stream(), ...pending })]).backlogMs).to.equal(120_000);
    expect(figures([entry('disconnected', true, pending)]).backlogMs).to.equal(120_000);
    expect(figures([entry('not claimed yet', false, { stream: stream(), ...pending })]).backlogMs).to.equal(
      120_000,
    );
  });

  it('do not count skipped reports without a change, or those of a reporter that another replica owns', () => {
    expect(
      figures([entry('a', true, { stream: stream(), pendingWrites: skipped(false) })]).backlogMs,
    ).to.equal(0);
    const superseded = { owns: false, hasConfirmedClaim: false, isSuperseded: true } as unknown as Ownership;
    const other = entry('b', false, {
      stream: stream(),
      pendingWrites: skipped(true),
      ownership: superseded,
    });
    expect(figures([other]).backlogMs).to.equal(0);
    expect(figures([entry('gone', false, { pendingWrites: skipped(true) })]).backlogMs).to.equal(0);
  });

  it('do not count a rejected object as a pending write', () => {
    const waitingSinceMs = NOW_MS - 3_600_000;
    const refusing = entry('a', true, {
      stream: stream(),
      pendingWrites: pendingWrites({ rejected: ['x', 'y'], backlogSinceMs: waitingSinceMs }),
    });
    expect(figures([refusing], { a: 2 }).backlogMs).to.equal(0);
    expect(figures([refusing], { a: 3 }).backlogMs).to.equal(3_600_000);
  });

  it('are not changed by a scrape', () => {
    const seen = [
      entry('waits', true, {
        stream: stream(),
        pendingWrites: pendingWrites({ backlogSinceMs: NOW_MS - 5000 }),
      }),
      entry('rejected', true, {
        pendingWrites: pendingWrites({ rejected: ['x'], backlogSinceMs: NOW_MS - 9000 }),
      }),
      entry('done', true, {
        stream: stream(),
        pendingWrites: pendingWrites({ backlogSinceMs: NOW_MS - 60_000 }),
      }),
    ].map((one) => Object.freeze(one));
    const first = figures(seen, { waits: 1, refused: 1 });
    expect(figures(seen, { waits: 1, refused: 1 })).to.deep.equal(first);
    expect(first.backlogMs).to.equal(5000);
  });
});
