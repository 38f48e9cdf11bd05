import { expect } from 'chai';
import * as fc from 'fast-check';

import { DENY_ALL } from '../../src/core/grant.ts';
import type { LimitExceeded, PriorState, ReportChange } from '../../src/core/apply-report.ts';
import { Ledger, type TunnelState } from '../../src/core/ledger.ts';
import type { Report } from '../../src/core/report.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { delta, fullPush, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = reporterKey(RESPONDER);

function priorState(...tunnels: Tunnel[]): PriorState {
  const byName = new Map(tunnels.map((each) => [each.name, each]));
  return { size: byName.size, tunnel: (name) => byName.get(name), tunnels: () => byName.values() };
}

/** Applies a report that must be accepted. */
function apply(ledger: Ledger, ...args: Parameters<Ledger['apply']>): ReportChange {
  const result = ledger.apply(...args);
  if ('limit' in result) throw new Error(`rejected: ${JSON.stringify(result)}`);
  return result;
}

const NO_OBJECTS = priorState();

function copy(of: Tunnel): Tunnel {
  return { ...of };
}

/** Returns a state as text: the tunnel, `absent` or `unknown`. */
function describeState(state: TunnelState): string {
  return state.state === 'present' ? JSON.stringify(state.tunnel) : state.state;
}

/**
 * A naive model of the protocol: it stores all possible states of each name, and the only rule for a delta is
 * present_after = clamp(present_before + adds - removals, 0, 1).
 */
class NaiveReporter {
  readonly #possible = new Map<string, { present: (0 | 1)[]; tunnel: Tunnel | undefined }>();
  #complete = false;

  constructor(existing: readonly Tunnel[]) {
    for (const of of existing) this.#possible.set(of.name, { present: [1], tunnel: of });
  }

  apply({ fullPush, added, removedNames }: Report): void {
    if (fullPush) {
      this.#complete = true;
      this.#possible.clear();
      for (const each of added) this.#possible.set(each.name, { present: [1], tunnel: each });
      return;
    }
    for (const name of new Set([...added.map((each) => each.name), ...removedNames])) {
      const adds = added.filter((each) => each.name === name);
      const removals = removedNames.filter((each) => each === name);
      const before = this.#at(name);
      const present = before.present.map((count) => clamp(count + adds.length - removals.length));
      this.#possible.set(name, { present, tunnel: adds.at(-1) ?? before.tunnel });
    }
  }

  describeState(name: string): string {
    const { present, tunnel: of } = this.#at(name);
    if (present.every((count) => count === 0)) return 'absent';
    return present.every((count) => count === 1) ? JSON.stringify(of) : 'unknown';
  }

