/** Readiness of the API server. The time that it needs to recover is not a delay of the operator. */
import { setTimeout as delay } from 'node:timers/promises';
import type { FaultFixture } from './fault-fixture.ts';

const CONFIG_MAPS_PATH = '/api/v1/namespaces/default/configmaps';
const NAMESPACES_PATH = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
const DEADLINE_MS = 90_000;

/**
 * Starts the API server and waits until it serves watches of objects; on a busy machine it reports ready seconds
 * before that.
 */
export async function startApiServer(fixture: FaultFixture): Promise<void> {
  await fixture.controlPlane.apiserver.start();
  await waitUntilWatchable(fixture);
}

/**
 * Waits until watches are served; until then they are answered 429, because the watch cache is being filled.
 * Resolves up to a second late.
 */
export async function waitUntilWatchable({
  controlPlane: { request },
  namespace,
}: FaultFixture): Promise<void> {
  const path = `${NAMESPACES_PATH}/${namespace}/reversetunnels?watch=1&resourceVersion=0&timeoutSeconds=1`;
  await waitUntil('serve watches', async () => (await request('GET', path)).status === 200);
}

/** Waits until writes succeed; after an outage of etcd, the API server needs some time to reconnect. */
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
      throw new Error(`kube-apiserver does not ${what} within ${DEADLINE_MS / 1000} s`);
    await delay(100);
  }
}
