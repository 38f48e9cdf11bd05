/** Faults of etcd: a compaction, and a restore of an older state. */
import { waitUntilWatchable, startApiServer } from './api-readiness.ts';
import { applyChanges } from './changes.ts';
import { backUpEtcd, compactEtcd, restoreEtcd } from './etcd.ts';
import { deleteObjects, shuffledObjects, withoutObjects } from './manual-edits.ts';
import { commonMetrics, waitForConvergence, snapshot, tunnelKeyOf, waitUntilServed } from './convergence.ts';
import { eventually } from '../../support/eventually.ts';
import type { FaultScenario } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';

const DEADLINE_MS = 90_000;
const MANUAL_DELETES = 20;

/** A watch that resumes after a compaction gets 410, and only a list shows what it has missed. */
export const etcdCompacted: FaultScenario = {
  name: 'etcd-compacted',
  description: 'operators cut off, objects deleted manually, etcd compacted, kube-apiserver restarted: 410',
  async run(fixture, scale, setStatus) {
    const before = await snapshot(fixture);
    const lists = countLists(fixture);
    setStatus('cut off');
    fixture.apiProxy.cut();
    const deleted = (await shuffledObjects(fixture)).slice(0, MANUAL_DELETES);
    const deletedKeys = deleted.map(({ key }) => key);
    try {
      await deleteObjects(
        fixture,
        deleted.map(({ name }) => name),
      );
      applyChanges(fixture, scale.changes);
      await compactEtcd(fixture.controlPlane);
      await fixture.controlPlane.apiserver.kill();
      await startApiServer(fixture);
    } finally {
      fixture.apiProxy.restore();
    }
    setStatus('back');
    await fixture.fleet.settled();
    const after = await waitForConvergence(fixture, withoutObjects(before, deletedKeys), DEADLINE_MS);
    await waitUntilServed(fixture, DEADLINE_MS);
    const { length } = fixture.replicas.running;
    return [
      ...commonMetrics(fixture, after, 10),
      { name: 'relists', value: countLists(fixture) - lists, atLeast: length },
    ];
  },
};

/** Deleted objects are back, others are gone, and resourceVersions repeat. */
export const etcdRestored: FaultScenario = {
  name: 'etcd-restored',
  description: 'etcd restored to a state before the last changes',
  async run(fixture, scale, setStatus) {
    setStatus('backing up');
    await backUpEtcd(fixture.controlPlane);
    const backup = await snapshot(fixture);
    applyChanges(fixture, scale.changes);
    await fixture.fleet.settled();
    await waitForConvergence(fixture, backup, DEADLINE_MS);
    // A restore of a backup that is younger than a renewal can go unnoticed (docs/operations.md).
    await waitForLeaseRenewals(fixture);
    setStatus('restoring');
    await restoreEtcd(fixture.controlPlane);
    await waitUntilWatchable(fixture);
    const after = await waitForConvergence(fixture, backup, DEADLINE_MS);
    const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
    const restored = new Set(backup.objects.keys());
    const recreated = after.objects.filter((object) => !restored.has(tunnelKeyOf(object))).length;
    return [
      ...commonMetrics(fixture, after, 10),
      { name: 'reporters in sync', value: (after.durationMs + servedMs) / 1000, unit: 's', atMost: 30 },
      { name: 'objects recreated', value: recreated, atLeast: 1 },
    ];
  },
};

/** Waits until every Lease of a running replica has been renewed since the call. */
async function waitForLeaseRenewals({ controlPlane, namespace, replicas }: FaultFixture): Promise<void> {
  const path = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const renewTimes = async (): Promise<Map<string, string>> => {
    const { body } = await controlPlane.request('GET', path);
    const { items } = body as {
      items: readonly { metadata: { name: string }; spec: { holderIdentity: string; renewTime: string } }[];
    };
    const running = new Set(replicas.running.map(({ process }) => process.replica));
    const held = items.filter(({ spec }) => running.has(spec.holderIdentity));
    return new Map(held.map(({ metadata, spec }) => [metadata.name, spec.renewTime]));
  };
  const before = await renewTimes();
  await eventually(
    'every Lease is renewed',
    async () => {
      const now = await renewTimes();
      return [...before].every(([name, renewTime]) => now.get(name) !== renewTime);
    },
    DEADLINE_MS,
  );
}

/** Counts lists of objects by all running replicas. */
function countLists({ replicas }: FaultFixture): number {
  return replicas.running.reduce(
    (sum, { process }) =>
      sum +
      process.log.filter(
        ({ msg, resource }) => msg === 'listed all objects' && String(resource).startsWith('reversetunnels.'),
      ).length,
    0,
  );
}
