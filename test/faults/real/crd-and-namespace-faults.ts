/** Deletion and recreation of CRDs and of the namespace. */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { applyCrds } from '../../support/apply-crds.ts';
import { applyChanges } from './changes.ts';
import { kubectl } from './manual-edits.ts';
import {
  commonMetrics,
  waitForConvergence,
  snapshot,
  objectWriteCount,
  waitUntilServed,
  writesSince,
  type Snapshot,
} from './convergence.ts';
import type { FaultScenario } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';

const DEADLINE_MS = 120_000;
const CRDS = ['reversetunnels.reverse-tunnel.io', 'reversetunnelreporters.reverse-tunnel.io'];
/** How long the namespace is kept in phase Terminating. */
const TERMINATING_MS = 8000;

/** Returns a snapshot that expects no surviving objects, because they are deleted with their CRD or namespace. */
export function expectNoSurvivors(before: Snapshot): Snapshot {
  return { ...before, objects: new Map() };
}

/** Deletes CRDs with their objects, waits, and recreates them. Resolves when they are served. */
export async function deleteCrds(
  fixture: FaultFixture,
  crds: readonly string[],
  awayMs: number,
): Promise<void> {
  await kubectl(fixture, 'delete', 'crd', ...crds, '--timeout=60s');
  await delay(awayMs);
  await applyCrds(fixture.controlPlane);
}

function createCrdScenario(name: string, about: string, crds: readonly string[]): FaultScenario {
  return {
    name,
    description: about,
    async run(fixture, scale, setStatus) {
      const before = await snapshot(fixture);
      setStatus('deleting');
      const deleting = deleteCrds(fixture, crds, 3000);
      applyChanges(fixture, scale.changes);
      await deleting;
      setStatus('back');
      const after = await waitForConvergence(fixture, expectNoSurvivors(before), DEADLINE_MS);
      const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
      return [
        ...commonMetrics(fixture, after, 30),
        { name: 'reporters in sync', value: (after.durationMs + servedMs) / 1000, unit: 's', atMost: 30 },
        ...(await writeBoundMetrics(fixture, before)),
      ];
    },
  };
}

/** Bounds the writes: more than twice the number of objects means endless contention. */
async function writeBoundMetrics(
  fixture: FaultFixture,
  before: Snapshot,
): Promise<ReturnType<typeof commonMetrics>> {
  const writes = await writesSince(fixture, before);
  return [{ name: 'object writes', value: objectWriteCount(writes), atMost: 2 * before.objects.size + 100 }];
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
export const namespaceTerminating: FaultScenario = {
  name: 'namespace-terminating',
  description: 'namespace deleted, Terminating for 8 s, gone, and recreated with its RBAC',
  async run(fixture, scale, setStatus) {
    const { request } = fixture.controlPlane;
    const path = `/api/v1/namespaces/${fixture.namespace}`;
    const before = await snapshot(fixture);
    await request('POST', `${path}/configmaps`, {
      metadata: { name: 'holds', finalizers: ['example.com/held'] },
    });
    setStatus('terminating');
    await kubectl(fixture, 'delete', 'namespace', fixture.namespace, '--wait=false');
    applyChanges(fixture, scale.changes);
    await delay(TERMINATING_MS);
    await kubectl(
      fixture,
      'patch',
      'configmap',
      'holds',
      '--type=merge',
      '-p',
      '{"metadata":{"finalizers":null}}',
    );
    const isDeleted = async (): Promise<boolean> => (await request('GET', path)).status === 404;
    await eventually('the namespace is deleted', isDeleted, DEADLINE_MS, 200);
    setStatus('gone');
    await delay(2000);
    await request('POST', '/api/v1/namespaces', { metadata: { name: fixture.namespace } });
    await fixture.regrantRoles();
    setStatus('recreated');
    const after = await waitForConvergence(fixture, expectNoSurvivors(before), DEADLINE_MS);
    const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'reporters in sync', value: (after.durationMs + servedMs) / 1000, unit: 's', atMost: 30 },
      ...(await writeBoundMetrics(fixture, before)),
    ];
  },
};
