import { expect } from 'chai';
import { pino } from 'pino';
import { Authorizer } from '../../src/controller/authorizer.ts';
import { PolicyCache } from '../../src/controller/policy-cache.ts';
import { PolicyStatusWriter } from '../../src/controller/policy-status-writer.ts';
import { DENY_ALL } from '../../src/core/grant.ts';
import { ANONYMOUS, type Peer } from '../../src/core/peer.ts';
import type { PolicyObject, PolicySpec, PolicyStatus } from '../../src/core/policy-object.ts';
import { parsePolicy } from '../../src/core/policy.ts';
import { createPolicySet, type PolicySet } from '../../src/core/policy-set.ts';
import { reporterKey, type ReporterId } from '../../src/core/tunnel.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime } from '../support/fake-time.ts';
import { RESPONDER } from '../support/sample-tunnels.ts';

const ALL: PolicySpec = {
  rules: [{ peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] }],
};
const WRONG: PolicySpec = {
  rules: [{ peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['a*b'] }],
};
const EDGE: Peer = { kind: 'token', namespace: 'edge', serviceAccount: 'responder' };

function policy(name: string, spec: PolicySpec, generation = 1, status?: PolicyStatus): PolicyObject {
  const metadata = { name, uid: `uid-${name}`, resourceVersion: String(10 * generation), generation };
  return { metadata, spec, ...(status === undefined ? {} : { status }) };
}

const metrics = createMetrics();
const log = pino({ level: 'silent' });

describe('the policy cache', () => {
  let clock: FakeClock;
  let sets: PolicySet[];
  let policies: PolicyCache;
  beforeEach(() => {
    clock = new FakeClock();
    sets = [];
    policies = new PolicyCache({ clock, metrics, log });
    policies.addEventHandler({ onPoliciesChanged: (set) => sets.push(set) });
  });

  function list(...objects: PolicyObject[]): void {
    policies.replaceBegin();
    for (const object of objects) policies.replaceItem(object);
    policies.replaceEnd();
  }
  const now = (): PolicySet => sets.at(-1) ?? expect.fail('no policy set');

  it('allows everything once it is known that there are no policies', () => {
    expect(policies.hasSynced).to.equal(false);
    list();
    expect(policies.hasSynced).to.equal(true);
    expect(now().hasPolicies).to.equal(false);
  });

  for (const [what, arrive] of [
    ['an empty list', () => list()],
    ['a kind that is not served', () => policies.onKindMissing()],
  ] as const) {
    it(`admits no peer after ${what} if a policy is required, until one exists, and again without it`, () => {
      policies = new PolicyCache({ requirePolicy: true, clock, metrics, log });
      policies.addEventHandler({ onPoliciesChanged: (set) => sets.push(set) });
      const authorizer = new Authorizer(clock);
      policies.addEventHandler(authorizer);
      const missing = async (): Promise<number | undefined> =>
        (await metrics.requiredPolicyMissing.get()).values[0]?.value;
      arrive();
      expect(now().hasPolicies, 'reporters are checked').to.equal(true);
      expect(now().grant(ANONYMOUS, RESPONDER)).to.equal(undefined);
      expect(authorizer.peerRejection(ANONYMOUS)).to.match(/no ReverseTunnelPolicy exists.*--require-policy/);
      policies.event('ADDED', policy('right', ALL));
      clock.advance(1000);
      expect(authorizer.peerRejection(ANONYMOUS)).to.equal(undefined);
      policies.event('DELETED', policy('right', ALL));
      clock.advance(1000);
      expect(authorizer.peerRejection(ANONYMOUS)).to.match(/--require-policy/);
      policies.event('ADDED', policy('wrong', WRONG));
      clock.advance(1000);
      expect(authorizer.peerRejection(ANONYMOUS), 'an invalid policy denies too').to.match(/admits/);
      return missing().then((value) => expect(value).to.equal(0));
    });
  }

  it('allows nothing with one invalid policy', () => {
    list(policy('wrong', WRONG));
    expect(now().hasPolicies).to.equal(true);
    expect(now().admits(ANONYMOUS)).to.equal(false);
    policies.event('ADDED', policy('right', ALL));
    clock.advance(1000);
    expect(now().admits(ANONYMOUS), 'enforces other policies next to an invalid one').to.equal(true);
  });

  it('removes policies only at a complete list', () => {
    list(policy('right', ALL));
    policies.replaceBegin();
    expect([...policies.list()]).to.have.length(1);
    list();
    expect(now().hasPolicies).to.equal(false);
  });

  it('reports many events as one change, and a status update as none', () => {
    list();
    for (let i = 0; i < 100; i += 1) policies.event('ADDED', policy(`p-${i}`, ALL));
    clock.advance(1000);
    expect(sets).to.have.length(2);
    const said = { observedGeneration: 1, rules: 1, conditions: [] };
    policies.event('MODIFIED', policy('p-0', ALL, 1, said));
    clock.advance(1000);
    expect(sets).to.have.length(2);
    policies.event('MODIFIED', policy('p-0', WRONG, 2, said));
    policies.event('DELETED', policy('p-1', ALL));
    clock.advance(1000);
    expect(sets).to.have.length(3);
    expect([...policies.list()].map(({ parsed }) => parsed.errors?.length ?? 0)).to.include(1);
  });

  it('parses a policy again that differs with the same generation, as after a restore of etcd', () => {
    list(policy('edge', ALL, 2));
    list(policy('edge', WRONG, 2));
    expect(now().admits(ANONYMOUS)).to.equal(false);
    policies.event('MODIFIED', policy('edge', ALL, 2));
    clock.advance(1000);
    expect(now().admits(ANONYMOUS)).to.equal(true);
  });

  it('treats a kind that is not served as no policies, unless there were some', () => {
    policies.onKindMissing();
    expect(now().hasPolicies).to.equal(false);
    list(policy('right', WRONG));
    policies.onKindMissing();
    expect(now().hasPolicies).to.equal(true);
  });
});

