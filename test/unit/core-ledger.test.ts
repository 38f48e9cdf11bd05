import { expect } from 'chai';
import * as fc from 'fast-check';

import { DENY_ALL } from '../../src/core/grant.ts';
import type { LimitExceeded, PriorState, ReportChange } from '../../src/core/apply-report.ts';
import { Ledger, type TunnelState } from '../../src/core/ledger.ts';
import type { Report } from '../../src/core/report.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { delta, fullPush, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);

function rowsFrom(...tunnels: Tunnel[]): PriorState {
  const byName = new Map(tunnels.map((each) => [each.name, each]));
  return { tunnel: (name) => byName.get(name), tunnels: () => byName.values() };
}

/** Applies a report that must be accepted. */
function apply(ledger: Ledger, ...args: Parameters<Ledger['apply']>): ReportChange {
  const result = ledger.apply(...args);
  if ('limit' in result) throw new Error(`rejected: ${JSON.stringify(result)}`);
  return result;
}

const NO_ROWS = rowsFrom();

function copy(of: Tunnel): Tunnel {
  return { ...of };
}

/** What is known, as text: a name's tunnel, `absent` or `unknown`. */
function said(known: TunnelState): string {
  return known.state === 'present' ? JSON.stringify(known.tunnel) : known.state;
}

/**
 * What the protocol page says, in the plainest words: of each name it keeps what the tunnels may be, and the only rule
 * for a delta is present_after = clamp(present_before + adds - removals, 0, 1).
 */
class NaiveReporter {
  readonly #may = new Map<string, { present: (0 | 1)[]; tunnel: Tunnel | undefined }>();
  #complete = false;

  constructor(rows: readonly Tunnel[]) {
    for (const row of rows) this.#may.set(row.name, { present: [1], tunnel: row });
  }

  fold({ fullPush, added, removedNames }: Report): void {
    if (fullPush) {
      this.#complete = true;
      this.#may.clear();
      for (const each of added) this.#may.set(each.name, { present: [1], tunnel: each });
      return;
    }
    for (const name of new Set([...added.map((each) => each.name), ...removedNames])) {
      const adds = added.filter((each) => each.name === name);
      const removals = removedNames.filter((each) => each === name);
      const before = this.#at(name);
      const present = before.present.map((was) => clamp(was + adds.length - removals.length));
      this.#may.set(name, { present, tunnel: adds.at(-1) ?? before.tunnel });
    }
  }

  known(name: string): string {
    const { present, tunnel: of } = this.#at(name);
    if (present.every((is) => is === 0)) return 'absent';
    return present.every((is) => is === 1) ? JSON.stringify(of) : 'unknown';
  }

  #at(name: string): { present: (0 | 1)[]; tunnel: Tunnel | undefined } {
    return this.#may.get(name) ?? { present: this.#complete ? [0] : [0, 1], tunnel: undefined };
  }
}

function clamp(count: number): 0 | 1 {
  return count >= 1 ? 1 : 0;
}

const NAMES = ['node-1', 'node-2', 'acme:node-3', '__proto__', 'constructor'];
const anyTunnel: fc.Arbitrary<Tunnel> = fc
  .record({
    name: fc.constantFrom(...NAMES),
    nodeID: fc.constantFrom('a', 'b'),
    tenantID: fc.constantFrom('acme', 'beta'),
    createdAt: fc.constantFrom(undefined, '2026-11-23T05:00:00Z', '2026-11-23T05:00:01Z'),
  })
  .map(({ name, ...parts }) => tunnel(name, parts));
