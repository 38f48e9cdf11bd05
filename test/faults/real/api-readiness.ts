/** Readiness of the API server. The time that it needs to recover is not a delay of the operator. */
import { waitUntil } from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';

const CONFIG_MAPS_PATH = '/api/v1/namespaces/default/configmaps';
const NAMESPACES_PATH = '/apis/reverse-tunnel.io/v1alpha1/namespaces';

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
export async function waitUntilWatchable({ controlPlane, namespace }: FaultFixture): Promise<void> {
  const path = `${NAMESPACES_PATH}/${namespace}/reversetunnels?watch=1&resourceVersion=0&timeoutSeconds=1`;
  const isServed = async (): Promise<boolean> => (await controlPlane.request('GET', path)).status === 200;
  await waitUntil('kube-apiserver serves watches', isServed, 100);
}

/** Waits until writes succeed; after an outage of etcd, the API server needs some time to reconnect. */
export async function waitUntilWritable({ controlPlane: { request } }: FaultFixture): Promise<void> {
  const isWritten = async (): Promise<boolean> => {
    const { status } = await request('POST', CONFIG_MAPS_PATH, { metadata: { name: 'written' } });
    return status === 201 || status === 409;
  };
  await waitUntil('kube-apiserver writes', isWritten, 100);
  await request('DELETE', `${CONFIG_MAPS_PATH}/written`);
}
