/**
 * Verifies that no object has a tenant that its peer may not report, and that every allowed tunnel has an object, for any
 * order of reports, policy changes, reconnects of other peers and restarts. The meaning of each pattern is listed explicitly.
 */
import { expect } from 'chai';
import * as fc from 'fast-check';
import { ANONYMOUS, type Peer } from '../../src/core/peer.ts';
import { parsePolicy } from '../../src/core/policy.ts';
import type { PeerSpec, RuleSpec } from '../../src/core/policy-object.ts';
import { ALLOW_ALL_POLICIES, createPolicySet, type PolicySet } from '../../src/core/policy-set.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../../src/core/tunnel.ts';
import { MemoryTunnelApi } from '../support/memory-api.ts';
import { createHarness } from '../support/controller-harness.ts';
import { assertHolds, PROPERTY_TIMEOUT_MS } from '../support/property-runs.ts';
import { delta, fullPush, tunnel } from '../support/sample-tunnels.ts';

/** A pattern, and the indexes of the entries that it matches. */
interface Meaning<P> {
  readonly pattern: P;
  readonly means: readonly number[];
}

const PEERS: readonly Peer[] = [
  ANONYMOUS,
  { kind: 'certificate', uris: ['spiffe://example.org/ns/edge/sa/responder'], dnsNames: ['r.example.org'] },
  { kind: 'certificate', uris: ['spiffe://example.org/ns/core/sa/responder'], dnsNames: [] },
  // Two URIs, so there is no SPIFFE ID.
  {
    kind: 'certificate',
    uris: ['spiffe://example.org/ns/edge/sa/responder', 'urn:x'],
    dnsNames: ['s.example.org'],
  },
  { kind: 'token', namespace: 'edge', serviceAccount: 'responder' },
];
const PEER_PATTERNS: readonly Meaning<PeerSpec>[] = [
  { pattern: { any: true }, means: [0, 1, 2, 3, 4] },
  { pattern: { spiffeID: 'spiffe://example.org/ns/edge/sa/responder' }, means: [1] },
  { pattern: { spiffeID: 'spiffe://example.org/ns/*/sa/responder' }, means: [1, 2] },
  { pattern: { spiffeID: 'spiffe://example.org/ns/core/**' }, means: [2] },
  { pattern: { dnsName: '*.example.org' }, means: [1, 3] },
  { pattern: { dnsName: 'r.example.org' }, means: [1] },
  { pattern: { serviceAccount: { namespace: 'edge', name: '*' } }, means: [4] },
  { pattern: { serviceAccount: { namespace: 'core', name: 'responder' } }, means: [] },
];
const REPORTERS: readonly ReporterId[] = [
  { cluster: 'edge', id: 'responder-0' },
  { cluster: 'edge', id: 'responder-1' },
  { cluster: '', id: 'other' },
];
const REPORTER_PATTERNS: readonly Meaning<{ ids: string[]; clusters?: string[] }>[] = [
  { pattern: { ids: ['*'] }, means: [0, 1, 2] },
  { pattern: { ids: ['responder-0'] }, means: [0] },
  { pattern: { ids: ['responder-*', 'unknown'] }, means: [0, 1] },
  { pattern: { ids: ['*'], clusters: [''] }, means: [2] },
  { pattern: { ids: ['responder-1', 'other'], clusters: ['ed*', 'other'] }, means: [1] },
];
const TENANTS = ['acme', 'acme-2', 'globex', '*'];
const TENANT_PATTERNS: readonly Meaning<string[]>[] = [
  { pattern: ['*'], means: [0, 1, 2, 3] },
  { pattern: ['acme'], means: [0] },
  { pattern: ['acme*'], means: [0, 1] },
  { pattern: ['globex', 'initech'], means: [2] },
  { pattern: ['acme-2', 'glob*'], means: [1, 2] },
];
/** Without the prefix of the tenant `globex`, the last one equals the first. */
const CLUSTERS = ['eu-1', 'us-1', 'globex:eu-1'];
const CLUSTER_PATTERNS: readonly Meaning<string[] | undefined>[] = [
  { pattern: undefined, means: [0, 1, 2] },
  { pattern: ['eu-1'], means: [0] },
  { pattern: ['us-*'], means: [1] },
];

