/** Deletion and recreation of CRDs and of the namespace. */
import { setTimeout as delay } from 'node:timers/promises';
import { applyCrds } from '../../support/apply-crds.ts';
import { deleteCrds } from '../../support/delete-crds.ts';
import { createScenario, type ChangesDuringFault } from './changes-during-fault.ts';
import { waitUntil } from './convergence.ts';
import { kubectl } from './manual-edits.ts';
import type { FaultScenario } from './scenario.ts';

const CRDS = ['reversetunnels.reverse-tunnel.io', 'reversetunnelreporters.reverse-tunnel.io'];
/** How long the namespace is kept in phase Terminating. */
const TERMINATING_MS = 8000;

/** Bounds the writes: more than twice the number of objects means endless contention. */
const COMMON = {
  deletesAll: true,
  bounds: { converged: 30, inSync: 30 },
  extraWrites: ({ objects }) => 2 * objects.size + 100,
} satisfies Partial<ChangesDuringFault>;

function createCrdScenario(name: string, description: string, crds: readonly string[]): FaultScenario {
  return createScenario({
    ...COMMON,
    name,
    description,
    changesMs: 3000,
    inject: ({ controlPlane }) => deleteCrds(controlPlane, crds),
    recover: ({ controlPlane }) => applyCrds(controlPlane),
  });
}

/** The objects are deleted with their CRD; the reporter objects stay. */
export const tunnelCrdDeleted = createCrdScenario(
  'crd-deleted',
  'CRD of ReverseTunnels deleted and recreated',
  CRDS.slice(0, 1),
);
/** Objects and reporter objects are deleted, and with them all ownership. */
export const bothCrdsDeleted = createCrdScenario('crds-deleted', 'both CRDs deleted and recreated', CRDS);

/** Nothing can be created in a terminating namespace, and the recreated one is a new object. */
export const namespaceTerminating: FaultScenario = createScenario({
  ...COMMON,
  name: 'namespace-terminating',
  description: 'namespace deleted, Terminating for 8 s, gone, and recreated with its RBAC',
  changesMs: TERMINATING_MS,
  async inject(fixture) {
    const { controlPlane, namespace } = fixture;
    await controlPlane.request('POST', `/api/v1/namespaces/${namespace}/configmaps`, {
      metadata: { name: 'holds', finalizers: ['example.com/held'] },
    });
    await kubectl(fixture, 'delete', 'namespace', namespace, '--wait=false');
  },
  async recover(fixture) {
    const { request } = fixture.controlPlane;
    const path = `/api/v1/namespaces/${fixture.namespace}`;
    const withoutFinalizers = '{"metadata":{"finalizers":null}}';
    await kubectl(fixture, 'patch', 'configmap', 'holds', '--type=merge', '-p', withoutFinalizers);
    const isDeleted = async (): Promise<boolean> => (await request('GET', path)).status === 404;
    await waitUntil('the namespace is deleted', isDeleted);
    await delay(2000);
    await request('POST', '/api/v1/namespaces', { metadata: { name: fixture.namespace } });
    await fixture.regrantRoles();
  },
});