  #at(name: string): { present: (0 | 1)[]; tunnel: Tunnel | undefined } {
    return this.#possible.get(name) ?? { present: this.#complete ? [0] : [0, 1], tunnel: undefined };
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
const anyObjects = fc.uniqueArray(anyTunnel, { selector: (of) => of.name, maxLength: 3 });
const anyHistory = fc.array(
  fc.record({
    reporter: fc.constantFrom(RESPONDER, OTHER_RESPONDER, { cluster: '', id: 'responder-0' }),
    report: anyReport,
  }),
  { maxLength: 12, size: 'max' },
);

describe('ledger', () => {
  it('agrees with the naive model for any reports of any reporters and any existing objects', () => {
    fc.assert(
      fc.property(anyObjects, anyHistory, (existing, history) => {
        const ledger = new Ledger();
        const naive = new Map<string, NaiveReporter>();
        for (const { reporter, report } of history) {
          const key = reporterKey(reporter);
          if (!naive.has(key)) naive.set(key, new NaiveReporter(report.fullPush ? [] : existing));
          naive.get(key)?.apply(report);
          apply(ledger, reporter, report, priorState(...existing));
          for (const [each, model] of naive) {
            for (const name of NAMES)
              expect(describeState(ledger.tunnelState(each, name)), name).to.equal(model.describeState(name));
          }
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('reports exactly the names whose state changed', () => {
    fc.assert(
      fc.property(anyObjects, anyHistory, (existing, history) => {
        const ledger = new Ledger();
        const complete = new Set<string>();
        for (const { reporter, report } of history) {
          const key = reporterKey(reporter);
          const seeded = ledger.reporter(key) === undefined && !report.fullPush ? existing : [];
          const before = NAMES.map((name) => {
            const prior = seeded.find((each) => each.name === name);
            return prior === undefined
              ? describeState(ledger.tunnelState(key, name))
              : describeState({ state: 'present', tunnel: prior });
          });
          const { changed, becameComplete } = apply(ledger, reporter, report, priorState(...existing));
          const differing = NAMES.filter((name, index) => {
            const after = describeState(ledger.tunnelState(key, name));
            // A tunnel missing in a first full push was never held: its object is deleted because of `becameComplete`.
            return (
              after !== before[index] &&
              !(before[index] === 'unknown' && after === 'absent' && becameComplete)
            );
          });
          expect(new Set(changed).size, 'without duplicates').to.equal(changed.length);
          expect([...changed].toSorted()).to.deep.equal(differing.toSorted());
          expect(becameComplete).to.equal(report.fullPush && !complete.has(key));
          if (report.fullPush) complete.add(key);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('finds no changes in a repeated full push or repeated additions', () => {
    fc.assert(
      fc.property(anyHistory, anyReport, (history, report) => {
        const ledger = new Ledger();
        for (const { report: each } of history) apply(ledger, RESPONDER, each, NO_OBJECTS);
        const repeated = report.fullPush ? report : { ...report, removedNames: [] };
        apply(ledger, RESPONDER, repeated, NO_OBJECTS);
        const held = ledger.totalTunnelCount();
        expect(apply(ledger, RESPONDER, repeated, NO_OBJECTS).changed).to.deep.equal([]);
        expect(ledger.totalTunnelCount()).to.equal(held);
      }),
    );
  });
});

describe('full push', () => {
  for (const order of ['the same', 'another']) {
    it(`keeps the existing memory if it is repeated with equal tunnels in ${order} order`, () => {
      const ledger = new Ledger();
      const first = [tunnel('node-1'), tunnel('node-2', { createdAt: undefined })];
      apply(ledger, RESPONDER, fullPush(...first), NO_OBJECTS);
      const copies = first.map(copy);
      const repeated = order === 'the same' ? copies : copies.toReversed();
      const again = apply(ledger, RESPONDER, fullPush(...repeated), NO_OBJECTS);
      expect(again).to.deep.equal({ changed: [], becameComplete: false });
      for (const each of first) {
        const known = ledger.tunnelState(KEY, each.name);
        expect(known.state === 'present' && known.tunnel === each, each.name).to.equal(true);
      }
    });
  }

  it('replaces a tunnel by one of another name with the same content', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, fullPush(tunnel('node-1', { nodeID: 'a' }), tunnel('node-2')), NO_OBJECTS);
    const renamed = fullPush(tunnel('node-3', { nodeID: 'a' }), tunnel('node-2'));
    expect(apply(ledger, RESPONDER, renamed, NO_OBJECTS).changed).to.deep.equal(['node-3', 'node-1']);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('absent');
  });

  it('removes a tunnel if it lists another one twice', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_OBJECTS);
    const repeated = fullPush(tunnel('node-1'), tunnel('node-1'));
    expect(apply(ledger, RESPONDER, repeated, NO_OBJECTS).changed).to.deep.equal(['node-2']);
    expect(ledger.tunnelState(KEY, 'node-2').state).to.equal('absent');
  });

  it('shares the memory of equal existing objects', () => {
    const ledger = new Ledger();
    const existing = tunnel('node-1');
    apply(ledger, RESPONDER, fullPush(copy(existing)), priorState(existing));
    const known = ledger.tunnelState(KEY, 'node-1');
    expect(known.state === 'present' && known.tunnel === existing).to.equal(true);
  });

  it('makes the state complete only the first time', () => {
    const ledger = new Ledger();
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'unknown' });
    expect(apply(ledger, RESPONDER, delta([], ['node-2']), NO_OBJECTS).becameComplete).to.equal(false);
    expect(apply(ledger, RESPONDER, fullPush(), NO_OBJECTS).becameComplete).to.equal(true);
    expect(apply(ledger, RESPONDER, fullPush(), NO_OBJECTS).becameComplete).to.equal(false);
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'absent' });
  });

  it('removes tunnels that it does not list, of its own reporter only', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_OBJECTS);
    apply(ledger, OTHER_RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_OBJECTS);
    expect(apply(ledger, RESPONDER, fullPush(tunnel('node-2')), NO_OBJECTS).changed).to.deep.equal([
      'node-1',
    ]);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('absent');
    expect(ledger.tunnelState(reporterKey(OTHER_RESPONDER), 'node-1').state).to.equal('present');
    expect(ledger.totalTunnelCount()).to.equal(3);
  });

  it('ignores its removed names', () => {
    const ledger = new Ledger();
    const report: Report = { fullPush: true, added: [tunnel('node-1')], removedNames: ['node-1', 'node-2'] };
    apply(ledger, RESPONDER, report, NO_OBJECTS);
    apply(ledger, RESPONDER, report, NO_OBJECTS);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
    expect(ledger.tunnelState(KEY, 'node-2').state).to.equal('absent');
  });

  it('uses the last entry of a duplicate name', () => {
    const ledger = new Ledger();
    const [older, newer] = [tunnel('node-1', { nodeID: 'a' }), tunnel('node-1', { nodeID: 'b' })];
    for (let repetition = 0; repetition < 2; repetition += 1) {
      apply(ledger, RESPONDER, fullPush(older, newer), NO_OBJECTS);
      expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'present', tunnel: newer });
      expect(ledger.totalTunnelCount()).to.equal(1);
    }
  });
});

function holding(...tunnels: Tunnel[]): Ledger {
  const ledger = new Ledger();
  apply(ledger, RESPONDER, fullPush(...tunnels), NO_OBJECTS);
  return ledger;
}

describe('delta', () => {
  const before = tunnel('node-1', { createdAt: '2026-11-23T05:00:00Z' });
  const after = tunnel('node-1', { createdAt: '2026-11-23T05:01:00Z' });

  const situations: [
    situation: string,
    held: Tunnel[],
    report: Report,
    expected: TunnelState,
    changed: boolean,
  ][] = [
    ['adds a tunnel', [], delta([after]), { state: 'present', tunnel: after }, true],
    ['removes a tunnel', [before], delta([], ['node-1']), { state: 'absent' }, true],
    [
      'contains a drop and a reconnect',
      [before],
      delta([after], ['node-1']),
      { state: 'present', tunnel: after },
      true,
    ],
    ['contains a connect and a drop', [], delta([after], ['node-1']), { state: 'absent' }, false],
    [
      'contains a connect, a drop and a reconnect',
      [],
      delta([before, after], ['node-1']),
      { state: 'present', tunnel: after },
      true,
    ],
    [
      'contains a drop, a reconnect and a drop',
      [before],
      delta([after], ['node-1', 'node-1']),
      { state: 'absent' },
      true,
    ],
    ['removes a tunnel that is not held', [], delta([], ['node-1']), { state: 'absent' }, false],
    [
      'adds a tunnel that is held',
      [before],
      delta([{ ...before }]),
      { state: 'present', tunnel: before },
      false,
    ],
    [
      'adds twice and removes once',
      [before],
      delta([before, after], ['node-1']),
      { state: 'present', tunnel: after },
      true,
    ],
    ['changes createdAt', [before], delta([after]), { state: 'present', tunnel: after }, true],
    [
      'omits createdAt',
      [before],
      delta([tunnel('node-1', { createdAt: undefined })]),
      { state: 'present', tunnel: tunnel('node-1', { createdAt: undefined }) },
      true,
    ],
    [
      'changes the tenant',
      [before],
      delta([{ ...before, tenantID: 'beta' }]),
      { state: 'present', tunnel: { ...before, tenantID: 'beta' } },
      true,
    ],
  ];
  for (const [situation, held, report, expected, changed] of situations) {
    it(`that ${situation} leaves the tunnel ${expected.state} and ${changed ? 'changed' : 'unchanged'}`, () => {
      const ledger = holding(...held);
      expect(apply(ledger, RESPONDER, report, NO_OBJECTS).changed).to.deep.equal(changed ? ['node-1'] : []);
      expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal(expected);
    });
  }

  it('that is empty changes nothing', () => {
    const ledger = holding(before);
    expect(apply(ledger, RESPONDER, delta([]), NO_OBJECTS)).to.deep.equal({
      changed: [],
      becameComplete: false,
    });
  });
});

describe('first delta after a restart', () => {
  const existing = tunnel('node-1');

  it('is applied to the existing objects', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, delta([copy(existing)], ['node-1']), priorState(existing));
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'present', tunnel: existing });
    expect(apply(ledger, RESPONDER, delta([], ['node-1']), NO_OBJECTS).changed).to.deep.equal(['node-1']);
    expect(ledger.tunnelState(KEY, 'node-1')).to.deep.equal({ state: 'absent' });
  });

  it('keeps objects that it does not mention', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, delta([tunnel('node-2')]), priorState(existing));
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
    expect(ledger.tunnelState(KEY, 'node-3').state).to.equal('unknown');
  });

  it('makes removed tunnels absent, even without a known object', () => {
    const ledger = new Ledger();
    expect(apply(ledger, RESPONDER, delta([], ['node-1']), NO_OBJECTS).changed).to.deep.equal(['node-1']);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('absent');
    apply(ledger, RESPONDER, delta([existing]), NO_OBJECTS);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
  });

  it('leaves a name in both lists unknown, because the order is ambiguous', () => {
    const ledger = new Ledger();
    expect(apply(ledger, RESPONDER, delta([existing], ['node-1']), NO_OBJECTS).changed).to.deep.equal([]);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('unknown');
  });

  it('does not affect a reporter with the same ID in another cluster', () => {
    const ledger = new Ledger();
    const elsewhere: ReporterId = { cluster: 'core', id: RESPONDER.id };
    apply(ledger, elsewhere, fullPush(tunnel('node-1')), NO_OBJECTS);
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('unknown');
    expect(ledger.reporter(reporterKey(elsewhere))).to.deep.equal(elsewhere);
    expect(ledger.reporter(KEY)).to.equal(undefined);
  });
});

