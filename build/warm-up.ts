/**
 * Runs the operator until it has written what a few reports have changed, and writes the code that V8 has compiled for
 * that: see `src/code-cache.ts`. The API server is in this process.
 *
 *   node warm-up.js [FOLDER]   FOLDER: default `dist/compile-cache`
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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
import { loadBundle } from '../src/code-cache.ts';
import { compileCacheFolder } from '../src/compile-cache.ts';
import type { ReportMessage, ReportStream } from '../src/grpc/report-message.ts';
import { dialReportingService } from '../src/grpc/reporting-client.ts';
import { packageFile } from '../src/package-files.ts';
import type * as Server from '../src/server-command.ts';
import { createCertificateAuthority } from '../control-plane/certificates.ts';

const NAMESPACE = 'default';
const COLLECTION = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${NAMESPACE}/reversetunnels`;
/** After this time, the build continues with what has been compiled so far. It takes 1 s on an idle machine. */
const TIMEOUT_MS = 60_000;
const POLL_INTERVAL_MS = 20;
/** Enough for a report that is not decoded at once, and for several requests at the same time. */
const TUNNELS = Array.from({ length: 40 }, (_, index) => ({
  name: `tunnel-${index}`,
  tenantID: 'tenant',
  clusterID: 'cluster',
  nodeID: `tunnel-${index}`,
  createdAt: { seconds: 1_700_000_000 + index, nanos: index },
}));
/** The reports of one stream: a full push, a heartbeat, changes of one tunnel each, and a full push without tunnels. */
const REPORTS = [
  { added: TUNNELS.slice(1), fullPush: true },
  {},
  { added: TUNNELS.slice(0, 1) },
  { removedNames: ['tunnel-0'] },
  { fullPush: true },
];
/** The number of objects after each report. */
const OBJECTS = [39, 39, 40, 39, 0];

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

function reportMessage(nonce: bigint, report: Partial<ReportMessage>): ReportMessage {
  const node = { id: 'warm-up', cluster: '' };
  return { node, added: [], removedNames: [], fullPush: false, nonce, ...report };
}

async function main(): Promise<void> {
  const cacheFolder = process.argv[2] ?? compileCacheFolder();
  const server = loadBundle(packageFile('dist/server-command.js'), cacheFolder);
  const { runServer } = server.exports as typeof Server;
  const folder = mkdtempSync(join(tmpdir(), 'reverse-tunnel-warm-up-'));
  const apiServer = await startApiServer(folder);
  const [grpcAddress, httpAddress] = [await freeAddress(), await freeAddress()];
  const running = runServer([
    '--auth=insecure',
    '--log-level=error',
    '--removal-hold=0',
    '--report-interval=100ms',
    `--kubeconfig=${apiServer.kubeconfigPath}`,
    `--grpc-address=${grpcAddress}`,
    `--http-address=${httpAddress}`,
  ]);
  const reporter = dialReportingService({ address: grpcAddress });
  const deadlineMs = Date.now() + TIMEOUT_MS;
  const countObjects = (): number =>
    (JSON.parse(apiServer.handle('GET', COLLECTION)) as { items: unknown[] }).items.length;
  let stream: ReportStream | undefined;
  let nonce = 0n;
  const send = (report: Partial<ReportMessage>): void => stream?.send(reportMessage((nonce += 1n), report));
  for (const [index, report] of REPORTS.entries()) {
    send(report);
    while (countObjects() !== OBJECTS[index] && Date.now() < deadlineMs) {
      // The server does not listen yet, or has ended the stream.
      if (stream === undefined) {
        stream = reporter.openStream({ onResponse() {}, onEnd: () => (stream = undefined) });
        send(report);
      }
      // Removals wait for a report that is a while younger than the claim.
      else send({});
      await delay(POLL_INTERVAL_MS);
    }
  }
  if (Date.now() >= deadlineMs)
    process.stderr.write(
      `warm-up: not complete within ${TIMEOUT_MS / 1000} s; the compile cache may be incomplete\n`,
    );
  reporter.close();
  process.kill(process.pid, 'SIGTERM');
  const code = await running;
  await apiServer.close();
  mkdirSync(cacheFolder, { recursive: true });
  writeFileSync(join(cacheFolder, server.cacheName), server.compiledCode());
  rmSync(folder, { recursive: true });
  process.exit(code);
}

void main();
