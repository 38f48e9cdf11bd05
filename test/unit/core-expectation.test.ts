import { expect } from 'chai';
import { parseExpectation } from '../../src/core/expectation.ts';
import type { ExpectationObject, ExpectationSpec, MatchSpec } from '../../src/core/expectation-object.ts';
import {
  desiredExpectationStatus,
  evaluate,
  expectationStatusChange,
  progressFrom,
  type Progress,
} from '../../src/core/expectation-status.ts';
import { ExpectationTally, type Finding } from '../../src/core/expectation-tally.ts';
import { GroupIndex, presenceOf, TunnelGroup } from '../../src/core/tunnel-groups.ts';
import { Drift } from '../../src/core/tunnel-object.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { names, tunnel } from '../support/sample-tunnels.ts';

const TENANT = 'reverse-tunnel.io/tenant';
const NODE = 'reverse-tunnel.io/node';
const EU = reporterKey({ cluster: 'edge', id: 'eu' });
const US = reporterKey({ cluster: 'edge', id: 'us' });

/** Connected and Unknown tunnels of two reporters. */
type Counts = readonly [euConnected: number, usConnected: number, euUnknown?: number, usUnknown?: number];

function groupWith(spec: ExpectationSpec, counts: Counts, index = 0): TunnelGroup {
  const match = parseExpectation(spec).matches[index];
  if (match === undefined) throw new Error('the spec has no such match');
  const group = new TunnelGroup(match);
  const [eu, us, euUnknown = 0, usUnknown = 0] = counts;
  for (const [key, presence, count] of [
    [EU, 'connected', eu],
    [US, 'connected', us],
    [EU, 'unknown', euUnknown],
    [US, 'unknown', usUnknown],
  ] as const)
    for (let times = 0; times < count; times += 1) group.add(key, presence, 1);
  return group;
}

function tallyOf(spec: ExpectationSpec, ...counts: readonly Counts[]): ExpectationTally {
  const groups = counts.map((each, index) => groupWith(spec, each, index));
  return new ExpectationTally(parseExpectation(spec), groups);
}

