import { expect } from 'chai';

import type { ObjectsContext, PriorState, ReportChange } from '../../src/core/apply-report.ts';
import { ALLOW_ALL, type Grant } from '../../src/core/grant.ts';
import { Ledger, type LedgerLimits } from '../../src/core/ledger.ts';
import type { RemovalHoldRule } from '../../src/core/removal-hold.ts';
import type { Report } from '../../src/core/report.ts';
import { reporterKey, type Tunnel } from '../../src/core/tunnel.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);
const RULE: RemovalHoldRule = { holdMs: 30_000, thresholdPercent: 50, maxImmediate: 10 };

/** Returns tunnels whose names have the numbers from `from` to `to`, both included. */
function tunnels(from: number, to: number): Tunnel[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => tunnel(`node-${from + index}`));
}

const namesOf = (of: readonly Tunnel[]): string[] => of.map(({ name }) => name);

/** A ledger with the objects that a reporter has. */
function createFixture({
  objects,
  rule = RULE,
  limits = {},
  grant = ALLOW_ALL,
}: {
  objects: readonly Tunnel[];
  rule?: RemovalHoldRule;
  limits?: LedgerLimits;
  grant?: Grant;
}) {
  const ledger = new Ledger(limits, rule);
  const byName = new Map(objects.map((each) => [each.name, each]));
  const prior: PriorState = {
    size: byName.size,
    tunnel: (name) => byName.get(name),
    tunnels: () => byName.values(),
  };
  let nowMs = 1000;
  return {
    ledger,
    prior,
    advance: (ms: number) => void (nowMs += ms),
    apply(report: Report, context: Partial<ObjectsContext> = {}): ReportChange {
      const known = { nowMs, isListed: true, isOwned: true, isBeingWritten: () => false, ...context };
      const result = ledger.apply(RESPONDER, report, prior, grant, report.fullPush ? known : undefined);
      if ('limit' in result) throw new Error(`rejected: ${JSON.stringify(result)}`);
      return result;
    },
    release: (): string[] => ledger.releaseHeld(KEY, nowMs),
    holdUncompared: () => ledger.holdUncompared(KEY, prior, nowMs),
    state: (name: string): string => ledger.tunnelState(KEY, name, byName.get(name)).state,
    held: (): number => ledger.heldRemovals(KEY)?.size ?? 0,
  };
}

/** The ways in which a full push can be compared with the objects of its reporter. */
const WAYS: readonly {
  readonly way: string;
  readonly push: (fixture: ReturnType<typeof createFixture>, all: Tunnel[], kept: Tunnel[]) => void;
}[] = [
  {
    way: 'on the owner',
    push(fixture, all, kept) {
      fixture.apply(fullPush(...all));
      fixture.apply(fullPush(...kept));
    },
  },
  {
    way: 'as the first full push after a restart or a takeover',
    push: (fixture, _all, kept) => fixture.apply(fullPush(...kept), { isOwned: false }),
  },
  {
    way: 'on a replica that has served the reporter before, and no longer owns it',
    push(fixture, all, kept) {
      fixture.apply(fullPush(...all), { isOwned: false });
      fixture.apply(fullPush(...kept), { isOwned: false });
    },
  },
  {
    way: 'before the objects were listed',
    push(fixture, _all, kept) {
      fixture.apply(fullPush(...kept), { isListed: false, isOwned: false });
      fixture.holdUncompared();
    },
  },
  {
    way: 'after a delta that was the first report',
    push(fixture, _all, kept) {
      fixture.apply(delta([]));
      fixture.apply(fullPush(...kept));
    },
  },
];