const anyReport: fc.Arbitrary<Report> = fc.record({
  fullPush: fc.oneof(
    { weight: 3, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
  added: fc.array(anyTunnel, { maxLength: 6 }),
  removedNames: fc.array(fc.constantFrom(...NAMES), { maxLength: 6 }),
});
const anyRows = fc.uniqueArray(anyTunnel, { selector: (of) => of.name, maxLength: 3 });
const anyHistory = fc.array(
  fc.record({
    reporter: fc.constantFrom(RESPONDER, OTHER_RESPONDER, { cluster: '', id: 'responder-0' }),
    report: anyReport,
  }),
  { maxLength: 12, size: 'max' },
);

describe('the ledger', () => {
  it('knows what the protocol page says, for any reports of any reporters over any rows from before', () => {
    fc.assert(
      fc.property(anyRows, anyHistory, (rows, history) => {
        const ledger = new Ledger();
        const naive = new Map<string, NaiveReporter>();
        for (const { reporter, report } of history) {
          const key = reporterKey(reporter);
          if (!naive.has(key)) naive.set(key, new NaiveReporter(report.fullPush ? [] : rows));
          naive.get(key)?.fold(report);
          apply(ledger, reporter, report, rowsFrom(...rows));
          for (const [each, model] of naive) {
            for (const name of NAMES)
              expect(said(ledger.tunnelState(each, name)), name).to.equal(model.known(name));
          }
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('says that exactly those names changed of which it now knows something else', () => {
    fc.assert(
      fc.property(anyRows, anyHistory, (rows, history) => {
        const ledger = new Ledger();
        const complete = new Set<string>();
        for (const { reporter, report } of history) {
          const key = reporterKey(reporter);
          const seeded = ledger.reporter(key) === undefined && !report.fullPush ? rows : [];
          const before = NAMES.map((name) => {
            const row = seeded.find((each) => each.name === name);
            return row === undefined
              ? said(ledger.tunnelState(key, name))
              : said({ state: 'present', tunnel: row });
          });
          const { changed, becameComplete } = apply(ledger, reporter, report, rowsFrom(...rows));
          const differing = NAMES.filter((name, index) => {
            const after = said(ledger.tunnelState(key, name));
            // What a full push leaves out was never held: a row of it is collected on account of `nowComplete`.
            return (
              after !== before[index] &&
              !(before[index] === 'unknown' && after === 'absent' && becameComplete)
            );
          });
          expect(new Set(changed).size, 'each once').to.equal(changed.length);
          expect([...changed].toSorted()).to.deep.equal(differing.toSorted());
          expect(becameComplete).to.equal(report.fullPush && !complete.has(key));
          if (report.fullPush) complete.add(key);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('finds nothing new in a full push, or in additions, that come a second time', () => {
    fc.assert(
      fc.property(anyHistory, anyReport, (history, report) => {
        const ledger = new Ledger();
        for (const { report: each } of history) apply(ledger, RESPONDER, each, NO_ROWS);
        const again = report.fullPush ? report : { ...report, removedNames: [] };
        apply(ledger, RESPONDER, again, NO_ROWS);
        const held = ledger.totalTunnelCount();
        expect(apply(ledger, RESPONDER, again, NO_ROWS).changed).to.deep.equal([]);
        expect(ledger.totalTunnelCount()).to.equal(held);
      }),
    );
  });
});

describe('a full push', () => {
  it('again, in other objects, changes nothing and is not kept: the first objects stay', () => {
    const ledger = new Ledger();
    const first = [tunnel('node-1'), tunnel('node-2', { createdAt: undefined })];
    apply(ledger, RESPONDER, fullPush(...first), NO_ROWS);
    const again = apply(ledger, RESPONDER, fullPush(...first.map(copy)), NO_ROWS);
    expect(again).to.deep.equal({ changed: [], becameComplete: false });
    for (const each of first) {
      const known = ledger.tunnelState(KEY, each.name);
      expect(known.state === 'present' && known.tunnel === each, each.name).to.equal(true);
    }
  });

  it('shares the memory of rows that say the same', () => {
    const ledger = new Ledger();
    const row = tunnel('node-1');
    apply(ledger, RESPONDER, fullPush(copy(row)), rowsFrom(row));
    const known = ledger.tunnelState(KEY, 'node-1');
    expect(known.state === 'present' && known.tunnel === row).to.equal(true);
  });

  it('that comes first says that rows from before may be collected; a later one does not', () => {
    const ledger = new Ledger();
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'unknown' });
    expect(apply(ledger, RESPONDER, delta([], ['node-2']), NO_ROWS).becameComplete).to.equal(false);
    expect(apply(ledger, RESPONDER, fullPush(), NO_ROWS).becameComplete).to.equal(true);
    expect(apply(ledger, RESPONDER, fullPush(), NO_ROWS).becameComplete).to.equal(false);
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'absent' });
  });

  it('takes away what it does not list, of its own reporter only', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_ROWS);
    apply(ledger, OTHER_RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_ROWS);
    expect(apply(ledger, RESPONDER, fullPush(tunnel('node-2')), NO_ROWS).changed).to.deep.equal(['node-1']);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('absent');
    expect(ledger.tunnelState(reporterKey(OTHER_RESPONDER), 'node-1').state).to.equal('present');
    expect(ledger.totalTunnelCount()).to.equal(3);
  });

  it('holds what it lists, also where its removed names say otherwise', () => {
    const ledger = new Ledger();
    const report: Report = { fullPush: true, added: [tunnel('node-1')], removedNames: ['node-1', 'node-2'] };
    apply(ledger, RESPONDER, report, NO_ROWS);
    apply(ledger, RESPONDER, report, NO_ROWS);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
    expect(ledger.tunnelState(KEY, 'node-2').state).to.equal('absent');
  });

  it('with a name twice holds the last one', () => {
    const ledger = new Ledger();
    const [older, newer] = [tunnel('node-1', { nodeID: 'a' }), tunnel('node-1', { nodeID: 'b' })];
    for (let time = 0; time < 2; time += 1) {
      apply(ledger, RESPONDER, fullPush(older, newer), NO_ROWS);
      expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'present', tunnel: newer });
      expect(ledger.totalTunnelCount()).to.equal(1);
    }
  });
});

function holding(...tunnels: Tunnel[]): Ledger {
  const ledger = new Ledger();
  apply(ledger, RESPONDER, fullPush(...tunnels), NO_ROWS);
  return ledger;
}

describe('a delta', () => {
  const before = tunnel('node-1', { createdAt: '2026-11-23T05:00:00Z' });
  const after = tunnel('node-1', { createdAt: '2026-11-23T05:01:00Z' });

  const situations: [
    situation: string,
    had: Tunnel[],
    report: Report,
    then: TunnelState,
    changed: boolean,
  ][] = [
    ['adds', [], delta([after]), { state: 'present', tunnel: after }, true],
    ['removes', [before], delta([], ['node-1']), { state: 'absent' }, true],
    [
      'of a tunnel that dropped and came back',
      [before],
      delta([after], ['node-1']),
      { state: 'present', tunnel: after },
      true,
    ],
    ['of one that came and went', [], delta([after], ['node-1']), { state: 'absent' }, false],
    [
      'of one that came, went and came',
      [],
      delta([before, after], ['node-1']),
      { state: 'present', tunnel: after },
      true,
    ],
    [
      'of one that went, came and went',
      [before],
      delta([after], ['node-1', 'node-1']),
      { state: 'absent' },
      true,
    ],
    ['removes what is not held', [], delta([], ['node-1']), { state: 'absent' }, false],
    ['adds what is held', [before], delta([{ ...before }]), { state: 'present', tunnel: before }, false],
    [
      'adds twice, removes once',
      [before],
      delta([before, after], ['node-1']),
      { state: 'present', tunnel: after },
      true,
    ],
    ['with another createdAt', [before], delta([after]), { state: 'present', tunnel: after }, true],
    [
      'without createdAt',
      [before],
      delta([tunnel('node-1', { createdAt: undefined })]),
      { state: 'present', tunnel: tunnel('node-1', { createdAt: undefined }) },
      true,
    ],
    [
      'with another tenant',
      [before],
      delta([{ ...before, tenantID: 'beta' }]),
      { state: 'present', tunnel: { ...before, tenantID: 'beta' } },
      true,
    ],
  ];
  for (const [situation, had, report, then, changed] of situations) {
    it(`${situation}: ${then.state}, ${changed ? 'changed' : 'unchanged'}`, () => {
      const ledger = holding(...had);
      expect(apply(ledger, RESPONDER, report, NO_ROWS).changed).to.deep.equal(changed ? ['node-1'] : []);
      expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal(then);
    });
  }

  it('that says nothing changes nothing', () => {
    const ledger = holding(before);
    expect(apply(ledger, RESPONDER, delta([]), NO_ROWS)).to.deep.equal({
      changed: [],
      becameComplete: false,
    });
  });
});

describe('a delta first, after a restart', () => {
  const row = tunnel('node-1');

  it('counts from the rows there are', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, delta([copy(row)], ['node-1']), rowsFrom(row));
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'present', tunnel: row });
    expect(apply(ledger, RESPONDER, delta([], ['node-1']), NO_ROWS).changed).to.deep.equal(['node-1']);
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'absent' });
  });

  it('lets the rows stand that it does not speak of', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, delta([tunnel('node-2')]), rowsFrom(row));
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
    expect(ledger.tunnelState(KEY, 'node-3').state).to.equal('unknown');
  });

  it('knows that what it removes is gone, also where no row is known yet', () => {
    const ledger = new Ledger();
    expect(apply(ledger, RESPONDER, delta([], ['node-1']), NO_ROWS).changed).to.deep.equal(['node-1']);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('absent');
    apply(ledger, RESPONDER, delta([row]), NO_ROWS);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
  });

  it('cannot tell of a name in both lists whether it dropped and came back, or came and went: its row stays', () => {
    const ledger = new Ledger();
    expect(apply(ledger, RESPONDER, delta([row], ['node-1']), NO_ROWS).changed).to.deep.equal([]);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('unknown');
  });

  it('is about one reporter: the same id in another cluster is another', () => {
    const ledger = new Ledger();
    const elsewhere: ReporterId = { cluster: 'core', id: RESPONDER.id };
    apply(ledger, elsewhere, fullPush(tunnel('node-1')), NO_ROWS);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('unknown');
    expect(ledger.reporter(reporterKey(elsewhere))).to.deep.equal(elsewhere);
    expect(ledger.reporter(KEY)).to.equal(undefined);
  });
});