interface RuleMeaning {
  readonly spec: RuleSpec;
  readonly peers: readonly number[];
  readonly reporters: readonly number[];
  readonly tenants: readonly number[];
  readonly clusters: readonly number[];
}

/** Undefined for an invalid policy. */
type Policy = readonly RuleMeaning[] | undefined;

type Step =
  | { readonly do: 'policies'; readonly policies: readonly Policy[] }
  | {
      readonly do: 'full';
      readonly peer: number;
      readonly reporter: number;
      readonly tunnels: Tunnel[];
    }
  | {
      readonly do: 'add';
      readonly peer: number;
      readonly reporter: number;
      readonly tunnels: Tunnel[];
    }
  | { readonly do: 'remove'; readonly peer: number; readonly reporter: number; readonly names: string[] }
  | { readonly do: 'disconnect'; readonly reporter: number }
  | { readonly do: 'write' | 'settle' | 'restart' };

const NAMES = ['n-0', 'n-1', 'n-2', 'n-3'];

const rule: fc.Arbitrary<RuleMeaning> = fc
  .tuple(
    fc.array(fc.constantFrom(...PEER_PATTERNS), { minLength: 1, maxLength: 2 }),
    fc.constantFrom(...REPORTER_PATTERNS),
    fc.constantFrom(...TENANT_PATTERNS),
    fc.constantFrom(...CLUSTER_PATTERNS),
  )
  .map(([peers, reporters, tenants, clusters]) => ({
    spec: {
      peers: peers.map(({ pattern }) => pattern),
      reporters: reporters.pattern,
      tenants: tenants.pattern,
      ...(clusters.pattern === undefined ? {} : { clusters: clusters.pattern }),
    },
    peers: peers.flatMap(({ means }) => means),
    reporters: reporters.means,
    tenants: tenants.means,
    clusters: clusters.means,
  }));
const policy: fc.Arbitrary<Policy> = fc.oneof(
  { weight: 8, arbitrary: fc.array(rule, { maxLength: 3 }) },
  { weight: 1, arbitrary: fc.constant(undefined) },
);
const policies = fc.array(policy, { maxLength: 3 });
const anyTunnel = fc
  .record({
    name: fc.constantFrom(...NAMES),
    tenantID: fc.constantFrom(...TENANTS),
    clusterID: fc.constantFrom(...CLUSTERS),
  })
  .map(({ name, ...parts }) => tunnel(name, parts));
/** Mostly a frequent one, so that something is allowed. */
const stream = {
  peer: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, { weight: 2, arbitrary: fc.nat({ max: 4 }) }),
  reporter: fc.nat({ max: REPORTERS.length - 1 }),
};
const tunnels = fc.uniqueArray(anyTunnel, { maxLength: 4, selector: ({ name }) => name });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('policies' as const), policies }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('full' as const), ...stream, tunnels }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('add' as const), ...stream, tunnels }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('remove' as const), ...stream, names: fc.subarray(NAMES) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('disconnect' as const), reporter: stream.reporter }) },
  { weight: 3, arbitrary: fc.constantFrom<Step>({ do: 'write' }, { do: 'settle' }) },
  { weight: 1, arbitrary: fc.constant<Step>({ do: 'restart' }) },
);

/** Counts what the runs covered, so that the test fails if it covers too little. */
const seen = {
  ...{ checks: 0, rows: 0, keptOut: 0, dropped: 0, keptFromAnother: 0 },
  ...{ refusedStreams: 0, endedStreams: 0, restarts: 0, changes: 0 },
};