describe('memory of the ledger', () => {
  it('depends on held tunnels, not on the number of reports', () => {
    const ledger = new Ledger();
    apply(ledger, RESPONDER, fullPush(tunnel('node-0')), NO_OBJECTS);
    for (let index = 0; index < 1000; index += 1) {
      apply(ledger, RESPONDER, delta([tunnel(`temporary-${index}`)]), NO_OBJECTS);
      apply(ledger, RESPONDER, delta([], [`temporary-${index}`, `never-${index}`]), NO_OBJECTS);
    }
    expect(ledger.totalTunnelCount()).to.equal(1);
    expect(ledger.totalTunnelCount()).to.equal(1);
  });

  it('keeps only the latest names removed before the first full push, up to the limit', () => {
    const ledger = new Ledger({ tunnelsPerReporter: 2 });
    apply(ledger, RESPONDER, delta([], ['node-1', 'node-2']), NO_OBJECTS);
    apply(ledger, RESPONDER, delta([], ['node-3']), NO_OBJECTS);
    const states = ['node-1', 'node-2', 'node-3'].map((name) => ledger.tunnelState(KEY, name).state);
    expect(states).to.deep.equal(['unknown', 'absent', 'absent']);
  });

  it('is empty before the first report', () => {
    expect(new Ledger().totalTunnelCount()).to.equal(0);
  });
});

