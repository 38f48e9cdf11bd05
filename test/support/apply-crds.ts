/** Installation of the CRDs; without mocha hooks, because the benchmark also uses it. */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { ControlPlaneError } from '../../control-plane/errors.ts';
import type { ControlPlaneClient } from '../../control-plane/start.ts';

const CRD_FOLDER = join(import.meta.dirname, '..', '..', 'crds');
const API_PATH = '/apis/reverse-tunnel.io/v1alpha1';
const SERVED_DEADLINE_MS = 60_000;

/** Installs the CRDs. Resolves when all kinds are served. @throws ControlPlaneError after a minute */
export async function applyCrds(controlPlane: ControlPlaneClient): Promise<void> {
  for (const args of [
    ['apply', '--server-side', '-f', CRD_FOLDER],
    ['wait', '--for=condition=Established', '--timeout=60s', '-f', CRD_FOLDER],
  ]) {
    const { code, stderr } = await controlPlane.kubectl(args);
    if (code !== 0) throw new ControlPlaneError(`kubectl ${args.join(' ')} failed: ${stderr.trim()}`);
  }
  // Established is reported a moment before the paths are served.
  const deadlineMs = performance.now() + SERVED_DEADLINE_MS;
  for (const resource of [
    'reversetunnels',
    'reversetunnelreporters',
    'reversetunnelpolicies',
    'reversetunnelexpectations',
    'reversetunnelslices',
  ]) {
    while ((await controlPlane.request('GET', `${API_PATH}/${resource}`)).status !== 200) {
      if (performance.now() > deadlineMs)
        throw new ControlPlaneError(`${API_PATH}/${resource} is not served`);
      await delay(50);
    }
  }
}
