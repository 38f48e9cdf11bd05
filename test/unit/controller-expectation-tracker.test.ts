/** Expectations over changing tunnels: counts against a naive evaluation, writes, and bad input. */
import { expect } from 'chai';
import * as fc from 'fast-check';
import { EXPECTATIONS_KEY } from '../../src/controller/expectation-tracker.ts';
import type { ExpectationSpec, ExpectationStatus, MatchSpec } from '../../src/core/expectation-object.ts';
import { labelsFor } from '../../src/core/tunnel-object.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import { createExpectationHarness, readyText } from '../support/expectation-harness.ts';
import { assertHolds } from '../support/property-runs.ts';
import { names, OTHER_RESPONDER, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

type Harness = ReturnType<typeof createExpectationHarness>;

const NODE_17 = tunnel('node-17');
const NODE_18 = tunnel('node-18');
const IMMEDIATE = { gracePeriod: '0s' };

function without(status: ExpectationStatus, field: keyof ExpectationStatus): ExpectationStatus {
  return { ...status, [field]: undefined };
}

describe('an expectation', () => {
  let harness: Harness;
  beforeEach(async () => {
    harness = createExpectationHarness();
    // The first check whether this replica is the leader.
    await harness.advance(1000);
  });
  afterEach(() => harness.stop());

  const ready = (name = 'e'): string => readyText(harness.stored.get(name));
  const status = (name = 'e') => harness.stored.get(name)?.status;
  const warned = (): string[] => harness.events.map(({ type, reason }) => `${type} ${reason}`);

  /** Applies an expectation and waits for the scan that it causes. */
  async function apply(spec: ExpectationSpec, name = 'e'): Promise<void> {
    harness.apply(name, spec);
    await harness.advance(1000);
  }

  it('follows a node that loses its second reporter, then its last one, and returns', async () => {
    harness.put(RESPONDER, NODE_17);
    harness.put(OTHER_RESPONDER, NODE_17);
    await apply({ match: { nodeID: 'node-17' }, minReporters: 2, ...IMMEDIATE });
    expect([ready(), status()?.tunnels, status()?.reporters]).to.deep.equal(['True Satisfied', 2, 2]);
    for (const [change, expected] of [
      [() => harness.drop(RESPONDER, NODE_17), 'False TooFewReporters'],
      [() => harness.drop(OTHER_RESPONDER, NODE_17), 'False Missing'],
      [() => harness.put(RESPONDER, NODE_17), 'False TooFewReporters'],
      [() => harness.put(OTHER_RESPONDER, NODE_17), 'True Satisfied'],
    ] as const) {
      change();
      // No time passes until the status is written.
      await harness.settle();
      expect(ready()).to.equal(expected);
      await harness.advance(1000);
    }
    expect(harness.writes).to.have.length(5);
    expect(warned()).to.deep.equal([
      'Normal Satisfied',
      'Warning TooFewReporters',
      'Warning Missing',
      'Warning TooFewReporters',
      'Normal Satisfied',
    ]);
    expect(status()?.missingNodes).to.deep.equal([]);
  });

  it('is unknown while its tunnels are Unknown, counts them as not connected, and shows it', async () => {
    harness.put(RESPONDER, NODE_17);
    await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
    harness.put(RESPONDER, NODE_17, true);
    await harness.settle();
    expect(ready()).to.equal('Unknown Unknown');
    const { tunnels, unknown, missing, missingNodes, conditions } = status() ?? {};
    expect([tunnels, unknown, missing, missingNodes]).to.deep.equal([0, 1, 1, ['node-17']]);
    expect(conditions?.[0]?.message).to.include('1 tunnel Unknown, not counted as connected');
    harness.drop(RESPONDER, NODE_17);
    await harness.settle();
    expect(ready()).to.equal('False Missing');
  });

  it('stays satisfied within its grace period, and becomes unsatisfied when it ends', async () => {
    harness.put(RESPONDER, NODE_17);
    await apply({ match: { nodeID: 'node-17' }, gracePeriod: '60s' });
    harness.drop(RESPONDER, NODE_17);
    await harness.advance(30_000);
    expect([ready(), status()?.tunnels]).to.deep.equal(['True Satisfied', 0]);
    expect(status()?.conditions?.[0]?.message).to.match(/^within the grace period of 60s: node "node-17"/);
    harness.put(RESPONDER, NODE_17);
    await harness.advance(1000);
    harness.drop(RESPONDER, NODE_17);
    await harness.advance(59_000);
    expect(ready()).to.equal('True Satisfied');
    await harness.advance(1000);
    expect(ready()).to.equal('False Missing');
  });

  it('is pending for its first grace period if it was never satisfied', async () => {
    await apply({ match: { nodeID: 'node-17' }, gracePeriod: '60s' });
    expect([ready(), status()?.observedGeneration]).to.deep.equal(['Unknown Pending', 1]);
    await harness.advance(60_000);
    expect(ready()).to.equal('False Missing');
    expect(warned()).to.deep.equal(['Warning Missing']);
  });

  it('is not evaluated while it is paused, and starts afresh afterwards', async () => {
    await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
    await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE, paused: true });
    expect([ready(), status()?.tunnels]).to.deep.equal(['Unknown Paused', undefined]);
    harness.put(RESPONDER, NODE_17);
    await harness.advance(60_000);
    expect(harness.writes).to.have.length(2);
    await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
    expect([ready(), status()?.tunnels]).to.deep.equal(['True Satisfied', 1]);
  });

  const rewrites: Readonly<Record<string, (status: ExpectationStatus) => object>> = {
    'removes a count': (before) => without(before, 'tunnels'),
    'removes the time since when it holds': (before) => without(before, 'since'),
    'rewrites a count': (before) => ({ ...before, reporters: 7 }),
    'rewrites the reason of the condition': ({ conditions, ...others }) => ({
      ...others,
      conditions: conditions?.map((condition) => ({ ...condition, reason: 'Checked' })),
    }),
    'removes the conditions': (before) => without(before, 'conditions'),
    'removes the whole status': () => ({}),
  };
  for (const [what, rewrite] of Object.entries(rewrites)) {
    it(`is written once every 5 minutes if admission ${what}, and again once its state changes`, async () => {
      harness.admission.admit = (object) => ({ ...object, status: rewrite(object.status ?? {}) });
      harness.put(RESPONDER, NODE_17);
      await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
      await harness.advance(290_000);
      expect(harness.writes).to.have.length(1);
      expect(harness.rewritten).to.deep.equal(['reversetunnelexpectations']);
      await harness.advance(300_000);
      expect(harness.writes).to.have.length(2);
      harness.drop(RESPONDER, NODE_17);
      await harness.advance(1000);
      expect(harness.writes, 'the state has changed').to.have.length(3);
      harness.admission.admit = (object) => object;
      // Changed counts wait for another 10 s.
      await harness.advance(311_000);
      expect(ready()).to.equal('False Missing');
      expect(status()?.tunnels).to.equal(0);
      const { length } = harness.writes;
      await harness.advance(900_000);
      expect(harness.writes).to.have.length(length);
    });
  }

  it('is one of 2,000 that a new leader evaluates a few at a time, so that other callbacks run in between', async () => {
    for (let index = 0; index < 2000; index += 1)
      harness.apply(`e-${index}`, { match: { nodeID: `node-${index}` }, ...IMMEDIATE });
    await harness.advance(60_000);
    harness.leader.isHeld = false;
    await harness.advance(1000);
    harness.leader.isHeld = true;
    harness.writes.length = 0;
    const evaluated = (): number =>
      Object.values(harness.tracker.countStates()).reduce((sum, count) => sum + count);
    const pending = (): number => harness.queue.pending(EXPECTATIONS_KEY);
    async function tickUntil(isDone: () => boolean, check: () => void): Promise<void> {
      do {
        await new Promise((resolve) => {
          setImmediate(resolve);
        });
        check();
      } while (!isDone());
    }
    harness.clock.advance(1000);
    let before = pending();
    expect(before, 'all matches are new to this leader').to.equal(2000);
    await tickUntil(
      () => pending() === 0,
      () => {
        expect(before - pending()).to.be.at.most(64);
        before = pending();
      },
    );
    expect(evaluated(), 'nothing is counted yet').to.equal(0);
    harness.clock.advance(1000);
    before = 0;
    await tickUntil(
      () => evaluated() === 2000,
      () => {
        expect(pending(), 'queued after the scan').to.be.below(2000);
        expect(evaluated() - before).to.be.at.most(64);
        before = evaluated();
      },
    );
    expect(harness.writes).to.deep.equal([]);
  });

  it('writes changed counts once after 10 s, and nothing when they return', async () => {
    harness.put(RESPONDER, NODE_17);
    await apply({ match: { tenantID: 'acme' } });
    const extra = Array.from({ length: 50 }, (_, index) => tunnel(`extra-${index}`));
    for (const each of extra) {
      harness.put(RESPONDER, each);
      await harness.advance(100);
    }
    expect(status()?.tunnels).to.equal(1);
    await harness.advance(10_000);
    expect([status()?.tunnels, harness.writes.length]).to.deep.equal([51, 2]);
    harness.put(RESPONDER, NODE_18);
    await harness.advance(5000);
    harness.drop(RESPONDER, NODE_18);
    await harness.advance(60_000);
    expect(harness.writes).to.have.length(2);
  });

  it('causes no write and no timer when nothing changes', async () => {
    harness.put(RESPONDER, NODE_17);
    await apply({ match: { nodeID: 'node-17' } });
    await apply({ match: { nodeID: 'node-18' }, ...IMMEDIATE }, 'f');
    const before = harness.writes.length;
    await harness.advance(10_000);
    // The check whether this replica is the leader.
    expect(harness.clock.pendingTimersMs).to.have.length(1);
    harness.put(RESPONDER, { ...NODE_17, createdAt: undefined });
    await harness.advance(600_000);
    expect(harness.writes).to.have.length(before);
  });

  it('writes nothing on a replica that is not the leader, and only differences on a new one', async () => {
    harness.put(RESPONDER, NODE_17);
    await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
    await apply({ match: { nodeID: 'node-18' }, ...IMMEDIATE }, 'f');
    harness.leader.isHeld = false;
    await harness.advance(1000);
    expect(harness.tracker.countStates().satisfied).to.equal(0);
    const before = harness.writes.length;
    harness.drop(RESPONDER, NODE_17);
    await harness.advance(60_000);
    expect(harness.writes).to.have.length(before);
    harness.leader.isHeld = true;
    await harness.advance(2000);
    expect([ready('e'), ready('f')]).to.deep.equal(['False Missing', 'False Missing']);
    expect(harness.writes.slice(before)).to.deep.equal(['e']);
    expect(harness.tracker.countStates()).to.include({ unsatisfied: 2, satisfied: 0 });
  });

  it('reverts a status that was edited manually', async () => {
    await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
    const object = harness.stored.get('e');
    const [condition = expect.fail()] = object?.status?.conditions ?? [];
    const conditions = [{ ...condition, status: 'True' }];
    if (object !== undefined) {
      const metadata = { ...object.metadata, resourceVersion: '1000000' };
      const edited = { ...object, metadata, status: { ...object.status, conditions } };
      harness.stored.set('e', edited);
      harness.cache.event('MODIFIED', edited);
    }
    await harness.settle();
    expect(ready()).to.equal('False Missing');
  });

  for (const [kind, result] of [
    ['conflict', 'False Missing'],
    ['unavailable', 'False Missing'],
    ['throttled', 'False Missing'],
    ['rejected', 'False Missing'],
  ] as const) {
    it(`writes its status although the first write fails with ${kind}`, async () => {
      harness.failures.push(kind);
      await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
      await harness.advance(15_000);
      expect(ready()).to.equal(result);
      expect(harness.writes).to.have.length(1);
    });
  }

  describe('that is bad input', () => {
    it('matches nothing: it is missing, and names no node', async () => {
      await apply({ match: { tenantID: 'unused' }, ...IMMEDIATE });
      expect([ready(), status()?.missing]).to.deep.equal(['False Missing', 0]);
    });

    it('matches everything: it counts all tunnels', async () => {
      for (let index = 0; index < 100; index += 1) harness.put(RESPONDER, tunnel(`n-${index}`));
      await apply({ match: {}, minTunnels: 100, ...IMMEDIATE });
      expect([ready(), status()?.tunnels]).to.deep.equal(['True Satisfied', 100]);
    });

    it('contradicts itself: it is invalid and stalled, until it is fixed', async () => {
      const expression = { key: 'reverse-tunnel.io/tenant', operator: 'NotIn', values: ['acme'] };
      const selector = {
        matchLabels: { 'reverse-tunnel.io/tenant': 'acme' },
        matchExpressions: [expression],
      };
      harness.put(RESPONDER, NODE_17);
      await apply({ match: { selector } });
      expect(
        status()?.conditions?.map(({ type, status: is, reason }) => `${type} ${is} ${reason}`),
      ).to.deep.equal(['Ready False Invalid', 'Stalled True Invalid']);
      expect(harness.tracker.countStates().invalid).to.equal(1);
      await apply({ match: { selector: { matchLabels: selector.matchLabels } } });
      expect(status()?.conditions?.map(({ type }) => type)).to.deep.equal(['Ready']);
      expect(ready()).to.equal('True Satisfied');
    });

    it('lists a thousand nodes: each is counted', async () => {
      const nodes = Array.from({ length: 1000 }, (_, index) => `n-${index}`);
      for (const node of nodes.slice(0, 990)) harness.put(RESPONDER, tunnel(node));
      await apply({ match: { nodes }, ...IMMEDIATE });
      expect([ready(), status()?.missing]).to.deep.equal(['False Missing', 10]);
      expect(status()?.missingNodes).to.deep.equal(nodes.slice(990));
      for (const node of nodes.slice(990)) harness.put(RESPONDER, tunnel(node));
      await harness.settle();
      expect(ready()).to.equal('True Satisfied');
    });

    it('is edited a hundred times per second: about one write per second, and the last edit counts', async () => {
      harness.put(RESPONDER, NODE_17);
      await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
      const before = harness.writes.length;
      for (let edit = 0; edit < 1000; edit += 1) {
        harness.apply('e', { match: { nodeID: edit % 2 === 0 ? 'node-17' : `n-${edit}` }, ...IMMEDIATE });
        await harness.advance(10);
      }
      expect(harness.writes.length - before).to.be.within(5, 16);
      await apply({ match: { nodeID: 'node-17' }, minTunnels: 2, ...IMMEDIATE });
      await harness.advance(10_000);
      expect([ready(), status()?.observedGeneration]).to.deep.equal(['False TooFewTunnels', 1002]);
      expect(harness.clock.pendingTimersMs).to.have.length(1);
    });

    it('is edited continuously while it falls short: it becomes unsatisfied nevertheless', async () => {
      await apply({ match: { nodeID: 'node-17' }, gracePeriod: '30s' });
      for (let edit = 0; edit < 40; edit += 1)
        await apply({ match: { nodeID: `n-${edit}` }, gracePeriod: '30s' });
      expect(ready()).to.equal('False Missing');
    });

    it('is deleted while it is unsatisfied: nothing remains of it', async () => {
      await apply({ match: { nodeID: 'node-17' }, ...IMMEDIATE });
      await apply({ match: { nodeID: 'node-17' }, gracePeriod: '1h' }, 'f');
      harness.delete('e');
      harness.delete('f');
      await harness.settle();
      const before = harness.writes.length;
      harness.put(RESPONDER, NODE_17);
      await harness.advance(3_600_000);
      expect(harness.writes).to.have.length(before);
      expect(Object.values(harness.tracker.countStates()).every((count) => count === 0)).to.equal(true);
      expect(harness.queue.pending(EXPECTATIONS_KEY)).to.equal(0);
      expect(harness.clock.pendingTimersMs).to.have.length(1);
    });

    it('is deleted while its status is written: the response does not bring it back', async () => {
      harness.apply('e', { match: { nodeID: 'node-17' }, ...IMMEDIATE });
      await harness.advance(2);
      harness.delete('e');
      await harness.advance(60_000);
      expect(harness.cache.get('e')).to.equal(undefined);
      expect(harness.tracker.countStates().unsatisfied).to.equal(0);
    });

    it('is one of 1,000 about the same tenant: a change of a tunnel is passed on at a limited rate', async () => {
      for (let index = 0; index < 1000; index += 1)
        harness.apply(`e-${index}`, {
          match: { tenantID: 'acme' },
          minTunnels: 1 + (index % 3),
          ...IMMEDIATE,
        });
      await harness.advance(2000);
      expect(harness.tracker.countStates().unsatisfied).to.equal(1000);
      harness.put(RESPONDER, NODE_17);
      await harness.settle();
      harness.put(RESPONDER, NODE_18);
      await harness.advance(1000);
      expect(harness.tracker.countStates()).to.include({ satisfied: 667, unsatisfied: 333 });
    });
  });

  describe('beyond the limit of all matches', () => {
    const nodes = (count: number, prefix = 'n'): string[] =>
      Array.from({ length: count }, (_, index) => `${prefix}-${index}`);

    beforeEach(async () => {
      harness.stop();
      harness = createExpectationHarness({ maxMatches: 10 });
      await harness.advance(1000);
      await apply({ match: { nodes: nodes(6) }, ...IMMEDIATE }, 'first');
      // These name the same nodes, which takes memory too.
      await apply({ match: { nodes: nodes(5) }, ...IMMEDIATE }, 'second');
    });

    it('is Invalid with the limit in its message, while a smaller one is evaluated', async () => {
      expect([ready('first'), ready('second')]).to.deep.equal(['False Missing', 'False Invalid']);
      expect(status('second')?.conditions?.[0]?.message).to.include('at most 10 nodes');
      await apply({ match: { tenantID: 'acme' }, ...IMMEDIATE }, 'third');
      expect(ready('third')).to.equal('False Missing');
      expect(harness.tracker.countStates()).to.include({ invalid: 1, unsatisfied: 2 });
    });

    const ways: Readonly<Record<string, () => unknown>> = {
      'another one is deleted': () => harness.delete('first'),
      'another one is paused': () =>
        apply({ match: { nodes: nodes(6) }, ...IMMEDIATE, paused: true }, 'first'),
      'another one names fewer nodes': () => apply({ match: { nodes: nodes(5) }, ...IMMEDIATE }, 'first'),
      'it names fewer nodes': () => apply({ match: { nodes: nodes(4) }, ...IMMEDIATE }, 'second'),
    };
    for (const [what, make] of Object.entries(ways)) {
      it(`is evaluated once ${what}`, async () => {
        await make();
        await harness.advance(5000);
        expect(ready('second')).to.equal('False Missing');
        for (const node of nodes(5)) harness.put(RESPONDER, tunnel(node, { nodeID: node }));
        await harness.advance(1000);
        expect(ready('second')).to.equal('True Satisfied');
      });
    }

    it('is evaluated or Invalid again after edits of any of them', async () => {
      await apply({ match: { nodes: nodes(10, 'other') }, ...IMMEDIATE }, 'first');
      expect([ready('first'), ready('second')]).to.deep.equal(['False Missing', 'False Invalid']);
      await apply({ match: { nodes: nodes(11) }, ...IMMEDIATE }, 'first');
      await harness.advance(3000);
      expect([ready('first'), ready('second')]).to.deep.equal(['False Invalid', 'False Missing']);
      harness.delete('second');
      await apply({ match: { nodes: nodes(11) }, ...IMMEDIATE, paused: true }, 'first');
      await harness.advance(3000);
      expect(ready('first')).to.equal('Unknown Paused');
      await apply({ match: { nodes: nodes(10) }, ...IMMEDIATE }, 'third');
      expect(ready('third')).to.equal('False Missing');
    });
  });

  it('has the result of a naive evaluation after any changes of tunnels and expectations', async function () {
    this.timeout(120_000);
    const checked = await assertHolds(
      fc.asyncProperty(fc.array(anyChange, { minLength: 1, maxLength: 60 }), compareWithNaive),
      { runs: 300, file: 'test/unit/controller-expectation-tracker.test.ts' },
    );
    if (process.env['FC_PATH'] === undefined) expect(checked).to.be.greaterThan(0);
  });
});

