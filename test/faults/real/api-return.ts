/** When is the API server there again? What it needs to find its own feet is no delay of the operator's. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Stage } from './stage.ts';

const CONFIG_MAPS = '/api/v1/namespaces/default/configmaps';
const ROWS = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
const DEADLINE_MS = 90_000;

/** Starts it and waits until it also serves watches of rows: it says that it is ready seconds before, on a busy machine. */
export async function startApi(stage: Stage): Promise<void> {
  await stage.controlPlane.apiserver.start();
  await apiWatches(stage);
}

/** Until then it answers 429, as its cache of rows is being filled. Resolves up to a second late. */
export async function apiWatches({ controlPlane: { request }, namespace }: Stage): Promise<void> {
  const path = `${ROWS}/${namespace}/reversetunnels?watch=1&resourceVersion=0&timeoutSeconds=1`;
  await until('serves watches', async () => (await request('GET', path)).status === 200);
}

/** Resolves when it writes: after an end of etcd it takes a while to find its way back to it. */
export async function apiWrites({ controlPlane: { request } }: Stage): Promise<void> {
  await until('writes', async () => {
    const { status } = await request('POST', CONFIG_MAPS, { metadata: { name: 'written' } });
    return status === 201 || status === 409;
  });
  await request('DELETE', `${CONFIG_MAPS}/written`);
}

async function until(does: string, holds: () => Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + DEADLINE_MS;
  while (!(await holds())) {
    if (performance.now() > untilMs)
      throw new Error(`kube-apiserver does not come to the point that it ${does}`);
    await delay(100);
  }
}
