/**
 * Runs the operator until it has created an object for a report, so that Node writes the code that V8 has compiled for
 * that when this process ends: see `src/compile-cache.ts`. The API server is in this process.
 */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { generateToken, renderKubeconfig, writeSecret } from '../control-plane/credentials.ts';
import { startHttpServer } from '../embedded-api-server/http-server.ts';
import { readProjectCrds } from '../embedded-api-server/kinds.ts';
import type { ApiRequest } from '../embedded-api-server/requests.ts';
import { ApiStore } from '../embedded-api-server/store.ts';
import { WatchCache } from '../embedded-api-server/watch-cache.ts';
import { useCompileCache } from '../src/compile-cache.ts';
import { dialReportingService } from '../src/grpc/reporting-client.ts';
import { createCertificateAuthority } from '../test/support/certificates.ts';

const NAMESPACE = 'default';
const COLLECTION = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${NAMESPACE}/reversetunnels`;
/** After this time, the build continues with what has been compiled so far. It takes 1 s on an idle machine. */
const TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 20;
const REPORT = {
  node: { id: 'warm-up', cluster: '' },
  added: [{ name: 'a', tenantID: 'a', clusterID: 'a', nodeID: 'a', createdAt: undefined }],
  removedNames: [],
  fullPush: true,
  nonce: 1n,
};

/** Starts the API server; `handle` sends it a request without a connection. */
async function startApiServer(folder: string) {
  const store: ApiStore = new ApiStore({
    namespace: NAMESPACE,
    now: () => new Date().toISOString(),
    onChange: (change) => watchCache.onChange(change),
    createUid: randomUUID,
  });
  const watchCache = new WatchCache(store.version);
  const handle = (method: ApiRequest['method'], path: string, object?: object): string =>
    store.handle({ method, path, body: object && JSON.stringify(object), actor: 'server' }).text;
  handle('POST', '/api/v1/namespaces', { metadata: { name: NAMESPACE } });
  for (const crd of readProjectCrds())
    handle('POST', '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd);
  const authority = createCertificateAuthority('warm-up', Date.now() + 2 * TIMEOUT_MS);
  const certificate = authority.issue({ addresses: ['127.0.0.1'], usage: 'server' });
  const token = generateToken();
  const server = await startHttpServer({ store, watchCache, ...certificate, token });
  const kubeconfig = { url: server.url, ca: authority.ca, user: 'admin', token, namespace: NAMESPACE };
  const kubeconfigPath = await writeSecret(join(folder, 'kubeconfig'), renderKubeconfig(kubeconfig));
  return { handle, kubeconfigPath, close: () => server.close() };
}

/** Returns the address of a free port. */
async function freeAddress(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return `127.0.0.1:${port}`;
}

async function main(): Promise<void> {
  useCompileCache();
  const folder = mkdtempSync(join(tmpdir(), 'reverse-tunnel-warm-up-'));
  const apiServer = await startApiServer(folder);
  const [grpcAddress, httpAddress] = [await freeAddress(), await freeAddress()];
  const { runServer } = await import('../src/server-command.ts');
  const running = runServer([
    '--auth=insecure',
    '--log-level=error',
    `--kubeconfig=${apiServer.kubeconfigPath}`,
    `--grpc-address=${grpcAddress}`,
    `--http-address=${httpAddress}`,
  ]);
  const reporter = dialReportingService({ address: grpcAddress });
  const deadlineMs = Date.now() + TIMEOUT_MS;
  const isComplete = (): boolean => apiServer.handle('GET', COLLECTION).includes('tunnelName');
  let isConnected = false;
  while (!isComplete() && Date.now() < deadlineMs) {
    if (!isConnected) {
      isConnected = true;
      const stream = reporter.openStream({ onResponse() {}, onEnd: () => (isConnected = false) });
      stream.send(REPORT);
    }
    await delay(POLL_INTERVAL_MS);
  }
  if (!isComplete())
    process.stderr.write(
      `warm-up: no object within ${TIMEOUT_MS / 1000} s; the compile cache is incomplete\n`,
    );
  reporter.close();
  process.kill(process.pid, 'SIGTERM');
  const code = await running;
  await apiServer.close();
  rmSync(folder, { recursive: true });
  process.exit(code);
}

void main();