const REPORTERS: readonly ReporterId[] = [RESPONDER, OTHER_RESPONDER, { cluster: '', id: 'x y' }];
const TUNNELS: readonly Tunnel[] = [
  ...['a', 'b', 'c'].map((name) => tunnel(name)),
  tunnel('d', { tenantID: 'globex', nodeID: 'a' }),
  tunnel('e', { tenantID: 'globex', clusterID: 'us-1' }),
  tunnel('acme:f', { clusterID: 'acme:eu-1' }),
];
const TENANT_LABEL = 'reverse-tunnel.io/tenant';
const NODE_LABEL = 'reverse-tunnel.io/node';

const anySelector = fc.record(
  {
    matchLabels: fc.dictionary(fc.constantFrom(TENANT_LABEL, NODE_LABEL), fc.constantFrom('acme', 'a', 'f'), {
      maxKeys: 1,
    }),
    matchExpressions: fc.array(
      fc.record({
        key: fc.constantFrom(TENANT_LABEL, NODE_LABEL),
        operator: fc.constantFrom('In', 'NotIn'),
        values: fc.array(fc.constantFrom('acme', 'globex', 'a', 'b'), { minLength: 1, maxLength: 3 }),
      }),
      { maxLength: 2 },
    ),
  },
  { requiredKeys: [] },
);
const anyMatch: fc.Arbitrary<MatchSpec> = fc.oneof(
  fc.record(
    {
      tenantID: fc.constantFrom('acme', 'globex', 'unused'),
      clusterID: fc.constantFrom('eu-1', 'us-1'),
      nodeID: fc.constantFrom('a', 'b', 'acme:f'),
    },
    { requiredKeys: [] },
  ),
  fc.record(
    {
      tenantID: fc.constantFrom('acme', 'globex'),
      nodes: fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'e', 'z'), { minLength: 1 }),
    },
    { requiredKeys: ['nodes'] },
  ),
  fc.record({ selector: anySelector }),
);
const anyIndex = fc.nat(100);
const anyChange = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      type: fc.constantFrom('put', 'put', 'drop', 'unknown'),
      reporter: anyIndex,
      tunnel: anyIndex,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('apply'),
      name: fc.constantFrom('one', 'two', 'three'),
      spec: fc.record({
        match: anyMatch,
        minTunnels: fc.integer({ min: 1, max: 4 }),
        minReporters: fc.integer({ min: 1, max: 3 }),
        gracePeriod: fc.constant('0s'),
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('delete'), name: fc.constantFrom('one', 'two', 'three') }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('wait'), ms: fc.constantFrom(0, 1, 1500) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('lead') }) },
);
type Change = {
  readonly type: string;
  readonly reporter?: number;
  readonly tunnel?: number;
  readonly name?: string;
  readonly spec?: ExpectationSpec;
  readonly ms?: number;
};

