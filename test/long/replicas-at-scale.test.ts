import { expect } from 'chai';
import type { Fleet } from '../../src/simulate/fleet.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { createReplicas, countUnchanged, type Replicas } from '../support/replicas.ts';
import { reportMeasurement } from '../support/report-measurement.ts';
import { listTunnelObjects, waitForMatch, type ObservedTunnelObject } from '../support/expected-objects.ts';

const DEADLINE_MS = 300_000;

/** One fleet, because the creation of its objects takes most of the time. The second test continues from the first. */
describe('three replicas with 10,000 tunnels', () => {
  const controlPlane = useControlPlane();
  let replicas: Replicas;
  let fleet: Fleet;

  before('starts three replicas and 100 reporters with 100 tunnels each', async function () {
    this.timeout(4 * DEADLINE_MS);
    replicas = await createReplicas(controlPlane(), 'replicas');
    for (let i = 0; i < 3; i += 1) await replicas.start();
    fleet = await replicas.startFleet({
      reporters: 100,
      tunnels: 100,
      churnPerSecond: 10,
      flapsPerSecond: 10,
    });
    fleet.pauseChurn();
    await waitForObjects();
    await replicas.waitUntilServed(100, DEADLINE_MS);
  });
  after(() => replicas.stop());

  const waitForObjects = (): Promise<ObservedTunnelObject[]> =>
    waitForMatch(fleet, controlPlane().request, replicas.namespace, DEADLINE_MS);
  const listObjects = (): Promise<ObservedTunnelObject[]> =>
    listTunnelObjects(controlPlane().request, replicas.namespace);

  /** Counts the object writes after the first `count` writes. */
  async function objectWritesSince(count: number): Promise<Record<string, number>> {
    const counts = { create: 0, patch: 0, delete: 0, status: 0 };
    for (const { resource, verb } of (await replicas.writes()).slice(count)) {
      if (resource === 'reversetunnels/status') counts.status += 1;
      else if (resource === 'reversetunnels') counts[verb as 'create' | 'patch' | 'delete'] += 1;
    }
    return counts;
  }
  const NONE = { create: 0, patch: 0, delete: 0, status: 0 };

  it('serves 100 reporters x 100 tunnels again after kill -9 of the leader, without an object write', async function () {
    this.timeout(4 * DEADLINE_MS);
    const before = await waitForObjects();
    const count = (await replicas.writes()).length;

    const killed = await replicas.waitForLeader(60_000);
    const startMs = performance.now();
    await replicas.end(killed, 'SIGKILL');
    const passedMs = (): number => Math.round(performance.now() - startMs);
    const [servedMs, leadingMs] = await Promise.all([
      replicas.waitUntilServed(100, DEADLINE_MS).then(passedMs),
      replicas.waitForLeader(60_000).then(passedMs),
    ]);
    reportMeasurement(`served again after ${servedMs} ms, new leader after ${leadingMs} ms`);
    // Only a leader takes over reporters, so they were served by reconnecting.
    expect(servedMs).to.be.lessThan(leadingMs);
    expect(await objectWritesSince(count)).to.deep.equal(NONE);
    expect(countUnchanged(before, await listObjects())).to.equal(before.length);

    // Later changes are written exactly once.
    const [reporter] = fleet.reporters;
    reporter?.connectTunnel(fleet.newInitiator());
    reporter?.disconnectTunnel(String(reporter.expectedTunnels().keys().next().value));
    await fleet.settled();
    await waitForObjects();
    expect(await objectWritesSince(count)).to.deep.equal({ ...NONE, create: 1, delete: 1 });
  });

  it('survives a rolling restart with 10,000 tunnels under churn without replacing an object', async function () {
    this.timeout(5 * DEADLINE_MS);
    // In place of the one that was killed.
    await replicas.start();
    const before = await waitForObjects();
    await replicas.waitUntilServed(100, DEADLINE_MS);
    const identitiesBefore = identities(fleet);
    const { tunnelsRemoved } = fleet.statistics();
    const count = (await replicas.writes()).length;
    fleet.resumeChurn();
    for (const old of replicas.running.slice()) {
      await replicas.start();
      await replicas.end(old, 'SIGTERM');
      await replicas.waitUntilServed(100, DEADLINE_MS);
    }
    fleet.pauseChurn();
    await fleet.settled();
    const after = await waitForObjects();

    const now = identities(fleet);
    const byKey = new Map(after.map((object) => [keyOf(object), object.metadata]));
    let untouched = 0;
    for (const { metadata, ...object } of before) {
      const key = keyOf(object);
      const identity = identitiesBefore.get(key);
      if (identity === undefined || now.get(key) !== identity) continue;
      untouched += 1;
      expect(byKey.get(key)?.uid, `UID of ${key}`).to.equal(metadata.uid);
      expect(byKey.get(key)?.resourceVersion, `version of ${key}`).to.equal(metadata.resourceVersion);
    }
    const written = await objectWritesSince(count);
    const removed = fleet.statistics().tunnelsRemoved - tunnelsRemoved;
    reportMeasurement(
      `${untouched} unchanged tunnels with unchanged objects; ${removed} removed; writes ${JSON.stringify(written)}`,
    );
    // The faster the machine the more, because the churn continues until the last replica has been replaced.
    expect(untouched).to.be.greaterThan(1000);
    // A tunnel that is added and removed between two reports needs no write, and no object is deleted twice.
    expect(written['delete']).to.be.at.most(removed);
  });
});

/** Returns the identity of each tunnel of a fleet, by the key of its object. */
function identities(fleet: Fleet): Map<string, string> {
  const byKey = new Map<string, string>();
  for (const [{ cluster, id }, tunnels] of fleet.expectedTunnels()) {
    for (const [name, tunnel] of tunnels)
      byKey.set(JSON.stringify([cluster, id, name]), JSON.stringify(tunnel));
  }
  return byKey;
}

function keyOf({ spec }: Pick<ObservedTunnelObject, 'spec'>): string {
  return JSON.stringify([spec.reporter.cluster, spec.reporter.id, spec.tunnelName]);
}