describe('what the ledger remembers', () => {
  it('is what is held, however many reports came', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, fullPush(tunnel('node-0')), NO_ROWS);
    for (let index = 0; index < 1000; index += 1) {
      apply(ledger, RESPONDER, delta([tunnel(`passing-${index}`)]), NO_ROWS);
      apply(ledger, RESPONDER, delta([], [`passing-${index}`, `never-${index}`]), NO_ROWS);
    }
    expect(ledger.totalTunnelCount()).to.equal(1);
    expect(ledger.totalTunnelCount()).to.equal(1);
  });

  it('is of names removed before the first full push no more than the limit, the latest', () => {
    const ledger = new Ledger({ tunnelsPerReporter: 2 });
    apply(ledger, RESPONDER, delta([], ['node-1', 'node-2']), NO_ROWS);
    apply(ledger, RESPONDER, delta([], ['node-3']), NO_ROWS);
    const known = ['node-1', 'node-2', 'node-3'].map((name) => ledger.tunnelState(KEY, name).state);
    expect(known).to.deep.equal(['unknown', 'absent', 'absent']);
  });

  it('is nothing of a reporter that never reported', () => {
    expect(new Ledger().totalTunnelCount()).to.equal(0);
  });
});

describe('a reporter at the limit of tunnels', () => {
  const full = (): Ledger => {
    const ledger = new Ledger({ tunnelsPerReporter: 2 });
    apply(ledger, RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_ROWS);
    return ledger;
  };

  for (const { title, report } of [
    { title: 'flaps', report: delta([tunnel('node-1')], ['node-1']) },
    { title: 'gives one for another', report: delta([tunnel('node-3')], ['node-1']) },
    { title: 'sees one come and go', report: delta([tunnel('node-3')], ['node-3']) },
    {
      title: 'pushes one name twice',
      report: fullPush(tunnel('node-1'), tunnel('node-2'), tunnel('node-2')),
    },
  ]) {
    it(`${title}: is not over it`, () => {
      const ledger = full();
      apply(ledger, RESPONDER, report, NO_ROWS);
      expect(ledger.totalTunnelCount()).to.equal(2);
    });
  }

  it('adds one: nothing of that report is taken', () => {
    const ledger = full();
    const report = delta([tunnel('node-3'), tunnel('node-4')], ['node-1']);
    expect(ledger.apply(RESPONDER, report, NO_ROWS)).to.deep.equal({
      limit: 'tunnelsPerReporter',
      count: 3,
      max: 2,
    });
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
    expect(ledger.tunnelState(KEY, 'node-3').state).to.equal('absent');
  });
});