/** The state of a tunnel at a reporter, by both. */
type Present = Map<
  string,
  { readonly reporter: ReporterId; readonly tunnel: Tunnel; readonly isUnknown: boolean }
>;

/** Applies the changes, and compares all statuses with an evaluation that reads every tunnel. */
async function compareWithNaive(changes: readonly Change[]): Promise<void> {
  const harness = createExpectationHarness();
  const present: Present = new Map();
  for (const { type, name = '', spec, ms = 0, ...at } of changes) {
    const reporter = REPORTERS[(at.reporter ?? 0) % REPORTERS.length] ?? RESPONDER;
    const of = TUNNELS[(at.tunnel ?? 0) % TUNNELS.length] ?? NODE_17;
    const key = `${reporter.id} ${of.name}`;
    switch (type) {
      case 'put':
      case 'unknown':
        harness.put(reporter, of, type === 'unknown');
        present.set(key, { reporter, tunnel: of, isUnknown: type === 'unknown' });
        break;
      case 'drop':
        if (present.delete(key)) harness.drop(reporter, of);
        break;
      case 'apply':
        if (spec !== undefined) harness.apply(name, spec);
        break;
      case 'delete':
        harness.delete(name);
        break;
      case 'lead':
        harness.leader.isHeld = !harness.leader.isHeld;
        break;
      default:
        await harness.advance(ms);
    }
  }
  harness.leader.isHeld = true;
  await harness.advance(20_000);
  harness.stop();
  for (const [name, { spec, status }] of harness.stored) {
    const { tunnels, reporters, unknown, missingNodes } = status ?? {};
    const actual = [readyText(harness.stored.get(name)), tunnels, reporters, unknown, missingNodes];
    expect(actual, `${name} ${JSON.stringify(spec)}`).to.deep.equal(naive(spec, present));
  }
}

