import { expect } from 'chai';
import { useControlPlane } from '../support/control-plane.ts';
import { poll } from '../support/operator-process.ts';
import {
  conditionText,
  createReplicas,
  countUnchanged,
  type Replicas,
  type RunningReplica,
} from '../support/replicas.ts';
import { concurrent } from '../support/concurrent.ts';
import { listTunnelObjects, waitForMatch } from '../support/expected-objects.ts';

const DEADLINE_MS = 120_000;
const HOUR_MS = 3_600_000;
const LEASES = '/apis/coordination.k8s.io/v1/namespaces';
/** A Lease of another holder that never expires. */
const FOREIGN_LEASE = {
  holderIdentity: 'another-holder',
  leaseDurationSeconds: 31_536_000,
  renewTime: '2099-01-01T00:00:00.000000Z',
};

/** Each scenario waits for a minute or two and needs little CPU, so they run concurrently. */
describe('scenarios that last minutes', () => {
  const controlPlane = useControlPlane();
  const it = concurrent({
    timeoutMs: 5 * DEADLINE_MS,
    open: async () => createFixture(await createReplicas(controlPlane(), 'minutes')),
    close: ({ replicas }) => replicas.stop(),
  });

  function createFixture(replicas: Replicas) {
    const { request } = controlPlane();
    const { namespace } = replicas;
    const kubectl = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await controlPlane().kubectl(['-n', namespace, ...args]);
      expect(code, stderr).to.equal(0);
    };
    return {
      replicas,
      kubectl,
      listObjects: () => listTunnelObjects(request, namespace),
      waitForObjects: (fleet: Parameters<typeof waitForMatch>[0]) =>
        waitForMatch(fleet, request, namespace, DEADLINE_MS),
      startThree: async (flags: readonly string[] = []): Promise<void> => {
        for (let i = 0; i < 3; i += 1) await replicas.start(flags);
      },
      editLease: (name: string, spec: object): Promise<void> =>
        kubectl('patch', 'lease', name, '--type=merge', '-p', JSON.stringify({ spec })),
      /** Returns the name of a replica's Lease once it holds one. */
      leaseOf: (replica: RunningReplica): Promise<string> =>
        poll(60_000, async () => {
          const { body } = await request('GET', `${LEASES}/${namespace}/leases`);
          const { items } = body as {
            items: { metadata: { name: string }; spec: { holderIdentity?: string } }[];
          };
          return items.find(
            ({ metadata, spec }) =>
              metadata.name !== 'reverse-tunnel-operator-leader' &&
              spec.holderIdentity === replica.process.replica,
          )?.metadata.name;
        }),
    };
  }

  it('objects become Unknown and expire, not before the configured times, after a reporter and the leader that owns it are killed', async (fixture, report) => {
    const { replicas, startThree, waitForObjects, listObjects } = fixture;
    const flags = ['--unknown-after', '5s', '--expire-after', '20s'];
    await startThree(flags);
    const leader = await replicas.waitForLeader(60_000);
    replicas.balancer.setTargets(leader.process.grpcAddress);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 100 });
    await waitForObjects(fleet);
    await replicas.waitUntilServed(1, DEADLINE_MS);

    const startMs = performance.now();
    await Promise.all([fleet.stop(), replicas.end(leader, 'SIGKILL')]);
    const at = { firstUnknownMs: 0, allUnknownMs: 0, firstGoneMs: 0, goneMs: 0, objectGoneMs: 0 };
    await poll(2 * DEADLINE_MS, async () => {
      const seen = await listObjects();
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
    report(JSON.stringify(at));
    // Measured from the new owner's claim, which follows within 35 s of the death if the replicas get enough CPU.
    expect(at.firstUnknownMs).to.be.greaterThan(5000);
    expect(at.allUnknownMs, 'all of them Unknown').to.be.greaterThan(5000);
    expect(at.firstGoneMs).to.be.greaterThan(20_000);
    expect(at.firstGoneMs - at.firstUnknownMs, 'Unknown before deleted').to.be.greaterThan(5000);
  });

  it('a replica that was stopped for 60 s, with half-open streams, writes nothing that it does not own', async (fixture, report) => {
    const { replicas, startThree, waitForObjects, listObjects } = fixture;
    await startThree();
    const fleet = await replicas.startFleet({ reporters: 30, tunnels: 20, faultyLinks: true });
    await waitForObjects(fleet);
    await replicas.waitUntilServed(30, DEADLINE_MS);
    const [frozen] = replicas.running;
    if (frozen === undefined) throw new Error('three replicas were started');
    const owned = new Set(
      (await replicas.reporters())
        .filter(({ status }) => status.owner?.replica === frozen.process.replica)
        .map(({ spec }) => spec.id),
    );
    const moving = fleet.reporters.filter(({ id }) => owned.has(id.id));
    expect(moving.length, 'reporters of the stopped replica').to.be.greaterThan(3);

    frozen.process.signal('SIGSTOP');
    const stoppedMs = Date.now();
    replicas.removeFromBalancer(frozen);
    // The stopped replica will read from its buffers that tunnels have ended which have in fact been reconnected
    // elsewhere.
    const away = moving.map((reporter) => {
      const [first, second] = [...reporter.expectedTunnels().values()];
      if (first === undefined || second === undefined) throw new Error('each has 20 tunnels');
      reporter.disconnectTunnel(first.name);
      reporter.disconnectTunnel(second.name);
      return { reporter, first };
    });
    await poll(10_000, () => (Date.now() - stoppedMs > 2500 ? true : undefined));
    for (const { reporter, first } of away) {
      reporter.halfOpenConnection();
      reporter.connectTunnel(first);
    }
    await fleet.settled();
    await waitForObjects(fleet);
    await poll(70_000, () => (Date.now() - stoppedMs > 60_000 ? true : undefined));

    const before = await listObjects();
    const writesBefore = (await replicas.writes()).length;
    const continuedMs = Date.now();
    frozen.process.signal('SIGCONT');
    await poll(60_000, () => (Date.now() - continuedMs > 50_000 ? true : undefined));

    const writes = await replicas.writes();
    const own = writes.filter(({ account, atMs }) => account === frozen.account && atMs > stoppedMs);
    const regained = own.find(({ resource, atMs }) => resource === 'leases' && atMs >= continuedMs);
    if (regained === undefined) throw new Error('the replica did not reacquire its Lease');
    // Writes that it sent before it was stopped may have arrived afterwards, but not a minute later.
    const early = own.filter(
      ({ resource, atMs }) => resource !== 'leases' && atMs >= continuedMs && atMs < regained.atMs,
    );
    expect(early).to.deep.equal([]);
    const rowWrites = writes
      .slice(writesBefore)
      .filter(({ resource }) => resource.startsWith('reversetunnels'));
    report(
      `it had ${moving.length} half-open streams and wrote: ${[...new Set(own.map(({ resource }) => resource))].join()}`,
    );
    expect(rowWrites, 'object writes by any replica writesSince then').to.deep.equal([]);
    expect(countUnchanged(before, await listObjects())).to.equal(before.length);
    await waitForObjects(fleet);
  });

  it('two fleets with the same reporter ID are reported and cause a bounded number of writes until one of them ends', async (fixture, report) => {
    const { replicas, startThree, waitForObjects } = fixture;
    await startThree();
    const mine = await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await waitForObjects(mine);
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
    const conflicts = await Promise.all(
      replicas.running.map(({ process }) => process.metric('reverse_tunnel_identity_conflicts_total')),
    );
    const passedS = (performance.now() - startMs) / 1000;
    const written = (await replicas.writes()).slice(count).filter(({ resource }) => resource !== 'leases');
    const ofReporter = written.filter(({ resource }) => resource.startsWith('reversetunnelreporters'));
    report(
      `in ${Math.round(passedS)} s: ${ofReporter.length} writes to the reporter object, ${written.length} in total`,
    );
    expect(conflicts.some((times) => times > 0)).to.equal(true);
    expect(ofReporter.length / passedS, 'writes per second').to.be.at.most(1);
    expect(written.length / passedS, 'total writes per second').to.be.at.most(8);
    const messages = replicas.running.flatMap(({ process }) => process.log.map(({ msg }) => msg));
    expect(messages.some((msg) => msg.includes('keep superseding each other'))).to.equal(true);
    await other.stop();
    await waitForObjects(mine);
  });

  it('two replicas with one ID and clocks two hours apart both serve, and one takes over from the other', async (fixture) => {
    const { replicas, waitForObjects, listObjects } = fixture;
    const ahead = await replicas.start(['--replica-id', 'twin'], HOUR_MS);
    const behind = await replicas.start(['--replica-id', 'twin'], -HOUR_MS);
    expect(ahead.process.replica).not.to.equal(behind.process.replica);
    const fleet = await replicas.startFleet({ reporters: 10, tunnels: 20 });
    const before = await waitForObjects(fleet);
    await replicas.waitUntilServed(10, DEADLINE_MS);
    const startMs = performance.now();
    await poll(60_000, () => (performance.now() - startMs > 25_000 ? true : undefined));
    const owners = new Set((await replicas.reporters()).map(({ status }) => status.owner?.replica));
    expect(owners.size, 'both serve, and neither considers the other expired').to.equal(2);
    await replicas.end(ahead, 'SIGKILL');
    await replicas.waitUntilServed(10, DEADLINE_MS);
    expect(countUnchanged(before, await listObjects())).to.equal(200);
  });

  it('edited and deleted Leases are reacquired without an object write', async (fixture, report) => {
    const { replicas, waitForObjects, listObjects, kubectl, leaseOf, editLease } = fixture;
    const one = await replicas.start();
    const two = await replicas.start();
    const fleet = await replicas.startFleet({ reporters: 10, tunnels: 20 });
    const before = await waitForObjects(fleet);
    await replicas.waitUntilServed(10, DEADLINE_MS);
    await replicas.waitForLeader(60_000);
    await editLease(await leaseOf(one), FOREIGN_LEASE);
    await kubectl('delete', 'lease', await leaseOf(two));
    await editLease('reverse-tunnel-operator-leader', FOREIGN_LEASE);
    const startMs = performance.now();
    await replicas.waitForLeader(60_000);
    report(`new leader after ${Math.round(performance.now() - startMs)} ms`);
    await leaseOf(one);
    await leaseOf(two);
    fleet.reporters[0]?.connectTunnel(fleet.newInitiator());
    await fleet.settled();
    await waitForObjects(fleet);
    expect(countUnchanged(before, await listObjects())).to.equal(200);
  });

  it('objects of a disconnected reporter are deleted about a minute after its reporter object was deleted manually', async (fixture, report) => {
    const { replicas, listObjects, kubectl } = fixture;
    await replicas.start();
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await replicas.waitUntilServed(1, DEADLINE_MS);
    await fleet.stop();
    const lost = await poll(DEADLINE_MS, async () =>
      (await replicas.reporters()).find(({ status }) =>
        conditionText(status, 'Connected').startsWith('False'),
      ),
    );
    await kubectl('delete', 'rtr', lost.metadata.name);
    const startMs = performance.now();
    await poll(2 * DEADLINE_MS, async () =>
      (await listObjects()).length === 0 && (await replicas.reporters()).length === 0 ? true : undefined,
    );
    const passedMs = performance.now() - startMs;
    report(`gone after ${Math.round(passedMs / 1000)} s`);
    expect(passedMs).to.be.greaterThan(40_000);
  });
});