describe('reporters that together are at the limit', () => {
  const tunnels = (count: number): Tunnel[] => Array.from({ length: count }, (_, i) => tunnel(`node-${i}`));
  const OTHER_KEY = reporterKey(OTHER_RESPONDER);
  let ledger: Ledger;
  beforeEach(() => {
    ledger = new Ledger({ tunnelsPerReporter: 100, tunnels: 5 });
    apply(ledger, RESPONDER, fullPush(...tunnels(3)), NO_ROWS);
    apply(ledger, OTHER_RESPONDER, fullPush(...tunnels(2)), NO_ROWS);
  });

  const TOO_MANY: LimitExceeded = { limit: 'tunnels', count: 6, max: 5 };
  for (const [title, report] of [
    ['by a full push', fullPush(...tunnels(4))],
    ['by a delta', delta([tunnel('node-3')])],
  ] as const) {
    it(`one more, ${title}, is not taken, and nothing has changed`, () => {
      expect(ledger.apply(RESPONDER, report, NO_ROWS)).to.deep.equal(TOO_MANY);
      expect([ledger.tunnelCount(KEY), ledger.tunnelCount(OTHER_KEY)]).to.deep.equal([3, 2]);
    });
  }

  it('one for another, fewer, and the same again are', () => {
    apply(ledger, RESPONDER, delta([tunnel('node-3')], ['node-0']), NO_ROWS);
    apply(ledger, RESPONDER, fullPush(...tunnels(3)), NO_ROWS);
    apply(ledger, RESPONDER, fullPush(...tunnels(1)), NO_ROWS);
    apply(ledger, OTHER_RESPONDER, fullPush(...tunnels(4)), NO_ROWS);
    expect(ledger.totalTunnelCount()).to.equal(5);
  });

  it('there is room again when one is forgotten, removes tunnels, or loses what it may not report', () => {
    const add = (...names: string[]): LimitExceeded | ReportChange =>
      ledger.apply(RESPONDER, delta(names.map((name) => tunnel(name))), NO_ROWS);
    apply(ledger, OTHER_RESPONDER, delta([], ['node-0']), NO_ROWS);
    expect(add('removed')).not.to.have.property('limit');
    ledger.forget(OTHER_KEY);
    expect(add('forgotten')).not.to.have.property('limit');
    expect(add('one too many')).to.deep.equal(TOO_MANY);
    ledger.setGrant(KEY, DENY_ALL);
    ledger.dropDenied(KEY);
    expect(add('1', '2', '3', '4', '5')).not.to.have.property('limit');
    expect(add('6')).to.deep.equal(TOO_MANY);
  });

  it('names that are removed before anybody said what it holds take what room there is', () => {
    const third = { cluster: 'edge', id: 'third' };
    ledger.forget(OTHER_KEY);
    apply(ledger, third, delta([], ['a', 'b', 'c']), NO_ROWS);
    const known = ['a', 'b', 'c'].map((name) => ledger.tunnelState(reporterKey(third), name).state);
    expect(known).to.deep.equal(['unknown', 'absent', 'absent']);
    expect(ledger.apply(OTHER_RESPONDER, fullPush(tunnel('x')), NO_ROWS)).to.deep.equal(TOO_MANY);
    apply(ledger, third, fullPush(), NO_ROWS);
    apply(ledger, OTHER_RESPONDER, fullPush(...tunnels(2)), NO_ROWS);
    expect(ledger.totalTunnelCount()).to.equal(5);
  });
});