describe("a policy's status", () => {
  let clock: FakeClock;
  let writes: { name: string; resourceVersion: string; status: PolicyStatus }[];
  let known: PolicyObject[];
  let leads: boolean;
  let fails: boolean;
  let writer: PolicyStatusWriter;
  beforeEach(() => {
    clock = new FakeClock();
    writes = [];
    known = [];
    leads = true;
    fails = false;
    writer = new PolicyStatusWriter({
      policies: { list: () => known.map((object) => ({ object, parsed: parsePolicy(object.spec) })) },
      leader: {
        get isHeld() {
          return leads;
        },
      },
      api: {
        patchStatus(name, resourceVersion, status) {
          if (fails) return Promise.reject(new Error('no'));
          writes.push({ name, resourceVersion, status });
          return Promise.resolve();
        },
      },
      log,
      clock,
    });
    writer.start();
  });
  afterEach(() => writer.stop());

  it('is set to Accepted once', async () => {
    known = [policy('right', ALL)];
    await advanceTime(clock, 5000);
    expect(writes).to.have.length(1);
    const [{ status, resourceVersion } = expect.fail()] = writes;
    expect(resourceVersion).to.equal('10');
    expect(status).to.deep.equal({
      observedGeneration: 1,
      rules: 1,
      conditions: ['Accepted', 'Ready'].map((type) => ({
        type,
        status: 'True',
        reason: 'Accepted',
        message: '',
        lastTransitionTime: '2026-11-23T00:00:01Z',
        observedGeneration: 1,
      })),
    });
    // The watch returns it, and later a change that does not affect the status.
    known = [policy('right', ALL, 1, status)];
    await advanceTime(clock, 5000);
    expect(writes).to.have.length(1);
    known = [policy('right', ALL, 2, status)];
    await advanceTime(clock, 5000);
    expect(writes).to.have.length(2);
    expect(writes[1]?.status.conditions?.[0]).to.deep.include({
      lastTransitionTime: '2026-11-23T00:00:01Z',
      observedGeneration: 2,
    });
  });

  it('is written again if a policy is deleted and recreated, at any version', async () => {
    known = [policy('edge', ALL), policy('other', ALL)];
    await advanceTime(clock, 2000);
    known = [policy('other', ALL)];
    await advanceTime(clock, 2000);
    known = [policy('edge', ALL), policy('other', ALL)];
    await advanceTime(clock, 2000);
    expect(writes.map(({ name }) => name)).to.deep.equal(['edge', 'other', 'edge']);
  });

  it('explains errors in Accepted, in Ready and in Stalled, which kstatus treats as a failure', async () => {
    known = [policy('wrong', WRONG)];
    await advanceTime(clock, 2000);
    const condition = {
      reason: 'Invalid',
      message:
        'policy is not enforced: spec.rules[0].tenants[0]: "a*b" has a misplaced *: only * and prefix* are supported',
      lastTransitionTime: '2026-11-23T00:00:01Z',
      observedGeneration: 1,
    };
    expect(writes[0]?.status.conditions).to.deep.equal([
      { type: 'Accepted', status: 'False', ...condition },
      { type: 'Ready', status: 'False', ...condition },
      { type: 'Stalled', status: 'True', ...condition },
    ]);
    expect(writes[0]?.status.rules).to.equal(0);
  });

  it('is not stalled any longer once the error is fixed', async () => {
    known = [policy('edge', WRONG)];
    await advanceTime(clock, 2000);
    const rejected = writes[0]?.status ?? expect.fail();
    known = [policy('edge', ALL, 2, rejected)];
    await advanceTime(clock, 2000);
    const accepted = writes[1]?.status ?? expect.fail();
    expect(accepted.conditions?.map(({ type, status }) => `${type}=${status}`)).to.deep.equal([
      'Accepted=True',
      'Ready=True',
    ]);
    known = [policy('edge', ALL, 2, accepted)];
    await advanceTime(clock, 5000);
    expect(writes).to.have.length(2);
  });

  it('is written only by the leader, also if it becomes the leader later, and again after a failed write', async () => {
    known = [policy('right', ALL)];
    leads = false;
    await advanceTime(clock, 5000);
    expect(writes).to.deep.equal([]);
    leads = true;
    fails = true;
    await advanceTime(clock, 5000);
    fails = false;
    await advanceTime(clock, 2000);
    expect(writes).to.have.length(1);
  });
});