describe('the hold of removals', () => {
  const table: readonly [
    objects: number,
    lacking: number,
    rule: Partial<RemovalHoldRule>,
    isHeld: boolean,
  ][] = [
    [100, 51, {}, true],
    [100, 50, {}, false],
    [100, 100, {}, true],
    [22, 11, {}, false],
    [21, 11, {}, true],
    [11, 11, {}, true],
    [10, 10, {}, false],
    [3, 3, {}, false],
    [1000, 11, { thresholdPercent: 0 }, true],
    [1000, 10, { thresholdPercent: 0 }, false],
    [1000, 1000, { thresholdPercent: 100 }, false],
    [1000, 1000, { thresholdPercent: 99 }, true],
    [1000, 1000, { holdMs: 0 }, false],
    [3, 2, { maxImmediate: 1 }, true],
  ];
  for (const { way, push } of WAYS) {
    for (const [objects, lacking, rule, isHeld] of table) {
      const limits = JSON.stringify(rule);
      it(`${isHeld ? 'applies' : 'does not apply'} to ${lacking} of ${objects} objects with ${limits}, ${way}`, () => {
        const all = tunnels(1, objects);
        const fixture = createFixture({ objects: all, rule: { ...RULE, ...rule } });
        push(fixture, all, all.slice(lacking));
        expect(fixture.held()).to.equal(isHeld ? lacking : 0);
        expect(fixture.ledger.heldCount).to.equal(isHeld ? lacking : 0);
        for (const { name } of all.slice(0, lacking))
          expect(fixture.state(name), name).to.equal(isHeld ? 'held' : 'absent');
        for (const { name } of all.slice(lacking)) expect(fixture.state(name), name).to.equal('present');
      });
    }
  }

  it('is reported with the number of held objects and of all objects', () => {
    const all = tunnels(1, 100);
    const fixture = createFixture({ objects: all });
    expect(fixture.apply(fullPush(...all)).hold).to.equal(undefined);
    expect(fixture.apply(fullPush(...all.slice(60))).hold).to.deep.equal({ held: 60, objects: 100 });
  });

  it('ends for each tunnel that returns, whose unchanged object stays the same in memory', () => {
    const all = tunnels(1, 100);
    const fixture = createFixture({ objects: all });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush());
    fixture.apply(delta([{ ...tunnel('node-1') }]));
    fixture.apply(fullPush(tunnel('node-1'), { ...tunnel('node-2') }));
    expect(fixture.held()).to.equal(98);
    for (const name of ['node-1', 'node-2']) {
      const state = fixture.ledger.tunnelState(KEY, name);
      expect(state.state === 'present' && state.tunnel).to.equal(fixture.prior.tunnel(name));
    }
  });

  it('ends after its time, for exactly the tunnels that have not returned', () => {
    const all = tunnels(1, 20);
    const fixture = createFixture({ objects: all });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush());
    fixture.apply(delta(tunnels(1, 8)));
    fixture.advance(29_999);
    expect(fixture.release()).to.deep.equal([]);
    fixture.advance(1);
    expect(fixture.release()).to.deep.equal(namesOf(tunnels(9, 20)));
    expect(fixture.state('node-9')).to.equal('absent');
    expect([fixture.held(), fixture.ledger.heldCount]).to.deep.equal([0, 0]);
  });

  const byName: readonly [title: string, report: Report, context: Partial<ObjectsContext>][] = [
    ['a removal by name', delta([], ['node-1']), {}],
    ['a tunnel that returned and dropped within one interval', delta([tunnel('node-1')], ['node-1']), {}],
  ];
  for (const [title, report] of byName) {
    it(`ends with ${title}`, () => {
      const all = tunnels(1, 100);
      const fixture = createFixture({ objects: all });
      fixture.apply(fullPush(...all));
      fixture.apply(fullPush());
      expect(fixture.apply(report).changed).to.deep.equal(['node-1']);
      expect(fixture.state('node-1')).to.equal('absent');
      expect(fixture.held()).to.equal(99);
    });
  }

  it('does not apply to removals by name, however many', () => {
    const all = tunnels(1, 100);
    const fixture = createFixture({ objects: all });
    fixture.apply(fullPush(...all));
    fixture.apply(delta([], namesOf(all)));
    expect(fixture.held()).to.equal(0);
  });

  it('does not apply to objects that were removed by name shortly before the full push', () => {
    const all = tunnels(1, 100);
    for (const context of [
      { isListed: true, isOwned: true },
      { isListed: false, isOwned: false },
    ]) {
      const fixture = createFixture({ objects: all });
      if (context.isListed) fixture.apply(fullPush(...all));
      fixture.apply(delta([], namesOf(tunnels(1, 60))));
      fixture.apply(fullPush(...tunnels(61, 100)), context);
      fixture.holdUncompared();
      expect(fixture.held(), JSON.stringify(context)).to.equal(0);
      expect(fixture.state('node-1')).to.equal('absent');
    }
  });

  it('does not apply to objects that were removed by name after the full push and before the list', () => {
    const all = tunnels(1, 100);
    const fixture = createFixture({ objects: all });
    fixture.apply(fullPush(...tunnels(1, 2)), { isListed: false, isOwned: false });
    fixture.apply(delta([], ['node-1', 'node-3']));
    fixture.apply(delta([tunnel('node-4')], ['node-4']));
    fixture.holdUncompared();
    expect(fixture.held()).to.equal(96);
    for (const name of ['node-1', 'node-3', 'node-4']) expect(fixture.state(name), name).to.equal('absent');
  });

  it('applies to what the latest of several full pushes before the list lacks', () => {
    const all = tunnels(1, 100);
    const fixture = createFixture({ objects: all });
    const early = { isListed: false, isOwned: false };
    fixture.apply(fullPush(...all), early);
    fixture.apply(delta([], ['node-1', 'node-2']));
    fixture.apply(fullPush(tunnel('node-1'), tunnel('node-3')), early);
    fixture.apply(fullPush(tunnel('node-3')), early);
    fixture.holdUncompared();
    expect(fixture.held()).to.equal(98);
    expect(fixture.state('node-1'), 'it had returned').to.equal('held');
    expect(fixture.state('node-2')).to.equal('absent');
  });

  it('covers an object that is being created when the full push arrives, and no other missing object', () => {
    const objects = tunnels(1, 20);
    const fixture = createFixture({ objects });
    fixture.apply(fullPush(...tunnels(1, 22)));
    fixture.apply(fullPush(), { isBeingWritten: (name) => name === 'node-21' });
    expect([fixture.state('node-21'), fixture.state('node-22')]).to.deep.equal(['held', 'absent']);
  });

  describe('at a second full push', () => {
    /** The second full push arrives 10 s after the first; each lacks the tunnels up to a number. */
    function pushTwice(first: number, second: number) {
      const all = tunnels(1, 100);
      const fixture = createFixture({ objects: all });
      fixture.apply(fullPush(...all));
      fixture.apply(fullPush(...all.slice(first)));
      fixture.advance(10_000);
      fixture.apply(fullPush(...all.slice(second)));
      return fixture;
    }

    it('is neither extended nor ended for a tunnel that is still lacking', () => {
      const fixture = pushTwice(60, 60);
      fixture.advance(19_999);
      expect(fixture.release()).to.deep.equal([]);
      fixture.advance(1);
      expect(fixture.release()).to.have.length(60);
    });

    it('lasts until its own end for a tunnel that is lacking only now', () => {
      const fixture = pushTwice(60, 90);
      fixture.advance(20_000);
      expect(fixture.release()).to.deep.equal(namesOf(tunnels(1, 60)));
      fixture.advance(10_000);
      expect(fixture.release()).to.deep.equal(namesOf(tunnels(61, 90)));
    });

    it('stays if so many have returned that the second push is below the threshold', () => {
      const fixture = pushTwice(60, 20);
      expect(fixture.held()).to.equal(20);
      fixture.advance(20_000);
      expect(fixture.release()).to.have.length(20);
    });

    it('counts what is held already', () => {
      // 20 of 100 objects are below the threshold, and 80 are not.
      expect(pushTwice(60, 80).held()).to.equal(80);
    });
  });

  it('never lets a reporter have more objects than its limit, and ends the oldest holds first', () => {
    const all = tunnels(1, 20);
    const fixture = createFixture({ objects: all, limits: { tunnelsPerReporter: 20 } });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush(...tunnels(101, 105)));
    expect(fixture.held()).to.equal(15);
    expect(fixture.state('node-5')).to.equal('absent');
    const { changed } = fixture.apply(delta(tunnels(106, 110)));
    expect(fixture.held()).to.equal(10);
    expect(changed).to.include.members(namesOf(tunnels(6, 10)));
  });

  it('never lets a reporter have more objects than its policy allows', () => {
    const all = tunnels(1, 20);
    const fixture = createFixture({ objects: all, grant: { ...ALLOW_ALL, tunnels: 20 } });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush(...tunnels(101, 120)));
    expect(fixture.held()).to.equal(0);
    expect(fixture.state('node-1')).to.equal('absent');
  });

  it('does not exceed the limit of all reporters, and never prevents a tunnel from being reported', () => {
    const all = tunnels(1, 20);
    const fixture = createFixture({ objects: all, limits: { tunnels: 30 } });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush());
    const other = { cluster: 'edge', id: 'other' };
    const noObjects = { size: 0, tunnel: () => undefined, tunnels: () => [] };
    expect(fixture.ledger.apply(other, fullPush(...tunnels(1, 30)), noObjects)).to.not.have.property('limit');
    fixture.apply(delta([], ['node-1']));
    expect(fixture.held()).to.equal(0);
  });

  it('does not protect an object that the policies do not permit', () => {
    const all = [tunnel('node-1', { tenantID: 'beta' }), ...tunnels(2, 100)];
    const grant: Grant = { ...ALLOW_ALL, permits: ({ tenantID }) => tenantID !== 'beta' };
    const fixture = createFixture({ objects: all, grant });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush());
    expect([fixture.state('node-1'), fixture.state('node-2')]).to.deep.equal(['absent', 'held']);
  });

  it('is forgotten with its reporter', () => {
    const all = tunnels(1, 100);
    const fixture = createFixture({ objects: all });
    fixture.apply(fullPush(...all));
    fixture.apply(fullPush());
    fixture.ledger.forget(KEY);
    expect([fixture.held(), fixture.ledger.heldCount, fixture.state('node-1')]).to.deep.equal([
      0,
      0,
      'unknown',
    ]);
  });

  it('processes 300,000 removed tunnels without exceeding the stack', () => {
    const all = tunnels(1, 300_000);
    const fixture = createFixture({ objects: all, limits: { tunnelsPerReporter: 300_000 } });
    fixture.apply({ fullPush: true, added: all, removedNames: [] });
    fixture.apply(fullPush());
    expect(fixture.held()).to.equal(300_000);
    fixture.advance(30_000);
    expect(fixture.release()).to.have.length(300_000);
  });
});
