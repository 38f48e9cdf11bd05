/**
 * The HTTP front of the store. Enough of the Kubernetes API for kubectl and this project: discovery, OpenAPI v3,
 * reads, writes, watches and tables. One bearer token may do everything.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { text as readText } from 'node:stream/consumers';
import { parse as parseYaml } from 'yaml';
import type { ApiKind } from './api-kind.ts';
import { CORE_EVENTS } from './built-in-kinds.ts';
import { fromCoreEvent, fromCorePath } from './core-events.ts';
import { discoveryDocument } from './discovery.ts';
import { objectFormat, sendDocument, sendResponse } from './http-response.ts';
import { serveWatch } from './http-watch.ts';
import type { JsonObject } from './objects.ts';
import { openApiDocument } from './openapi.ts';
import { type ApiPath, type ApiRequest, parseApiPath } from './requests.ts';
import * as responses from './responses.ts';
import { SelectorError } from './selectors.ts';
import type { ApiStore } from './store.ts';
import type { IncludeObject } from './table.ts';
import type { WatchCache } from './watch-cache.ts';

/** What the front needs. */
export interface HttpServerOptions {
  readonly store: ApiStore;
  /** Receives the changes of the store. */
  readonly watchCache: WatchCache;
  /** PEM of the certificate for 127.0.0.1 and of its key. */
  readonly cert: string;
  readonly key: string;
  /** The only credential. */
  readonly token: string;
}

/** A running front. */
export interface HttpServer {
  /** `https://127.0.0.1:<port>`. */
  readonly url: string;
  /** Ends all connections. */
  close(): Promise<void>;
}

/** Larger bodies are rejected, as by kube-apiserver. */
const MAX_BODY_BYTES = 3 * 1024 * 1024;
/** Answered without a token, as by kube-apiserver. */
const PUBLIC_PATHS: ReadonlySet<string> = new Set(['/version', '/healthz', '/livez', '/readyz']);
const ACCESS_REVIEWS: Readonly<Record<string, string>> = {
  '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews': 'SelfSubjectAccessReview',
  '/apis/authorization.k8s.io/v1/subjectaccessreviews': 'SubjectAccessReview',
};
const OPENAPI_V2_PATH = '/openapi/v2';
const OPENAPI_V2_TYPE = 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf';
const MERGE_PATCH = 'application/merge-patch+json';
const STRATEGIC_MERGE_PATCH = 'application/strategic-merge-patch+json';
const APPLY_PATCH = 'application/apply-patch+yaml';

/** Starts the front on a free port of the loopback interface. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const { cert, key } = options;
  const server = createServer({ cert, key, keepAliveTimeout: 90_000 }, (request, response) => {
    handle(options, request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy();
      else if (error instanceof SyntaxError) sendResponse(response, responses.badRequest(error.message));
      else sendResponse(response, responses.internalError(String(error)));
    });
  });
  // A watch has no end that is known when its request arrives.
  server.requestTimeout = 0;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve());
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return {
    url: `https://127.0.0.1:${address.port}`,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

async function handle(
  options: HttpServerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { url = '/', headers } = request;
  const [pathname = ''] = url.split('?');
  if (!PUBLIC_PATHS.has(pathname) && headers.authorization !== `Bearer ${options.token}`) {
    sendResponse(response, responses.unauthorized());
    return;
  }
  const body = await readBody(request);
  if (body === undefined) {
    sendResponse(response, responses.bodyTooLarge(MAX_BODY_BYTES));
    return;
  }
  if (request.method === 'GET' && serveDocument(options.store, pathname, headers.accept ?? '', response))
    return;
  const kind = ACCESS_REVIEWS[pathname];
  if (request.method === 'POST' && kind !== undefined) {
    // The body may be protobuf, and the answer does not depend on it.
    const status = { allowed: true, reason: 'the token may do everything' };
    const review = { apiVersion: 'authorization.k8s.io/v1', kind, metadata: {}, spec: {}, status };
    sendDocument(response, review, { status: 201 });
    return;
  }
  serveResource(options, request, response, body);
}

/** Serves probes, discovery and OpenAPI; returns false if the path belongs to none of them. */
function serveDocument(store: ApiStore, pathname: string, accept: string, response: ServerResponse): boolean {
  if (pathname === '/healthz' || pathname === '/livez' || pathname === '/readyz') {
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' }).end('ok');
    return true;
  }
  if (pathname === OPENAPI_V2_PATH) {
    // An empty document: kubectl reads it for lists of objects, and leaves the validation to the server then.
    response.writeHead(200, { 'content-type': OPENAPI_V2_TYPE }).end();
    return true;
  }
  const kinds = [CORE_EVENTS, ...store.kinds];
  const discovery = discoveryDocument(kinds, pathname, accept);
  if (discovery !== undefined) {
    sendDocument(response, discovery.body, { contentType: discovery.contentType });
    return true;
  }
  const openApi = openApiDocument(kinds, pathname);
  if (openApi === undefined) return false;
  sendDocument(response, openApi);
  return true;
}