describe('the finding of an expectation', () => {
  const NODE_17 = { match: { nodeID: 'node-17' }, minReporters: 2 };
  const BOTH = { match: { nodes: ['a', 'b'] } };
  for (const [spec, counts, finding, missing] of [
    [{ match: {} }, [[1, 0]], 'Satisfied', 0],
    [{ match: {} }, [[0, 0]], 'Missing', 0],
    [{ match: {}, minTunnels: 3 }, [[2, 0]], 'TooFewTunnels', 0],
    [{ match: {}, minTunnels: 3 }, [[2, 0, 1]], 'Unknown', 0],
    [{ match: {}, minTunnels: 4 }, [[2, 0, 1]], 'TooFewTunnels', 0],
    [{ match: {}, minTunnels: 2, minReporters: 2 }, [[1, 0]], 'TooFewTunnels', 0],
    [NODE_17, [[1, 1]], 'Satisfied', 0],
    [NODE_17, [[1, 0]], 'TooFewReporters', 0],
    [NODE_17, [[2, 0]], 'TooFewReporters', 0],
    [NODE_17, [[0, 0]], 'Missing', 1],
    [NODE_17, [[1, 0, 0, 1]], 'Unknown', 0],
    [NODE_17, [[1, 0, 1, 0]], 'TooFewReporters', 0],
    [NODE_17, [[0, 0, 1, 1]], 'Unknown', 1],
    [NODE_17, [[0, 0, 2, 0]], 'Missing', 1],
    [
      BOTH,
      [
        [1, 0],
        [0, 1],
      ],
      'Satisfied',
      0,
    ],
    [
      BOTH,
      [
        [1, 0],
        [0, 0],
      ],
      'Missing',
      1,
    ],
    [
      BOTH,
      [
        [0, 0],
        [0, 0],
      ],
      'Missing',
      2,
    ],
    [
      BOTH,
      [
        [0, 0, 1],
        [0, 1],
      ],
      'Unknown',
      1,
    ],
    [
      BOTH,
      [
        [0, 0, 1],
        [0, 0],
      ],
      'Missing',
      2,
    ],
    [
      { ...BOTH, minTunnels: 2 },
      [
        [2, 0],
        [1, 0],
      ],
      'TooFewTunnels',
      0,
    ],
    [
      { ...BOTH, minTunnels: 2 },
      [
        [2, 0],
        [1, 0, 1],
      ],
      'Unknown',
      0,
    ],
    [
      { ...BOTH, minReporters: 2 },
      [
        [1, 1],
        [2, 0],
      ],
      'TooFewReporters',
      0,
    ],
    [
      { ...BOTH, minReporters: 2 },
      [
        [1, 1],
        [0, 0],
      ],
      'Missing',
      1,
    ],
  ] as readonly [ExpectationSpec, readonly Counts[], Finding, number][]) {
    it(`${JSON.stringify(spec)} with ${JSON.stringify(counts)} is ${finding}`, () => {
      const tally = tallyOf(spec, ...counts);
      expect([tally.finding, tally.summary().missing]).to.deep.equal([finding, missing]);
    });
  }

  it('counts a node once that is listed twice', () => {
    const { nodes, matches } = parseExpectation({ match: { nodes: ['a', 'b', 'a'] } });
    expect([nodes, matches.length]).to.deep.equal([['a', 'b'], 2]);
  });

  it('lists the first 20 missing nodes in the order of the spec, and counts all', () => {
    const nodes = Array.from({ length: 1000 }, (_, index) => `node-${index}`);
    const tally = tallyOf({ match: { nodes } }, ...nodes.map((_, index): Counts => [index % 2, 0]));
    const { missing, missingNodes, tunnels, reporters } = tally.summary();
    expect([missing, tunnels, reporters]).to.deep.equal([500, 500, 1]);
    expect(missingNodes).to.deep.equal(nodes.filter((_, index) => index % 2 === 0).slice(0, 20));
  });

  it('counts a reporter of several nodes once', () => {
    expect(tallyOf({ match: { nodes: ['a', 'b', 'c'] } }, [1, 0], [1, 1], [0, 1]).summary()).to.deep.equal({
      tunnels: 4,
      reporters: 2,
      unknown: 0,
      missing: 0,
      missingNodes: [],
    });
  });

  for (const [spec, counts, text] of [
    [NODE_17, [[1, 1]], '2 tunnels connected through 2 reporters'],
    [
      NODE_17,
      [[1, 0, 0, 1]],
      'node "node-17": 1 tunnel connected through 1 reporter, expected at least 1 tunnel through at least 2 reporters; 1 tunnel Unknown, not counted as connected',
    ],
    [
      { match: { tenantID: 'acme' } },
      [[0, 0]],
      '0 tunnels connected through 0 reporters, expected at least 1 tunnel through at least 1 reporter',
    ],
    [
      { ...BOTH, minReporters: 2 },
      [
        [2, 0],
        [0, 0],
      ],
      '2 of 2 nodes fall short of at least 1 tunnel through at least 2 reporters: 1 without a connected tunnel, 1 with too few reporters; first "a"',
    ],
  ] as readonly [ExpectationSpec, readonly Counts[], string][]) {
    it(`is described as: ${text}`, () => {
      const tally = tallyOf(spec, ...counts);
      expect(tally.describe(tally.summary())).to.equal(text);
    });
  }
});