/** The reports of each reporter and their peers, by the index in `REPORTERS`. */
interface Held {
  peer: number;
  tunnels: Map<string, Tunnel>;
  connected: boolean;
  /** False if there was no report since the last start, so its objects are unchanged. */
  heard: boolean;
}

async function play(steps: readonly Step[]): Promise<void> {
  const api = new MemoryTunnelApi();
  const held = new Map<number, Held>();
  let inForce: readonly Policy[] = [];
  let world = createHarness({ api });
  await world.start();

  function set(): PolicySet {
    if (inForce.length === 0) return ALLOW_ALL_POLICIES;
    const wrong: RuleSpec = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*', 'a*b'] };
    return createPolicySet(
      inForce.flatMap((one) => {
        const rules = one?.map(({ spec }) => spec) ?? [wrong];
        return parsePolicy({ rules }).rules ?? [];
      }),
    );
  }

  function rulesFor(peer: number, reporter: number): RuleMeaning[] {
    return inForce
      .flatMap((one) => one ?? [])
      .filter((one) => one.peers.includes(peer) && one.reporters.includes(reporter));
  }
  const mayReport = (peer: number, reporter: number): boolean =>
    inForce.length === 0 || rulesFor(peer, reporter).length > 0;

  function isAllowed(peer: number, reporter: number, { tenantID, clusterID }: Tunnel): boolean {
    if (inForce.length === 0) return true;
    const own = tenantID === 'globex' && clusterID === 'globex:eu-1' ? 'eu-1' : clusterID;
    const [tenant, cluster] = [TENANTS.indexOf(tenantID), CLUSTERS.indexOf(own)];
    return rulesFor(peer, reporter).some(
      (one) => one.tenants.includes(tenant) && one.clusters.includes(cluster),
    );
  }

  /** Another peer gets the reporter only if it may report everything that the previous peer may. */
  function expectFairRefusal(
    former: number,
    { peer, reporter }: { peer: number; reporter: number },
    refusal: string | undefined,
  ): void {
    const places = (of: number): string[] =>
      rulesFor(of, reporter).flatMap((one) =>
        one.tenants.flatMap((tenant) => one.clusters.map((cluster) => `${tenant} ${cluster}`)),
      );
    if (refusal === undefined) expect(places(peer)).to.include.members(places(former));
    else expect(rulesFor(peer, reporter)).not.to.include.members(rulesFor(former, reporter));
  }

  /** Sends a report on the stream of the reporter, or on a new one. */
  function report(one: Extract<Step, { peer: number }>): void {
    const reporter = REPORTERS[one.reporter] ?? expect.fail();
    const peer = PEERS[one.peer] ?? expect.fail();
    const may = mayReport(one.peer, one.reporter);
    const refusal =
      world.authorizer.peerRejection(peer) ?? world.authorizer.reporterRejection(peer, reporter)?.message;
    const before = held.get(one.reporter);
    const isAnothers = may && before?.heard === true && before.peer !== one.peer && inForce.length > 0;
    if (isAnothers) expectFairRefusal(before.peer, one, refusal);
    else expect(refusal === undefined, refusal).to.equal(may);
    if (refusal !== undefined) {
      if (isAnothers) seen.keptFromAnother += 1;
      else seen.refusedStreams += 1;
      return;
    }
    const after = one.do === 'full' ? new Map<string, Tunnel>() : new Map(before?.tunnels);
    // Tunnels that another peer reported without permission do not count for this one.
    if (before?.heard === true && before.peer !== one.peer)
      for (const [name, each] of after)
        if (!isAllowed(before.peer, one.reporter, each)) {
          after.delete(name);
          seen.dropped += 1;
        }
    if (one.do === 'remove') for (const name of one.names) after.delete(name);
    else for (const each of one.tunnels) after.set(each.name, each);
    held.set(one.reporter, { peer: one.peer, tunnels: after, connected: true, heard: true });
    if (one.do === 'full') world.report(reporter, fullPush(...one.tunnels), peer);
    else if (one.do === 'add') world.report(reporter, delta(one.tunnels), peer);
    else world.report(reporter, delta([], one.names), peer);
  }

  /** Applies changed policies like the server: updates the grants and reauthorizes the streams. */
  async function change(): Promise<void> {
    seen.changes += 1;
    world.authorizer.onPoliciesChanged(set());
    for (const [place, one] of held) {
      const reporter = REPORTERS[place] ?? expect.fail();
      if (!one.connected || mayReport(one.peer, place)) continue;
      world.intake.reporterDisconnected(reporter, 'PolicyDenied');
      one.connected = false;
      seen.endedStreams += 1;
    }
  }

  async function check(): Promise<void> {
    // The reporters are updated in batches, each with a timer.
    await world.advance(10);
    await world.settle();
    const wanted: string[] = [];
    for (const [place, one] of held) {
      for (const each of one.tunnels.values()) {
        if (!one.heard || isAllowed(one.peer, place, each)) wanted.push(text(place, each));
        else seen.keptOut += 1;
      }
    }
    const rows = rowsOf(api);
    expect(rows.map(([place, each]) => text(place, each)).toSorted()).to.deep.equal(wanted.toSorted());
    for (const [place, one] of held) {
      if (!one.heard) continue;
      const outside = [...one.tunnels.values()].filter((each) => !isAllowed(one.peer, place, each)).length;
      expect(world.ledger.deniedCount(reporterKey(REPORTERS[place] ?? expect.fail()))).to.equal(outside);
    }
    seen.checks += 1;
    seen.rows += rows.length;
  }

  async function restart(): Promise<void> {
    await check();
    world.workers.stop();
    held.clear();
    for (const [place, each] of rowsOf(api)) {
      const one = held.get(place) ?? { peer: 0, tunnels: new Map(), connected: false, heard: false };
      one.tunnels.set(each.name, each);
      held.set(place, one);
    }
    world = createHarness({ api });
    world.authorizer.onPoliciesChanged(set());
    await world.start();
    seen.restarts += 1;
  }

  for (const next of steps) {
    switch (next.do) {
      case 'policies':
        inForce = next.policies;
        await change();
        break;
      case 'full':
      case 'add':
      case 'remove':
        report(next);
        break;
      case 'disconnect': {
        const one = held.get(next.reporter);
        if (one?.connected !== true) break;
        one.connected = false;
        world.intake.reporterDisconnected(REPORTERS[next.reporter] ?? expect.fail(), 'StreamEnded');
        break;
      }
      case 'write':
        await world.advanceUnwatched(0);
        break;
      case 'settle':
        await check();
        break;
      case 'restart':
        await restart();
    }
  }
  await check();
  world.workers.stop();
}

