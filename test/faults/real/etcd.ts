/** Compaction, backup and restore of etcd. */
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { requestJson } from '../../../control-plane/https-json.ts';
import type { ControlPlane } from '../../../control-plane/start.ts';

const TIMEOUT_MS = 10_000;

/** Compacts the history, as kube-apiserver does every 5 minutes. Returns the revision. */
export async function compactEtcd({ etcdUrl }: ControlPlane): Promise<string> {
  const post = async (path: string, body: object): Promise<unknown> => {
    const answer = await requestJson({ method: 'POST', url: etcdUrl + path, body, timeoutMs: TIMEOUT_MS });
    if (answer.status !== 200)
      throw new Error(`etcd ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  };
  const range = (await post('/v3/kv/range', { key: Buffer.from('/registry').toString('base64') })) as {
    header: { revision: string };
  };
  const { revision } = range.header;
  await post('/v3/kv/compaction', { revision, physical: true });
  return revision;
}

/** Backs up etcd. It is stopped for a moment, because its files are consistent only then. */
export async function backUpEtcd(controlPlane: ControlPlane): Promise<void> {
  const { etcd, folder } = controlPlane;
  await etcd.kill('SIGTERM');
  // Files of an earlier backup would be taken for this one's.
  await rm(join(folder, 'etcd-backup'), { recursive: true, force: true });
  await cp(join(folder, 'etcd'), join(folder, 'etcd-backup'), { recursive: true });
  await etcd.start();
}

/** Restores the backup while both programs are stopped. Resolves when both serve again. */
export async function restoreEtcd(controlPlane: ControlPlane): Promise<void> {
  const { apiserver, etcd, folder } = controlPlane;
  await apiserver.kill();
  await etcd.kill();
  await rm(join(folder, 'etcd'), { recursive: true });
  await cp(join(folder, 'etcd-backup'), join(folder, 'etcd'), { recursive: true });
  await etcd.start();
  await apiserver.start();
}