/** Returns the expected Ready condition, counts and missing nodes. */
function naive({ match, minTunnels = 1, minReporters = 1 }: ExpectationSpec, present: Present): unknown[] {
  const { tenantID, clusterID, nodeID, nodes, selector } = match;
  if (selector !== undefined && isContradictory(selector))
    return ['False Invalid', undefined, undefined, undefined, undefined];
  const named = nodes ?? (nodeID === undefined ? undefined : [nodeID]);
  const matching = [...present.values()].filter(({ reporter, tunnel: of }) => {
    const labels = labelsFor(names, reporter, of);
    return (
      (tenantID === undefined || of.tenantID === tenantID) &&
      (clusterID === undefined || of.clusterID === clusterID) &&
      (named === undefined || named.includes(of.nodeID)) &&
      Object.entries(selector?.matchLabels ?? {}).every(([label, value]) => labels[label] === value) &&
      (selector?.matchExpressions ?? []).every(
        ({ key, operator, values = [] }) => values.includes(labels[key] ?? '') === (operator === 'In'),
      )
    );
  });
  const reportersOf = (of: typeof matching): number => new Set(of.map(({ reporter }) => reporter)).size;
  const parts = (named ?? [undefined]).map((node) => {
    const all = matching.filter(({ tunnel: of }) => node === undefined || of.nodeID === node);
    const up = all.filter(({ isUnknown }) => !isUnknown);
    const suffices = (of: typeof matching): boolean =>
      of.length >= minTunnels && reportersOf(of) >= minReporters;
    const reason = up.length === 0 ? 'Missing' : up.length < minTunnels ? 'TooFewTunnels' : 'TooFewReporters';
    return { node, up, result: suffices(up) ? 'Satisfied' : suffices(all) ? 'Unknown' : reason };
  });
  const order = ['Missing', 'TooFewTunnels', 'TooFewReporters', 'Unknown', 'Satisfied'];
  const worst = order.find((reason) => parts.some(({ result }) => result === reason)) ?? 'Satisfied';
  const readyStatus = worst === 'Satisfied' ? 'True' : worst === 'Unknown' ? 'Unknown' : 'False';
  const connected = matching.filter(({ isUnknown }) => !isUnknown);
  const missing = parts.filter(({ node, up }) => node !== undefined && up.length === 0);
  return [
    `${readyStatus} ${worst}`,
    connected.length,
    reportersOf(connected),
    matching.length - connected.length,
    missing.map(({ node }) => node),
  ];
}

/** Returns true if no value of one of the two labels meets all requirements. */
function isContradictory({
  matchLabels = {},
  matchExpressions = [],
}: NonNullable<MatchSpec['selector']>): boolean {
  const candidates = ['acme', 'globex', 'a', 'b', 'f', 'any other value'];
  return [TENANT_LABEL, NODE_LABEL].some(
    (label) =>
      !candidates.some(
        (value) =>
          (matchLabels[label] ?? value) === value &&
          matchExpressions.every(
            ({ key, operator, values = [] }) =>
              key !== label || values.includes(value) === (operator === 'In'),
          ),
      ),
  );
}
