/** What rows live in is taken away and put back. */
import { setTimeout as delay } from 'node:timers/promises';
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
/** How long the namespace is held in phase Terminating. */
const TERMINATING_MS = 8000;

/** The rows go with what they live in: none of them survives. */
export function expectNoSurvivors(before: Snapshot): Snapshot {
  return { ...before, objects: new Map() };
}

/** Deletes CRDs, rows and all, waits a while, and puts them back. Resolves when they are served. */
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

/** No fight loop: what is there twice over is more than anybody took away. */
async function writeBoundMetrics(
  fixture: FaultFixture,
  before: Snapshot,
): Promise<ReturnType<typeof commonMetrics>> {
  const writes = await writesSince(fixture, before);
  return [{ name: 'row writes', value: objectWriteCount(writes), atMost: 2 * before.objects.size + 100 }];
}

/** The rows go with their kind; reporters stay. */
export const tunnelCrdDeleted = createCrdScenario(
  'crd-deleted',
  'the rows’ CRD deleted and put back',
  CRDS.slice(0, 1),
);
/** Rows and reporters go; who owned what is forgotten. */
export const bothCrdsDeleted = createCrdScenario('crds-deleted', 'both CRDs deleted and put back', CRDS);

/** Nothing can be made in it while it ends, and then it is another one. */
export const namespaceTerminating: FaultScenario = {
  name: 'namespace-terminating',
  description: 'the namespace deleted, held in Terminating for 8 s, gone, and made again with its RBAC',
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
    const untilMs = performance.now() + DEADLINE_MS;
    while ((await request('GET', path)).status !== 404) {
      if (performance.now() > untilMs) throw new Error('the namespace did not go');
      await delay(200);
    }
    setStatus('gone');
    await delay(2000);
    await request('POST', '/api/v1/namespaces', { metadata: { name: fixture.namespace } });
    await fixture.regrantRoles();
    setStatus('made again');
    const after = await waitForConvergence(fixture, expectNoSurvivors(before), DEADLINE_MS);
    const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'reporters in sync', value: (after.durationMs + servedMs) / 1000, unit: 's', atMost: 30 },
      ...(await writeBoundMetrics(fixture, before)),
    ];
  },
};
