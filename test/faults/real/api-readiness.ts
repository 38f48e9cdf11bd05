/** When is the API server there again? What it needs to find its own feet is no delay of the operator's. */
import { setTimeout as delay } from 'node:timers/promises';
import type { FaultFixture } from './fault-fixture.ts';

const CONFIG_MAPS_PATH = '/api/v1/namespaces/default/configmaps';
const NAMESPACES_PATH = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
const DEADLINE_MS = 90_000;

/** Starts it and waits until it also serves watches of rows: it says that it is ready seconds before, on a busy machine. */
export async function startApiServer(fixture: FaultFixture): Promise<void> {
  await fixture.controlPlane.apiserver.start();
  await waitUntilWatchable(fixture);
}

/** Until then it answers 429, as its cache of rows is being filled. Resolves up to a second late. */
export async function waitUntilWatchable({
  controlPlane: { request },
  namespace,
}: FaultFixture): Promise<void> {
  const path = `${NAMESPACES_PATH}/${namespace}/reversetunnels?watch=1&resourceVersion=0&timeoutSeconds=1`;
  await waitUntil('serves watches', async () => (await request('GET', path)).status === 200);
}

/** Resolves when it writes: after an end of etcd it takes a while to find its way back to it. */
export async function waitUntilWritable({ controlPlane: { request } }: FaultFixture): Promise<void> {
  await waitUntil('writes', async () => {
    const { status } = await request('POST', CONFIG_MAPS_PATH, { metadata: { name: 'written' } });
    return status === 201 || status === 409;
  });
  await request('DELETE', `${CONFIG_MAPS_PATH}/written`);
}

async function waitUntil(what: string, predicate: () => Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + DEADLINE_MS;
  while (!(await predicate())) {
    if (performance.now() > untilMs)
      throw new Error(`kube-apiserver does not come to the point that it ${what}`);
    await delay(100);
  }
}
