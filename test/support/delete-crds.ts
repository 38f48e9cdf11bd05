import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ControlPlane } from '../../control-plane/start.ts';
import { poll } from './operator-process.ts';

const TIMEOUT_MS = 90_000;

/** The names of all CRDs of `crds/`. */
export const CRD_NAMES: readonly string[] = readdirSync(join(import.meta.dirname, '..', '..', 'crds')).map(
  (file) => file.replace('.yaml', '.reverse-tunnel.io'),
);

/**
 * Deletes CRDs; resolves when they are gone. kube-apiserver 1.37 may find that "storage is (re)initializing" when a CRD is
 * deleted seconds after it was created or changed, and tries again only once the CRD changes, so it is changed.
 *
 * @param names as in `reversetunnels.reverse-tunnel.io`; those that do not exist are ignored
 */
export async function deleteCrds(
  { kubectl }: Pick<ControlPlane, 'kubectl'>,
  names: readonly string[],
): Promise<void> {
  const { code, stderr } = await kubectl(['delete', 'crd', '--ignore-not-found', '--wait=false', ...names]);
  if (code !== 0) throw new Error(`kubectl delete crd: ${stderr}`);
  await poll(TIMEOUT_MS, async () => {
    const { stdout } = await kubectl(['get', 'crd', '--ignore-not-found', '-o', 'name', ...names]);
    const remaining = stdout.split('\n').filter((name) => name !== '');
    if (remaining.length === 0) return true;
    // Fails for those that have been deleted meanwhile.
    await kubectl(['annotate', '--overwrite', ...remaining, `checked=${performance.now()}`]);
    return undefined;
  });
}