function rowsOf(api: MemoryTunnelApi): [place: number, tunnel: Tunnel][] {
  return [...api.stored.values()].map(({ spec }) => {
    const { tunnelName: name, tenantID, clusterID, nodeID, createdAt } = spec;
    const place = REPORTERS.findIndex(
      ({ cluster, id }) => cluster === spec.reporter.cluster && id === spec.reporter.id,
    );
    return [place, { name, tenantID, clusterID, nodeID, createdAt }];
  });
}

function text(place: number, { name, tenantID, clusterID, nodeID }: Tunnel): string {
  return JSON.stringify([place, name, tenantID, clusterID, nodeID]);
}

describe('objects and policies', () => {
  it('there is an object for each allowed tunnel, and no other, after any order of reports, policy changes, other peers and restarts', async function () {
    this.timeout(PROPERTY_TIMEOUT_MS);
    const property = fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 24 }), play);
    const runs = await assertHolds(property, { runs: 1000, file: 'test/unit/policy-enforcement.test.ts' });
    if (runs >= 1000)
      for (const [what, times] of Object.entries(seen)) expect(times, what).to.be.greaterThan(20);
    if (process.env['FC_RUNS'] !== undefined)
      process.stdout.write(`      ${runs} runs: ${JSON.stringify(seen)}\n`);
  });
});