describe('grants', () => {
  let clock: FakeClock;
  let changed: string[];
  let reviews: number;
  let grants: Authorizer;
  beforeEach(() => {
    clock = new FakeClock();
    changed = [];
    reviews = 0;
    grants = new Authorizer(clock);
    grants.addEventHandler({
      onGrantChanged: (key) => changed.push(key),
      onReviewed: () => {
        reviews += 1;
      },
    });
  });
  const set = (spec: PolicySpec): PolicySet => createPolicySet(parsePolicy(spec).rules ?? []);
  const KEY = reporterKey(RESPONDER);

  it('change only for the affected reporters', () => {
    for (let i = 0; i < 1000; i += 1)
      grants.onStreamOpened({ cluster: 'edge', id: `r-${i}` }, i % 2 === 0 ? ANONYMOUS : EDGE);
    const edge = { serviceAccount: { namespace: 'edge', name: 'responder' } };
    const rule = { reporters: { ids: ['*'] }, tenants: ['*'] };
    grants.onPoliciesChanged(set({ rules: [{ ...rule, peers: [edge] }] }));
    clock.advance(1000);
    expect(changed).to.have.length(1000);
    expect(reviews).to.equal(1);
    expect(grants.grantFor(reporterKey({ cluster: 'edge', id: 'r-0' })).permits).not.to.equal(undefined);
    expect(grants.grantFor(reporterKey({ cluster: 'edge', id: 'r-1' })).permits).to.equal(undefined);
    changed.length = 0;
    grants.onPoliciesChanged(
      set({
        rules: [
          { ...rule, peers: [edge] },
          { ...rule, peers: [edge], tenants: ['acme'] },
        ],
      }),
    );
    clock.advance(1000);
    expect(changed, 'of the affected reporters').to.have.length(500);
  });

  it('equal the last policies if these change again meanwhile', () => {
    for (let i = 0; i < 1000; i += 1) grants.onStreamOpened({ cluster: 'edge', id: `r-${i}` }, ANONYMOUS);
    grants.onPoliciesChanged(set({}));
    grants.onPoliciesChanged(set(ALL));
    clock.advance(1000);
    for (let i = 0; i < 1000; i += 1)
      expect(grants.grantFor(reporterKey({ cluster: 'edge', id: `r-${i}` })).permits).to.equal(undefined);
  });

  it('belong to the peer of the newest stream', () => {
    grants.onPoliciesChanged(
      set({ rules: [{ ...ALL.rules?.[0], peers: [{ serviceAccount: { namespace: 'edge', name: '*' } }] }] }),
    );
    grants.onStreamOpened(RESPONDER, EDGE);
    expect(changed).to.deep.equal([]);
    grants.onStreamOpened(RESPONDER, ANONYMOUS);
    expect(changed).to.deep.equal([KEY]);
    expect(grants.grantFor(KEY).permits?.({ tenantID: 'acme', clusterID: 'eu' })).to.equal(false);
    grants.onReporterRemoved(KEY);
    expect(grants.grantFor(KEY), 'of an unknown reporter').to.equal(DENY_ALL);
  });

  it('limit the reporters of each peer to 10,000 until one of them is removed', () => {
    const reporter = (i: number): ReporterId => ({ cluster: 'edge', id: `r-${i}` });
    for (let i = 0; i < 10_000; i += 1) grants.onStreamOpened(reporter(i), EDGE);
    for (let i = 0; i < 10_000; i += 1) expect(grants.limitExceeded(reporter(i))).to.equal(undefined);
    grants.onStreamOpened(reporter(10_000), EDGE);
    const over = { limit: 'reportersPerPeer', count: 10_001, max: 10_000 };
    expect(grants.limitExceeded(reporter(10_000))).to.deep.equal(over);
    grants.onStreamOpened(RESPONDER, ANONYMOUS);
    expect(grants.limitExceeded(RESPONDER), 'of another peer').to.equal(undefined);
    grants.onStreamOpened(RESPONDER, EDGE);
    expect(grants.limitExceeded(RESPONDER), 'that it takes over').to.deep.equal({
      ...over,
      count: 10_002,
    });
    grants.onStreamOpened(reporter(7), EDGE);
    expect(grants.limitExceeded(reporter(7)), 'that was there before').to.equal(undefined);
    grants.onReporterRemoved(reporterKey(RESPONDER));
    grants.onReporterRemoved(reporterKey(reporter(7)));
    grants.onStreamOpened(reporter(10_000), EDGE);
    expect(grants.limitExceeded(reporter(10_000)), 'that comes again').to.equal(undefined);
    expect(grants.limitExceeded(RESPONDER), 'of an unknown reporter').to.equal(undefined);
  });

  it('throttle reports beyond their rate, also across a reconnect', () => {
    const rule = { ...ALL.rules?.[0], limits: { reportsPerSecond: 10, reportsBurst: 3 } };
    grants.onPoliciesChanged(set({ rules: [rule] }));
    grants.onStreamOpened(RESPONDER, ANONYMOUS);
    expect([1, 2, 3, 4].map(() => grants.throttleDelayMs(RESPONDER))).to.deep.equal([0, 0, 100, 200]);
    grants.onStreamOpened(RESPONDER, ANONYMOUS);
    expect(grants.throttleDelayMs(RESPONDER)).to.equal(300);
    for (let i = 0; i < 1000; i += 1) grants.onStreamOpened(RESPONDER, ANONYMOUS);
    for (let i = 0; i < 1000; i += 1) grants.throttleDelayMs(RESPONDER);
    expect(grants.throttleDelayMs(RESPONDER), 'less than the heartbeat timeout').to.equal(4100);
    clock.advance(10_000);
    expect(grants.throttleDelayMs(RESPONDER)).to.equal(0);
    expect(grants.throttleDelayMs({ cluster: '', id: 'other' })).to.equal(0);
  });

  it('return the delay of a new stream for previous reports, without using tokens', () => {
    const rule = { ...ALL.rules?.[0], limits: { reportsPerSecond: 10, reportsBurst: 3 } };
    grants.onPoliciesChanged(set({ rules: [rule] }));
    expect(grants.rateDebtMs(RESPONDER), 'of a reporter without reports').to.equal(0);
    grants.onStreamOpened(RESPONDER, ANONYMOUS);
    for (let i = 0; i < 5; i += 1) grants.throttleDelayMs(RESPONDER);
    grants.onStreamOpened(RESPONDER, ANONYMOUS);
    expect([1, 2].map(() => grants.rateDebtMs(RESPONDER))).to.deep.equal([300, 300]);
    clock.advance(299);
    expect(grants.rateDebtMs(RESPONDER)).to.equal(1);
    clock.advance(1);
    expect(grants.rateDebtMs(RESPONDER)).to.equal(0);
    for (let i = 0; i < 1000; i += 1) grants.throttleDelayMs(RESPONDER);
    expect(grants.rateDebtMs(RESPONDER)).to.equal(4100);
  });
});
