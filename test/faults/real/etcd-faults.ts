/** Faults of etcd: a compaction, and a restore of an older state. */
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { requestJson } from '../../../control-plane/https-json.ts';
import type { ControlPlane } from '../../../control-plane/start.ts';
import { listTunnelObjects } from '../../support/expected-objects.ts';
import { startApiServer, waitUntilWatchable } from './api-readiness.ts';
import { createScenario } from './changes-during-fault.ts';
import { countLists, tunnelKeyOf, waitForConvergence, waitUntil } from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';
import { deleteObjects, shuffledObjects } from './manual-edits.ts';
import type { FaultScenario } from './scenario.ts';

const MANUAL_DELETES = 20;

/** A watch that resumes after a compaction gets 410, and only a list shows what it has missed. */
export const etcdCompacted: FaultScenario = createScenario({
  name: 'etcd-compacted',
  description: 'operators cut off, objects deleted manually, etcd compacted, kube-apiserver restarted: 410',
  changesMs: 0,
  async inject(fixture) {
    fixture.apiProxy.cut();
    const deleted = (await shuffledObjects(fixture)).slice(0, MANUAL_DELETES);
    await deleteObjects(
      fixture,
      deleted.map(({ name }) => name),
    );
    return deleted.map(({ key }) => key);
  },
  async recover(fixture) {
    try {
      await compactEtcd(fixture.controlPlane);
      await fixture.controlPlane.apiserver.kill();
      await startApiServer(fixture);
    } finally {
      fixture.apiProxy.restore();
    }
  },
  bounds: { converged: 10 },
  check: (fixture, { lists }) => [
    { name: 'relists', value: countLists(fixture) - lists, atLeast: fixture.replicas.running.length },
  ],
});

/** Deleted objects are back, others are gone, and resourceVersions repeat. */
export const etcdRestored: FaultScenario = createScenario({
  name: 'etcd-restored',
  description: 'etcd restored to a state before the last changes',
  changesMs: 0,
  inject: ({ controlPlane }) => backUpEtcd(controlPlane),
  async recover(fixture) {
    await fixture.fleet.settled();
    await waitForConvergence(fixture, undefined);
    // A restore of a backup that is younger than a renewal can go unnoticed (docs/operations.md).
    await waitForLeaseRenewals(fixture);
    await restoreEtcd(fixture.controlPlane);
    await waitUntilWatchable(fixture);
  },
  bounds: { converged: 10, inSync: 30 },
  async check({ controlPlane, namespace }, { objects }) {
    const current = await listTunnelObjects(controlPlane.request, namespace);
    const recreated = current.filter((object) => !objects.has(tunnelKeyOf(object)));
    return [{ name: 'objects recreated', value: recreated.length, atLeast: 1 }];
  },
});

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
  await waitUntil('every Lease is renewed', async () => {
    const now = await renewTimes();
    return [...before].every(([name, renewTime]) => now.get(name) !== renewTime);
  });
}

/** Compacts the history, as kube-apiserver does every 5 minutes. */
async function compactEtcd({ etcdUrl }: ControlPlane): Promise<void> {
  const post = async (path: string, body: object): Promise<unknown> => {
    const answer = await requestJson({ method: 'POST', url: etcdUrl + path, body, timeoutMs: 10_000 });
    if (answer.status !== 200)
      throw new Error(`etcd ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  };
  const range = await post('/v3/kv/range', { key: Buffer.from('/registry').toString('base64') });
  const { revision } = (range as { header: { revision: string } }).header;
  await post('/v3/kv/compaction', { revision, physical: true });
}

/** Backs up etcd. It is stopped for a moment, because its files are consistent only then. */
async function backUpEtcd({ etcd, folder }: ControlPlane): Promise<void> {
  await etcd.kill('SIGTERM');
  // Files of an earlier backup would be taken for this one's.
  await rm(join(folder, 'etcd-backup'), { recursive: true, force: true });
  await cp(join(folder, 'etcd'), join(folder, 'etcd-backup'), { recursive: true });
  await etcd.start();
}

/** Restores the backup while both programs are stopped. Resolves when both serve again. */
async function restoreEtcd({ apiserver, etcd, folder }: ControlPlane): Promise<void> {
  await apiserver.kill();
  await etcd.kill();
  await rm(join(folder, 'etcd'), { recursive: true });
  await cp(join(folder, 'etcd-backup'), join(folder, 'etcd'), { recursive: true });
  await etcd.start();
  await apiserver.start();
}