describe('reporter at its limit', () => {
  const full = (): Ledger => {
    const ledger = new Ledger({ tunnelsPerReporter: 2 });
    apply(ledger, RESPONDER, fullPush(tunnel('node-1'), tunnel('node-2')), NO_OBJECTS);
    return ledger;
  };

  for (const { title, report } of [
    { title: 'a flap', report: delta([tunnel('node-1')], ['node-1']) },
    { title: 'a replaced tunnel', report: delta([tunnel('node-3')], ['node-1']) },
    { title: 'a temporary tunnel', report: delta([tunnel('node-3')], ['node-3']) },
    {
      title: 'a duplicate name in a full push',
      report: fullPush(tunnel('node-1'), tunnel('node-2'), tunnel('node-2')),
    },
  ]) {
    it(`may report ${title}`, () => {
      const ledger = full();
      apply(ledger, RESPONDER, report, NO_OBJECTS);
      expect(ledger.totalTunnelCount()).to.equal(2);
    });
  }

  it('has a report with one more tunnel rejected as a whole', () => {
    const ledger = full();
    const report = delta([tunnel('node-3'), tunnel('node-4')], ['node-1']);
    expect(ledger.apply(RESPONDER, report, NO_OBJECTS)).to.deep.equal({
      limit: 'tunnelsPerReporter',
      count: 3,
      max: 2,
    });
    expect(ledger.tunnelState(KEY, 'node-1').state).to.equal('present');
    expect(ledger.tunnelState(KEY, 'node-3').state).to.equal('absent');
  });
});

