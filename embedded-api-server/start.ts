/** Starts the embedded API server with the CRDs of this project, and a kubeconfig for it. */
import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateToken, renderKubeconfig, writeSecret } from '../control-plane/credentials.ts';
import { type JsonResponse, requestJson } from '../control-plane/https-json.ts';
import { createDisposableFolder } from '../control-plane/process-supervisor.ts';
import { createCertificateAuthority } from '../control-plane/certificates.ts';
import { startHttpServer } from './http-server.ts';
import { readProjectCrds } from './kinds.ts';
import { ApiStore } from './store.ts';
import { WatchCache } from './watch-cache.ts';

/** What the embedded API server is, in one line. */
export const EMBEDDED_DESCRIPTION =
  'embedded API server: in memory, for demos and tests, with one token and no authorization';

/** A running API server in this process. */
export interface EmbeddedApiServer {
  /** `https://127.0.0.1:<port>`. */
  readonly url: string;
  /** PEM. */
  readonly caData: string;
  /** May do everything. */
  readonly token: string;
  readonly kubeconfigPath: string;
  /** The temporary folder of the kubeconfig. */
  readonly folder: string;
  /** Sends a request on a new connection, and returns a response with any status. `accept` is the Accept header. */
  readonly request: (method: string, path: string, body?: unknown, accept?: string) => Promise<JsonResponse>;
  /** Ends all connections and removes the folder. Nothing is kept. */
  stop(): Promise<void>;
}

const DAY_MS = 24 * 3_600_000;
const REQUEST_TIMEOUT_MS = 65_000;

/** Starts it on a free loopback port, with the namespace `default`; takes milliseconds. */
export async function startEmbeddedApiServer(): Promise<EmbeddedApiServer> {
  const store: ApiStore = new ApiStore({
    namespace: 'default',
    now: () => new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
    onChange: (change) => watchCache.onChange(change),
    createUid: randomUUID,
  });
  const watchCache = new WatchCache(store.version);
  create(store, '/api/v1/namespaces', { metadata: { name: store.namespace } });
  for (const crd of readProjectCrds())
    create(store, '/apis/apiextensions.k8s.io/v1/customresourcedefinitions', crd);

  const authority = createCertificateAuthority('embedded API server', Date.now() + 365 * DAY_MS);
  const { cert, key } = authority.issue({
    addresses: ['127.0.0.1'],
    usage: 'server',
    notAfterMs: Date.now() + 365 * DAY_MS,
  });
  const token = generateToken();
  const temporary = await createDisposableFolder(tmpdir(), 'reverse-tunnel-embedded-');
  const server = await startHttpServer({ store, watchCache, cert, key, token });
  const { url } = server;
  const kubeconfig = { url, ca: authority.ca, user: 'admin', token, namespace: store.namespace };
  return {
    url,
    caData: authority.ca,
    token,
    folder: temporary.path,
    kubeconfigPath: await writeSecret(join(temporary.path, 'admin.kubeconfig'), renderKubeconfig(kubeconfig)),
    request: (method, path, body, accept) =>
      requestJson({
        method,
        url: url + path,
        ca: authority.ca,
        token,
        body,
        accept,
        timeoutMs: REQUEST_TIMEOUT_MS,
      }),
    async stop() {
      await server.close();
      await temporary.dispose();
    },
  };
}

function create(store: ApiStore, path: string, object: object): void {
  const { status, text } = store.handle({
    method: 'POST',
    path,
    body: JSON.stringify(object),
    actor: 'server',
  });
  if (status !== 201) throw new Error(`POST ${path}: ${status} ${text}`);
}
