import { expect } from 'chai';
import type { Fleet } from '../../src/simulate/fleet.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { poll } from '../support/operator-process.ts';
import { createReplicas, unchanged, type Replicas, type RunningReplica } from '../support/replicas.ts';
import { tell } from '../support/tell.ts';
import { listRows, untilEqual, type RowSeen } from '../support/truth.ts';

const DEADLINE_MS = 120_000;

describe('three replicas behind a balancer', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;

  beforeEach(async () => {
    replicas = await createReplicas(controlPlane(), 'replicas');
  });
  afterEach(() => replicas.stop());

  async function startThree(flags: readonly string[] = []): Promise<void> {
    for (let i = 0; i < 3; i += 1) await replicas.start(flags);
  }

  const equal = (fleet: Fleet): Promise<RowSeen[]> =>
    untilEqual(fleet, controlPlane().request, replicas.namespace, DEADLINE_MS);
  const rows = (): Promise<RowSeen[]> => listRows(controlPlane().request, replicas.namespace);

  /** Row writes since there were so many writes. */
  async function rowWritesSince(count: number): Promise<Record<string, number>> {
    const counts = { create: 0, patch: 0, delete: 0, status: 0 };
    for (const { resource, verb } of (await replicas.writes()).slice(count)) {
      if (resource === 'reversetunnels/status') counts.status += 1;
      else if (resource === 'reversetunnels') counts[verb as 'create' | 'patch' | 'delete'] += 1;
    }
    return counts;
  }
  const NONE = { create: 0, patch: 0, delete: 0, status: 0 };

  it('kill -9 of the leader with its share of 100 reporters x 100 tunnels: served again, no row touched', async function () {
    this.timeout(4 * DEADLINE_MS);
    await startThree();
    const fleet = await replicas.startFleet({ reporters: 100, tunnels: 100 });
    const before = await equal(fleet);
    await replicas.served(100, DEADLINE_MS);
    const count = (await replicas.writes()).length;

    const killed = await replicas.led(30_000);
    const startMs = performance.now();
    await replicas.end(killed, 'SIGKILL');
    const leading = poll(60_000, async () => {
      const holder = await replicas.leader();
      return holder !== '' && holder !== killed.process.replica ? performance.now() - startMs : undefined;
    });
    await replicas.served(100, DEADLINE_MS);
    const servedMs = performance.now() - startMs;
    const leadingMs = await leading;
    tell(`served again after ${Math.round(servedMs)} ms, led again after ${Math.round(leadingMs)} ms`);
    expect(servedMs, 'until all are served').to.be.lessThan(10_000);
    expect(leadingMs, 'until another leads').to.be.lessThan(17_000);
    expect(await rowWritesSince(count)).to.deep.equal(NONE);
    expect(unchanged(before, await rows())).to.equal(10_000);

    // And what changes now is written, once.
    const [reporter] = fleet.reporters;
    reporter?.connectTunnel(fleet.newInitiator());
    reporter?.disconnectTunnel(String(reporter.truth().keys().next().value));
    await fleet.settled();
    await equal(fleet);
    expect(await rowWritesSince(count)).to.deep.equal({ ...NONE, create: 1, delete: 1 });
  });

  it('SIGTERM of the leader: another leads within 2 s', async function () {
    this.timeout(DEADLINE_MS);
    await startThree();
    const leader = await replicas.led(30_000);
    const startMs = performance.now();
    const ended = replicas.end(leader, 'SIGTERM');
    await poll(30_000, async () => {
      const holder = await replicas.leader();
      return holder !== '' && holder !== leader.process.replica ? true : undefined;
    });
    const leadingMs = performance.now() - startMs;
    tell(`led again after ${Math.round(leadingMs)} ms`);
    expect(leadingMs).to.be.lessThan(2000);
    await ended;
  });

  it('a reporter and its replica, the leader, killed together: rows are Unknown, then gone, at the stated times', async function () {
    this.timeout(2 * DEADLINE_MS);
    const flags = ['--unknown-after', '5s', '--expire-after', '20s'];
    await startThree(flags);
    const leader = await replicas.led(30_000);
    replicas.balancer.setTargets([leader.process.grpcAddress]);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 100 });
    await equal(fleet);
    await replicas.served(1, DEADLINE_MS);

    const startMs = performance.now();
    await Promise.all([fleet.stop(), replicas.end(leader, 'SIGKILL')]);
    const at = { firstUnknownMs: 0, allUnknownMs: 0, firstGoneMs: 0, goneMs: 0, objectGoneMs: 0 };
    await poll(90_000, async () => {
      const seen = await rows();
      const reporters = await replicas.reporters();
      const nowMs = Math.round(performance.now() - startMs);
      const unknown = seen.filter(({ status }) => status.state === 'Unknown').length;
      if (unknown > 0) at.firstUnknownMs ||= nowMs;
      if (unknown === 100) at.allUnknownMs ||= nowMs;
      if (seen.length < 100) at.firstGoneMs ||= nowMs;
      if (seen.length === 0) at.goneMs ||= nowMs;
      if (reporters.length === 0) at.objectGoneMs ||= nowMs;
      return at.goneMs > 0 && at.objectGoneMs > 0 ? true : undefined;
    });
    tell(JSON.stringify(at));
    // From the claim of the new owner on, which comes within 35 s of the death.
    expect(at.firstUnknownMs).to.be.greaterThan(5000);
    expect(at.allUnknownMs).to.be.lessThan(5000 + 35_000);
    expect(at.firstGoneMs).to.be.greaterThan(20_000);
    expect(at.firstGoneMs - at.firstUnknownMs, 'Unknown before gone').to.be.greaterThan(10_000);
    expect(at.goneMs).to.be.lessThan(20_000 + 35_000);
    expect(at.objectGoneMs).to.be.lessThan(20_000 + 40_000);
  });

  it('a replica stopped for 60 s and continued with half-open streams: it writes nothing that is not its own', async function () {
    this.timeout(3 * DEADLINE_MS);
    await startThree();
    const fleet = await replicas.startFleet({ reporters: 30, tunnels: 20, faultyLinks: true });
    await equal(fleet);
    await replicas.served(30, DEADLINE_MS);
    const [frozen] = replicas.running;
    if (frozen === undefined) throw new Error('three replicas were started');
    const owned = new Set(
      (await replicas.reporters())
        .filter(({ status }) => status.owner?.replica === frozen.process.replica)
        .map(({ spec }) => spec.id),
    );
    const moving = fleet.reporters.filter(({ id }) => owned.has(id.id));
    expect(moving.length, 'reporters of the replica that is stopped').to.be.greaterThan(3);

    frozen.process.signal('SIGSTOP');
    const stoppedMs = Date.now();
    replicas.takeOut(frozen);
    // What it will find unread: tunnels that go, and in truth come back elsewhere.
    const away = moving.map((reporter) => {
      const [first, second] = [...reporter.truth().values()];
      if (first === undefined || second === undefined) throw new Error('each has 20 tunnels');
      reporter.disconnectTunnel(first.name);
      reporter.disconnectTunnel(second.name);
      return { reporter, first };
    });
    await poll(10_000, () => (Date.now() - stoppedMs > 2500 ? true : undefined));
    for (const { reporter, first } of away) {
      reporter.abandonConnection();
      reporter.connectTunnel(first);
    }
    await fleet.settled();
    await equal(fleet);
    await poll(70_000, () => (Date.now() - stoppedMs > 60_000 ? true : undefined));

    const before = await rows();
    const writesBefore = (await replicas.writes()).length;
    const continuedMs = Date.now();
    frozen.process.signal('SIGCONT');
    await poll(60_000, () => (Date.now() - continuedMs > 50_000 ? true : undefined));

    const writes = await replicas.writes();
    const own = writes.filter(({ account, atMs }) => account === frozen.account && atMs > stoppedMs);
    const regained = own.find(({ resource, atMs }) => resource === 'leases' && atMs >= continuedMs);
    if (regained === undefined) throw new Error('it never held its Lease again');
    const early = own.filter(({ resource, atMs }) => resource !== 'leases' && atMs < regained.atMs);
    expect(early.filter(({ atMs }) => atMs > stoppedMs + 1000)).to.deep.equal([]);
    const rowWrites = writes
      .slice(writesBefore)
      .filter(({ resource }) => resource.startsWith('reversetunnels'));
    tell(
      `it found ${moving.length} half-open streams, and wrote: ${[...new Set(own.map(({ resource }) => resource))].join()}`,
    );
    expect(rowWrites, 'rows written by anybody since').to.deep.equal([]);
    expect(unchanged(before, await rows())).to.equal(before.length);
    await equal(fleet);
  });

  it('all three rolled out one by one with 10,000 live tunnels and churn: rows are the truth, none was replaced', async function () {
    this.timeout(5 * DEADLINE_MS);
    await startThree();
    const fleet = await replicas.startFleet({
      reporters: 100,
      tunnels: 100,
      churnPerSecond: 10,
      flapsPerSecond: 10,
    });
    fleet.pauseChurn();
    const before = await equal(fleet);
    await replicas.served(100, DEADLINE_MS);
    const stayed = identities(fleet);
    const { tunnelsRemoved } = fleet.statistics();
    const count = (await replicas.writes()).length;
    fleet.resumeChurn();
    for (const old of replicas.running.slice()) {
      await replicas.start();
      await replicas.end(old, 'SIGTERM');
      await replicas.served(100, DEADLINE_MS);
    }
    fleet.pauseChurn();
    await fleet.settled();
    const after = await equal(fleet);

    const now = identities(fleet);
    const byPlace = new Map(after.map((row) => [placeOf(row), row.metadata]));
    let untouched = 0;
    for (const { metadata, ...row } of before) {
      const place = placeOf(row);
      const identity = stayed.get(place);
      if (identity === undefined || now.get(place) !== identity) continue;
      untouched += 1;
      expect(byPlace.get(place)?.uid, `uid of ${place}`).to.equal(metadata.uid);
      expect(byPlace.get(place)?.resourceVersion, `version of ${place}`).to.equal(metadata.resourceVersion);
    }
    const written = await rowWritesSince(count);
    const removed = fleet.statistics().tunnelsRemoved - tunnelsRemoved;
    tell(
      `${untouched} tunnels unchanged, their rows too; ${removed} removed; writes ${JSON.stringify(written)}`,
    );
    expect(untouched).to.be.greaterThan(7000);
    // A tunnel that came and went again between two reports needs none; and none is deleted twice.
    expect(written['delete']).to.be.at.most(removed);
  });

  it('two fleets with one reporter id: said, bounded, and over when one of them goes', async function () {
    this.timeout(3 * DEADLINE_MS);
    await startThree();
    const mine = await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await equal(mine);
    const other = await replicas.startFleet({ reporters: 1, tunnels: 30 });
    const count = (await replicas.writes()).length;
    const startMs = performance.now();
    await poll(60_000, async () => {
      const [reporter] = await replicas.reporters();
      const conditions = reporter?.status.conditions ?? [];
      return conditions.some(({ type, status }) => type === 'IdentityConflict' && status === 'True')
        ? true
        : undefined;
    });
    await poll(100_000, () => (performance.now() - startMs > 45_000 ? true : undefined));
    const found = await Promise.all(
      replicas.running.map(({ process }) => process.metric('reverse_tunnel_identity_conflicts_total')),
    );
    const written = (await replicas.writes()).slice(count).filter(({ resource }) => resource !== 'leases');
    const ofReporter = written.filter(({ resource }) => resource.startsWith('reversetunnelreporters'));
    tell(`in 45 s: ${ofReporter.length} writes to the reporter, ${written.length} in all`);
    expect(found.some((times) => times > 0)).to.equal(true);
    expect(ofReporter.length).to.be.at.most(45);
    expect(written.length).to.be.at.most(350);
    const said = replicas.running.flatMap(({ process }) => process.log.map(({ msg }) => msg));
    expect(said.some((msg) => msg.includes('trade places'))).to.equal(true);
    await other.stop();
    await equal(mine);
  });
});