describe('reporters at the global limit', () => {
  const tunnels = (count: number): Tunnel[] => Array.from({ length: count }, (_, i) => tunnel(`node-${i}`));
  const OTHER_KEY = reporterKey(OTHER_RESPONDER);
  let ledger: Ledger;
  beforeEach(() => {
    ledger = new Ledger({ tunnelsPerReporter: 100, tunnels: 5 });
    apply(ledger, RESPONDER, fullPush(...tunnels(3)), NO_OBJECTS);
    apply(ledger, OTHER_RESPONDER, fullPush(...tunnels(2)), NO_OBJECTS);
  });

  const TOO_MANY: LimitExceeded = { limit: 'tunnels', count: 6, max: 5 };
  for (const [title, report] of [
    ['by a full push', fullPush(...tunnels(4))],
    ['by a delta', delta([tunnel('node-3')])],
  ] as const) {
    it(`have one more tunnel ${title} rejected without any change`, () => {
      expect(ledger.apply(RESPONDER, report, NO_OBJECTS)).to.deep.equal(TOO_MANY);
      expect([ledger.tunnelCount(KEY), ledger.tunnelCount(OTHER_KEY)]).to.deep.equal([3, 2]);
    });
  }

  it('may replace, remove and repeat tunnels', () => {
    apply(ledger, RESPONDER, delta([tunnel('node-3')], ['node-0']), NO_OBJECTS);
    apply(ledger, RESPONDER, fullPush(...tunnels(3)), NO_OBJECTS);
    apply(ledger, RESPONDER, fullPush(...tunnels(1)), NO_OBJECTS);
    apply(ledger, OTHER_RESPONDER, fullPush(...tunnels(4)), NO_OBJECTS);
    expect(ledger.totalTunnelCount()).to.equal(5);
  });

  it('regain quota if one is forgotten, removes tunnels or loses denied tunnels', () => {
    const add = (...names: string[]): LimitExceeded | ReportChange =>
      ledger.apply(RESPONDER, delta(names.map((name) => tunnel(name))), NO_OBJECTS);
    apply(ledger, OTHER_RESPONDER, delta([], ['node-0']), NO_OBJECTS);
    expect(add('removed')).not.to.have.property('limit');
    ledger.forget(OTHER_KEY);
    expect(add('forgotten')).not.to.have.property('limit');
    expect(add('one too many')).to.deep.equal(TOO_MANY);
    ledger.setGrant(KEY, DENY_ALL);
    ledger.dropDenied(KEY);
    expect(add('1', '2', '3', '4', '5')).not.to.have.property('limit');
    expect(add('6')).to.deep.equal(TOO_MANY);
  });

  it('use quota for names removed before the first full push', () => {
    const third = { cluster: 'edge', id: 'third' };
    ledger.forget(OTHER_KEY);
    apply(ledger, third, delta([], ['a', 'b', 'c']), NO_OBJECTS);
    const states = ['a', 'b', 'c'].map((name) => ledger.tunnelState(reporterKey(third), name).state);
    expect(states).to.deep.equal(['unknown', 'absent', 'absent']);
    expect(ledger.apply(OTHER_RESPONDER, fullPush(tunnel('x')), NO_OBJECTS)).to.deep.equal(TOO_MANY);
    apply(ledger, third, fullPush(), NO_OBJECTS);
    apply(ledger, OTHER_RESPONDER, fullPush(...tunnels(2)), NO_OBJECTS);
    expect(ledger.totalTunnelCount()).to.equal(5);
  });
});
