/** What rows live in is taken away and put back. */
import { setTimeout as delay } from 'node:timers/promises';
import { applyCrds } from '../../support/apply-crds.ts';
import { change } from './changes.ts';
import { kubectl } from './hands.ts';
import { common, converged, photograph, rowWritesOf, served, writesSince, type Before } from './judge.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';

const DEADLINE_MS = 120_000;
const CRDS = ['reversetunnels.reverse-tunnel.io', 'reversetunnelreporters.reverse-tunnel.io'];
/** How long the namespace is held in phase Terminating. */
const TERMINATING_MS = 8000;

/** The rows go with what they live in: none of them survives. */
export function noneSurvives(before: Before): Before {
  return { ...before, rows: new Map() };
}

/** Deletes CRDs, rows and all, waits a while, and puts them back. Resolves when they are served. */
export async function deleteCrds(stage: Stage, crds: readonly string[], awayMs: number): Promise<void> {
  await kubectl(stage, 'delete', 'crd', ...crds, '--timeout=60s');
  await delay(awayMs);
  await applyCrds(stage.controlPlane);
}

function crdsDeleted(name: string, about: string, crds: readonly string[]): FaultScenario {
  return {
    name,
    about,
    async run(stage, sizes, doing) {
      const before = await photograph(stage);
      doing('deleting');
      const deleting = deleteCrds(stage, crds, 3000);
      change(stage, sizes.changes);
      await deleting;
      doing('back');
      const after = await converged(stage, noneSurvives(before), DEADLINE_MS);
      const servedMs = await served(stage, DEADLINE_MS);
      return [
        ...common(stage, after, 30),
        { what: 'reporters in sync', value: (after.tookMs + servedMs) / 1000, unit: 's', atMost: 30 },
        ...(await twiceAtMost(stage, before)),
      ];
    },
  };
}

/** No fight loop: what is there twice over is more than anybody took away. */
async function twiceAtMost(stage: Stage, before: Before): Promise<ReturnType<typeof common>> {
  const writes = await writesSince(stage, before);
  return [{ what: 'row writes', value: rowWritesOf(writes), atMost: 2 * before.rows.size + 100 }];
}

/** The rows go with their kind; reporters stay. */
export const rowCrdDeleted = crdsDeleted(
  'crd-deleted',
  'the rows’ CRD deleted and put back',
  CRDS.slice(0, 1),
);
/** Rows and reporters go; who owned what is forgotten. */
export const bothCrdsDeleted = crdsDeleted('crds-deleted', 'both CRDs deleted and put back', CRDS);

/** Nothing can be made in it while it ends, and then it is another one. */
export const namespaceTerminating: FaultScenario = {
  name: 'namespace-terminating',
  about: 'the namespace deleted, held in Terminating for 8 s, gone, and made again with its RBAC',
  async run(stage, sizes, doing) {
    const { request } = stage.controlPlane;
    const path = `/api/v1/namespaces/${stage.namespace}`;
    const before = await photograph(stage);
    await request('POST', `${path}/configmaps`, {
      metadata: { name: 'holds', finalizers: ['example.com/held'] },
    });
    doing('terminating');
    await kubectl(stage, 'delete', 'namespace', stage.namespace, '--wait=false');
    change(stage, sizes.changes);
    await delay(TERMINATING_MS);
    await kubectl(
      stage,
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
    doing('gone');
    await delay(2000);
    await request('POST', '/api/v1/namespaces', { metadata: { name: stage.namespace } });
    await stage.grant();
    doing('made again');
    const after = await converged(stage, noneSurvives(before), DEADLINE_MS);
    const servedMs = await served(stage, DEADLINE_MS);
    return [
      ...common(stage, after, 30),
      { what: 'reporters in sync', value: (after.tookMs + servedMs) / 1000, unit: 's', atMost: 30 },
      ...(await twiceAtMost(stage, before)),
    ];
  },
};