/** What each tunnel of a fleet is, by where its row says that it is. */
function identities(fleet: Fleet): Map<string, string> {
  const found = new Map<string, string>();
  for (const [{ cluster, id }, tunnels] of fleet.truth()) {
    for (const [name, tunnel] of tunnels)
      found.set(JSON.stringify([cluster, id, name]), JSON.stringify(tunnel));
  }
  return found;
}

function placeOf({ spec }: Pick<RowSeen, 'spec'>): string {
  return JSON.stringify([spec.reporter.cluster, spec.reporter.id, spec.tunnelName]);
}

describe('replicas that disagree on the time and on names', () => {
  const controlPlane = useControlPlane();
  const HOUR_MS = 3_600_000;
  const LEASES = '/apis/coordination.k8s.io/v1/namespaces';
  let replicas: Replicas;

  beforeEach(async () => {
    replicas = await createReplicas(controlPlane(), 'odd');
  });
  afterEach(() => replicas.stop());

  const rows = (): Promise<RowSeen[]> => listRows(controlPlane().request, replicas.namespace);

  async function editLease(name: string, spec: object): Promise<void> {
    const { code, stderr } = await controlPlane().kubectl([
      ...['-n', replicas.namespace, 'patch', 'lease', name, '--type=merge', '-p', JSON.stringify({ spec })],
    ]);
    expect(code, stderr).to.equal(0);
  }

  async function leaseOf(replica: RunningReplica): Promise<string> {
    const { body } = await controlPlane().request('GET', `${LEASES}/${replicas.namespace}/leases`);
    const { items } = body as { items: { metadata: { name: string }; spec: { holderIdentity?: string } }[] };
    const found = items.find(({ spec }) => spec.holderIdentity === replica.process.replica);
    if (found === undefined) throw new Error(`no Lease of ${replica.process.replica}`);
    return found.metadata.name;
  }

  it('one id for both, clocks two hours apart: each serves its own, and one inherits from the other', async function () {
    this.timeout(2 * DEADLINE_MS);
    const ahead = await replicas.start(['--replica-id', 'twin'], HOUR_MS);
    const behind = await replicas.start(['--replica-id', 'twin'], -HOUR_MS);
    expect(ahead.process.replica).not.to.equal(behind.process.replica);
    const fleet = await replicas.startFleet({ reporters: 10, tunnels: 20 });
    const before = await untilEqual(fleet, controlPlane().request, replicas.namespace, DEADLINE_MS);
    await replicas.served(10, DEADLINE_MS);
    const startMs = performance.now();
    await poll(60_000, () => (performance.now() - startMs > 25_000 ? true : undefined));
    const owners = new Set((await replicas.reporters()).map(({ status }) => status.owner?.replica));
    expect(owners.size, 'both serve, and neither holds the other for dead').to.equal(2);
    await replicas.end(ahead, 'SIGKILL');
    await replicas.served(10, DEADLINE_MS);
    expect(unchanged(before, await rows())).to.equal(200);
  });

  it('Leases edited and deleted by hand: one leads again within 17 s, and no row is touched', async function () {
    this.timeout(2 * DEADLINE_MS);
    const one = await replicas.start();
    const two = await replicas.start();
    const fleet = await replicas.startFleet({ reporters: 10, tunnels: 20 });
    const before = await untilEqual(fleet, controlPlane().request, replicas.namespace, DEADLINE_MS);
    await replicas.served(10, DEADLINE_MS);
    await replicas.led(30_000);
    const year = { leaseDurationSeconds: 31_536_000, renewTime: '2099-01-01T00:00:00.000000Z' };
    await editLease(await leaseOf(one), { holderIdentity: 'mallory', ...year });
    await controlPlane().kubectl(['-n', replicas.namespace, 'delete', 'lease', await leaseOf(two)]);
    await editLease('reverse-tunnel-operator-leader', { holderIdentity: 'mallory', ...year });
    const startMs = performance.now();
    await poll(60_000, async () => ((await replicas.leader()).startsWith('replica-') ? true : undefined));
    const leadingMs = performance.now() - startMs;
    tell(`led again after ${Math.round(leadingMs)} ms`);
    expect(leadingMs).to.be.lessThan(17_000);
    await leaseOf(one);
    await leaseOf(two);
    fleet.reporters[0]?.connectTunnel(fleet.newInitiator());
    await fleet.settled();
    await untilEqual(fleet, controlPlane().request, replicas.namespace, DEADLINE_MS);
    expect(unchanged(before, await rows())).to.equal(200);
  });
});