function serveResource(
  options: HttpServerOptions,
  { method = 'GET', url = '/', headers }: IncomingMessage,
  response: ServerResponse,
  body: string,
): void {
  const { store } = options;
  const requested = parseApiPath(url);
  const isCoreEvent = requested.group === '' && requested.version === 'v1' && requested.resource === 'events';
  const storePath = isCoreEvent ? fromCorePath(url) : url;
  const path = isCoreEvent ? parseApiPath(storePath) : requested;
  const kind = store.kindAt(path);
  if (kind === undefined) {
    sendResponse(response, responses.NO_KIND_MATCH);
    return;
  }
  const format = objectFormat(kind, headers.accept ?? '', {
    isCoreEvent,
    includeObject: (path.query.get('includeObject') ?? 'Metadata') as IncludeObject,
    nowMs: Date.now(),
  });
  if (method === 'GET' && /^(?:1|true)$/.test(path.query.get('watch') ?? '')) {
    try {
      serveWatch(response, options, { kind, path, format });
    } catch (error) {
      if (!(error instanceof SelectorError)) throw error;
      sendResponse(response, responses.badRequest(error.message));
    }
    return;
  }
  if (
    method !== 'GET' &&
    method !== 'POST' &&
    method !== 'PUT' &&
    method !== 'PATCH' &&
    method !== 'DELETE'
  ) {
    sendResponse(response, responses.methodNotAllowed());
    return;
  }
  const contentType = (headers['content-type'] ?? '').split(';')[0]?.trim() ?? '';
  const accepted = method === 'PATCH' ? patchTypes(kind) : ['application/json', ''];
  if (!accepted.includes(contentType) && method !== 'GET') {
    sendResponse(response, responses.unsupportedMediaType(accepted.filter((type) => type !== '')));
    return;
  }
  const content =
    isCoreEvent && body !== '' ? JSON.stringify(fromCoreEvent(JSON.parse(body) as JsonObject)) : body;
  const request = { path: storePath, body: content, actor: headers['user-agent'] ?? '' };
  const answer =
    contentType === APPLY_PATCH && method === 'PATCH'
      ? apply(store, path, request)
      : store.handle({ ...request, method });
  sendResponse(response, answer, format);
}

/**
 * Executes a server-side apply without field management: it creates the object, or merges the fields into it. A field
 * that a later apply lacks is therefore kept.
 */
function apply(
  store: ApiStore,
  { resource, namespace, name = '' }: ApiPath,
  { path, body, actor }: Omit<ApiRequest, 'method'>,
): responses.ApiResponse {
  const text = JSON.stringify(parseYaml(body ?? ''));
  const exists = store.get(resource, name, namespace) !== undefined;
  if (exists) return store.handle({ method: 'PATCH', path, body: text, actor });
  const [pathname = '', query = ''] = path.split('?');
  const collection = pathname.slice(0, pathname.lastIndexOf('/'));
  return store.handle({ method: 'POST', path: `${collection}?${query}`, body: text, actor });
}

function patchTypes({ isCustom }: ApiKind): readonly string[] {
  // Built-in kinds have no lists here that a strategic merge would merge by key.
  return isCustom ? [MERGE_PATCH, APPLY_PATCH] : [MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH];
}

/** Returns the body; undefined if it is too large. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) return undefined;
  const text = await readText(request);
  return text.length > MAX_BODY_BYTES ? undefined : text;
}