describe('the match of an expectation', () => {
  const ACME = tunnel('node-1', { tenantID: 'acme', clusterID: 'eu-1' });
  const GLOBEX = tunnel('node-1', { tenantID: 'globex', clusterID: 'us-1' });
  const SCOPED = tunnel('acme:node-2', { nodeID: 'acme:node-2', clusterID: 'acme:eu-1' });

  /** Returns which of the three tunnels match. */
  function matching(match: MatchSpec): string {
    const expectation = parseExpectation({ match });
    const index = new GroupIndex(names);
    for (const each of expectation.matches) index.insert(new TunnelGroup(each));
    return Object.entries({ ACME, GLOBEX, SCOPED })
      .flatMap(([name, of]) => index.groupsOf(EU, of).map(() => name))
      .join(' ');
  }

  for (const [match, expected] of [
    [{}, 'ACME GLOBEX SCOPED'],
    [{ tenantID: 'acme' }, 'ACME SCOPED'],
    [{ clusterID: 'eu-1' }, 'ACME'],
    [{ nodeID: 'node-1' }, 'ACME GLOBEX'],
    [{ tenantID: 'globex', nodeID: 'node-1' }, 'GLOBEX'],
    [{ tenantID: 'acme', clusterID: 'us-1' }, ''],
    [{ clusterID: 'us-1', nodeID: 'node-1' }, 'GLOBEX'],
    [{ tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-1' }, 'ACME'],
    [{ nodeID: 'acme:node-2' }, 'SCOPED'],
    [{ nodeID: 'node-2' }, ''],
    [{ nodes: ['node-1', 'acme:node-2', 'other'] }, 'ACME GLOBEX SCOPED'],
    [{ tenantID: 'acme', nodes: ['node-1', 'acme:node-2'] }, 'ACME SCOPED'],
    [{ nodeID: '' }, ''],
    [{ selector: {} }, 'ACME GLOBEX SCOPED'],
    [{ selector: { matchLabels: { [TENANT]: 'acme' } } }, 'ACME SCOPED'],
    [{ selector: { matchLabels: { [TENANT]: 'acme', [NODE]: 'node-2' } } }, 'SCOPED'],
    [{ selector: { matchLabels: { 'reverse-tunnel.io/reporter': 'eu' } } }, 'ACME GLOBEX SCOPED'],
    [{ selector: { matchLabels: { 'reverse-tunnel.io/reporter': 'us' } } }, ''],
    [
      { selector: { matchExpressions: [{ key: TENANT, operator: 'In', values: ['globex', 'other'] }] } },
      'GLOBEX',
    ],
    [
      { selector: { matchExpressions: [{ key: TENANT, operator: 'NotIn', values: ['globex'] }] } },
      'ACME SCOPED',
    ],
    [{ selector: { matchExpressions: [{ key: TENANT, operator: 'Exists' }] } }, 'ACME GLOBEX SCOPED'],
    [
      {
        selector: {
          matchLabels: { [TENANT]: 'acme' },
          matchExpressions: [{ key: NODE, operator: 'NotIn', values: ['node-1'] }],
        },
      },
      'SCOPED',
    ],
  ] as readonly [MatchSpec, string][]) {
    it(`${JSON.stringify(match)} matches ${expected === '' ? 'nothing' : expected}`, () => {
      expect(matching(match)).to.equal(expected);
    });
  }

  for (const [selector, error] of [
    [
      {
        matchLabels: { [TENANT]: 'acme' },
        matchExpressions: [{ key: TENANT, operator: 'In', values: ['globex'] }],
      },
      /requirements on reverse-tunnel\.io\/tenant contradict each other/,
    ],
    [
      {
        matchLabels: { [TENANT]: 'acme' },
        matchExpressions: [{ key: TENANT, operator: 'NotIn', values: ['acme'] }],
      },
      /contradict each other/,
    ],
    [{ matchExpressions: [{ key: NODE, operator: 'DoesNotExist' }] }, /DoesNotExist matches nothing/],
    [{ matchLabels: { team: 'a' } }, /no label "team"/],
    [{ matchExpressions: [{ key: NODE, operator: 'Gt', values: ['1'] }] }, /unknown operator "Gt"/],
  ] as const) {
    it(`${JSON.stringify(selector)} is an error, because nothing can match`, () => {
      const { error: message, matches } = parseExpectation({ match: { selector } });
      expect(message)
        .to.match(/^spec\.match\.selector: /)
        .and.match(error);
      expect(matches).to.deep.equal([]);
    });
  }

  it('has the same key for selectors that mean the same', () => {
    const keys = [
      { matchLabels: { [TENANT]: 'a', [NODE]: 'b' } },
      { matchLabels: { [NODE]: 'b', [TENANT]: 'a' } },
      {
        matchExpressions: [
          { key: NODE, operator: 'In', values: ['b', 'c', 'b'] },
          { key: NODE, operator: 'NotIn', values: ['c'] },
          { key: TENANT, operator: 'In', values: ['a'] },
          { key: TENANT, operator: 'Exists' },
        ],
      },
    ].map((selector) => parseExpectation({ match: { selector } }).matches[0]?.key);
    expect(new Set(keys).size).to.equal(1);
  });

  it('no longer finds a group that was removed', () => {
    for (const match of [
      { tenantID: 'acme' },
      { nodeID: 'node-1' },
      { selector: { matchExpressions: [{ key: TENANT, operator: 'In', values: ['acme', 'b'] }] } },
      { selector: { matchExpressions: [{ key: TENANT, operator: 'NotIn', values: ['b'] }] } },
    ]) {
      const index = new GroupIndex(names);
      const group = groupWith({ match }, [0, 0]);
      index.insert(group);
      expect(index.groupsOf(EU, ACME)).to.deep.equal([group]);
      index.remove(group);
      expect(index.groupsOf(EU, ACME)).to.deep.equal([]);
    }
  });
});

describe('the presence of an object', () => {
  for (const [drift, presence] of [
    [0, 'connected'],
    [Drift.labels, 'connected'],
    [Drift.status | Drift.unknown, 'unknown'],
    [Drift.status | Drift.closed, 'absent'],
    [Drift.terminating, 'absent'],
    [Drift.terminating | Drift.status | Drift.unknown, 'absent'],
    [Drift.name, 'absent'],
  ] as const) {
    it(`is ${presence} with the drift ${drift}`, () => expect(presenceOf({ drift })).to.equal(presence));
  }
});

describe('the grace period', () => {
  for (const [text, ms] of [
    [undefined, 60_000],
    ['0s', 0],
    ['250ms', 250],
    ['1.5s', 1500],
    ['1h30m', 5_400_000],
    ['168h', 604_800_000],
    ['9999999h', 604_800_000],
    ['soon', 60_000],
  ] as const) {
    it(`${text ?? 'by default'} is ${ms} ms`, () => {
      const spec = { match: {}, ...(text === undefined ? {} : { gracePeriod: text }) };
      expect(parseExpectation(spec).gracePeriodMs).to.equal(ms);
    });
  }
});

describe('the evaluation of an expectation', () => {
  const NEW: Progress = { settled: undefined, shortSinceMs: undefined };
  const SATISFIED: Progress = { settled: 'satisfied', shortSinceMs: undefined };
  const UNSATISFIED: Progress = { settled: 'unsatisfied', shortSinceMs: 0 };
  const short = (progress: Progress, shortSinceMs: number): Progress => ({ ...progress, shortSinceMs });
  const EXPECTATION = parseExpectation({ match: {}, gracePeriod: '60s' });
  const AT = 100_000;

  for (const [title, progress, finding, state, graceEndsAtMs] of [
    ['is satisfied at once', NEW, 'Satisfied', 'satisfied', undefined],
    ['is pending while it was never satisfied', NEW, 'Missing', 'pending', AT + 60_000],
    ['stays satisfied within the grace period', SATISFIED, 'TooFewReporters', 'satisfied', AT + 60_000],
    [
      'stays satisfied until the grace period ends',
      short(SATISFIED, AT - 59_999),
      'Missing',
      'satisfied',
      AT + 1,
    ],
    [
      'is unsatisfied when the grace period ends',
      short(SATISFIED, AT - 60_000),
      'Missing',
      'unsatisfied',
      undefined,
    ],
    ['is unknown when the grace period ends', short(SATISFIED, AT - 60_000), 'Unknown', 'unknown', undefined],
    [
      'is unsatisfied when its first grace period ends',
      short(NEW, AT - 60_000),
      'Missing',
      'unsatisfied',
      undefined,
    ],
    ['stays unsatisfied without a grace period', UNSATISFIED, 'TooFewTunnels', 'unsatisfied', undefined],
    ['changes between unsatisfied and unknown at once', UNSATISFIED, 'Unknown', 'unknown', undefined],
    ['recovers at once', UNSATISFIED, 'Satisfied', 'satisfied', undefined],
    ['forgets a short interruption', short(SATISFIED, AT - 59_999), 'Satisfied', 'satisfied', undefined],
  ] as const) {
    it(title, () => {
      const evaluation = evaluate(EXPECTATION, finding, progress, AT);
      expect([evaluation.state, evaluation.graceEndsAtMs]).to.deep.equal([state, graceEndsAtMs]);
      if (finding === 'Satisfied') expect(evaluation.progress.shortSinceMs).to.equal(undefined);
    });
  }

  it('is unsatisfied immediately with a grace period of 0', () => {
    const immediate = parseExpectation({ match: {}, gracePeriod: '0s' });
    for (const progress of [NEW, SATISFIED])
      expect(evaluate(immediate, 'Missing', progress, AT).state).to.equal('unsatisfied');
  });

  it('is paused or invalid whatever is connected', () => {
    const paused = parseExpectation({ match: {}, paused: true });
    expect(evaluate(paused, undefined, UNSATISFIED, AT)).to.include({ state: 'paused', reason: 'Paused' });
    const selector = { matchExpressions: [{ key: NODE, operator: 'DoesNotExist' }] };
    const invalid = parseExpectation({ match: { selector } });
    expect(evaluate(invalid, undefined, NEW, AT)).to.include({ state: 'invalid', reason: 'Invalid' });
  });
});

describe('the status of an expectation', () => {
  const metadata = { name: 'e', uid: 'u', resourceVersion: '1', generation: 3 };
  const spec = { match: { nodeID: 'node-1' }, gracePeriod: '0s' };
  const EXPECTATION = parseExpectation(spec);
  const AT = { now: '2026-11-23T05:01:00Z', shortSince: '2026-11-23T05:00:00Z' };

  /** Returns the object with the status that it gets for these counts. */
  function written(object: ExpectationObject, counts: Counts, times = AT): ExpectationObject {
    const tally = tallyOf(spec, counts);
    const summary = tally.summary();
    const evaluation = evaluate(EXPECTATION, tally.finding, progressFrom(object), 0);
    const message = tally.describe(summary);
    const { generation } = object.metadata;
    const status = desiredExpectationStatus(object, { generation, evaluation, summary, message, ...times });
    return { ...object, status: status as NonNullable<ExpectationObject['status']> };
  }

  it('shows counts, missing nodes and the condition with the generation', () => {
    expect(written({ metadata, spec }, [0, 0, 1]).status).to.deep.equal({
      observedGeneration: 3,
      tunnels: 0,
      reporters: 0,
      unknown: 1,
      missing: 1,
      missingNodes: ['node-1'],
      since: AT.shortSince,
      conditions: [
        {
          type: 'Ready',
          status: 'Unknown',
          reason: 'Unknown',
          message:
            'node "node-1": 0 tunnels connected through 0 reporters, expected at least 1 tunnel through at least 1 reporter; 1 tunnel Unknown, not counted as connected',
          lastTransitionTime: AT.now,
          observedGeneration: 3,
        },
      ],
    });
  });

  it('keeps `since` while the reason changes, and changes it with the state', () => {
    const later = { now: '2026-11-23T06:00:00Z', shortSince: '2026-11-23T05:59:00Z' };
    const unknown = written({ metadata, spec }, [0, 0, 1]);
    const missing = written(unknown, [0, 0], later);
    expect([missing.status?.conditions?.[0]?.reason, missing.status?.since]).to.deep.equal([
      'Missing',
      AT.shortSince,
    ]);
    expect(written(missing, [1, 0], later).status?.since).to.equal(later.now);
  });

  it('is unchanged, or changed in counts or in conditions', () => {
    const before = written({ metadata, spec }, [1, 0]);
    const change = (object: ExpectationObject, counts: Counts) => {
      const { status } = written(object, counts);
      return expectationStatusChange(object.status, status as Parameters<typeof expectationStatusChange>[1]);
    };
    expect(change(before, [1, 0])).to.equal('none');
    expect(change(before, [1, 1])).to.equal('counts');
    expect(change(before, [1, 0, 1])).to.equal('counts');
    expect(change(before, [0, 0])).to.equal('conditions');
    expect(change({ ...before, metadata: { ...metadata, generation: 4 } }, [1, 0])).to.equal('conditions');
  });
});
