import { randomBytes } from 'node:crypto';
import { API_KINDS } from '../../../embedded-api-server/kinds.ts';
import type { ApiServerObject } from '../../../embedded-api-server/objects.ts';
import { type ApiRequest, parseApiPath } from '../../../embedded-api-server/requests.ts';
import * as responses from '../../../embedded-api-server/responses.ts';
import type { ApiResponse } from '../../../embedded-api-server/responses.ts';
import type { NamespaceState } from '../../../embedded-api-server/store.ts';
import type { ApiChange } from '../../../embedded-api-server/watch-cache.ts';
import type { RealServer } from './real-server.ts';
import { openRealWatch, type RealWatch, type WatchLine } from './real-watch.ts';
import type { SimApi } from './sim-api.ts';

const RESOURCES = ['reversetunnels', 'reversetunnelreporters', 'leases'];
/** Maximum time until the API server's own watch of namespaces has seen a namespace created or deleted. */
const NAMESPACE_DEADLINE_MS = 10_000;

/**
 * Opens a namespace of a real API server as the API of a run. Requests are executed one at a time, and each is
 * answered only after every watch has reported its changes. Nothing is therefore late in fake time, and the sender
 * of each change is known.
 *
 * @param changed called for each change, from a watch of this run
 * @param failed called when the API server does not do its part within a generous time
 */
export async function openRealApi(
  server: RealServer,
  changed: (change: ApiChange) => void,
  failed: (error: unknown) => void,
): Promise<SimApi> {
  const namespace = `sim-${randomBytes(5).toString('hex')}`;
  const objects = new Map(RESOURCES.map((resource) => [resource, new Map<string, ApiServerObject>()]));
  const ownWatches = new Map<string, RealWatch>();
  /** In the order in which they were opened, each with lines that have not been delivered yet. */
  const watches = new Map<RealWatch, (() => void)[]>();
  /** Continue tokens that no compaction has invalidated. */
  const tokens = new Set<string>();
  let version = 0;
  let writer = 'server';
  let state: NamespaceState = 'active';
  let lastRequest: Promise<unknown> = Promise.resolve();

  function enqueue<T>(work: () => Promise<T>): Promise<T> {
    const done = lastRequest.then(work);
    lastRequest = done.catch(() => undefined);
    return done;
  }

  const collection = (resource: string): string =>
    `/apis/${API_KINDS[resource]?.apiVersion ?? ''}/namespaces/${namespace}/${resource}`;

  function handleLine(resource: string, { type, object, version: at, text }: WatchLine): void {
    const byName = objects.get(resource);
    const { name } = object.metadata;
    if (byName === undefined || (type !== 'ADDED' && type !== 'MODIFIED' && type !== 'DELETED')) {
      failed(new Error(`a watch of ${resource} shows ${text.slice(0, 200)}`));
      return;
    }
    const before = byName.get(name);
    if (type === 'DELETED') byName.delete(name);
    else byName.set(name, object);
    version = Math.max(version, at);
    changed({ resource, type, version: at, object, text: JSON.stringify(object), before, actor: writer });
  }

  /** Waits until all watches have reported what a request has changed. */
  async function waitUntilObserved(
    { method, path }: ApiRequest,
    { status, text }: ApiResponse,
  ): Promise<void> {
    const { resource } = parseApiPath(path);
    const watch = ownWatches.get(resource);
    if (method === 'GET' || status < 200 || status > 299 || watch === undefined) return;
    const answered = JSON.parse(text) as Partial<ApiServerObject> & { details?: { uid?: string } };
    const { metadata, details } = answered;
    const deletedUid =
      details?.uid ??
      (metadata?.deletionTimestamp !== undefined && (metadata.finalizers ?? []).length === 0
        ? metadata.uid
        : undefined);
    if (deletedUid === undefined) await watch.waitForVersion(Number(metadata?.resourceVersion ?? 0));
    else {
      // Only the event carries the version of a deletion.
      const exists = (): boolean =>
        [...(objects.get(resource)?.values() ?? [])].some(
          (candidate) => candidate.metadata.uid === deletedUid,
        );
      while (exists()) await watch.waitForVersion(watch.version + 1);
    }
    const affected = [...watches].filter(([candidate]) => candidate.resource === resource);
    await Promise.all(affected.map(([candidate]) => candidate.waitForVersion(watch.version)));
    for (const [, lines] of affected) flush(lines);
  }

  /** Delivers lines in the order of the watches, whichever connection was fastest. */
  function flush(lines: (() => void)[]): void {
    for (const line of lines.splice(0)) line();
  }

  async function execute(request: ApiRequest): Promise<ApiResponse> {
    const { method, path, body, actor } = request;
    const { query, resource } = parseApiPath(path);
    const token = query.get('continue');
    if (token !== null && !tokens.has(token)) {
      return responses.expired('The provided continue parameter is too old');
    }
    writer = actor;
    const answer = await server.send(method, path, body);
    if (answer.status === 200 || answer.status === 201) {
      const { metadata } = JSON.parse(answer.text) as {
        metadata?: { continue?: string; resourceVersion?: string };
      };
      if (metadata?.continue !== undefined && metadata.continue !== '') tokens.add(metadata.continue);
      // A list's version can belong to a write in another namespace.
      if (method !== 'GET') version = Math.max(version, Number(metadata?.resourceVersion ?? 0));
    }
    if (resource !== 'events') await waitUntilObserved(request, answer);
    writer = 'server';
    return answer;
  }

  async function handle(request: ApiRequest): Promise<ApiResponse> {
    try {
      return await enqueue(() => execute(request));
    } catch (error) {
      failed(error);
      return responses.unavailable();
    }
  }

  async function sendAsServer(
    method: 'POST' | 'PUT' | 'DELETE',
    path: string,
    body?: object,
  ): Promise<number> {
    const { status } = await server.send(method, path, body === undefined ? undefined : JSON.stringify(body));
    return status;
  }

  /** Waits until a create is answered as expected: the admission plugin learns of namespaces from a watch. */
  async function waitForCreateStatus(expectedStatus: number): Promise<void> {
    const probe = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: 'probe' },
      spec: {},
    };
    const untilMs = performance.now() + NAMESPACE_DEADLINE_MS;
    for (;;) {
      const status = await sendAsServer('POST', `${collection('leases')}?dryRun=All`, probe);
      if (status === expectedStatus) return;
      if (performance.now() > untilMs) {
        throw new Error(`create in a ${state} namespace: answered ${status}, expected ${expectedStatus}`);
      }
    }
  }

  async function deleteAll(resource: string): Promise<void> {
    for (const { metadata } of objects.get(resource)?.values() ?? []) {
      const path = `${collection(resource)}/${metadata.name}`;
      if (metadata.finalizers !== undefined) {
        await execute({ method: 'PATCH', path, body: '{"metadata":{"finalizers":null}}', actor: 'server' });
      }
      if (objects.get(resource)?.has(metadata.name) === true) {
        await execute({ method: 'DELETE', path, actor: 'server' });
      }
    }
  }

  const namespaceObject = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } };

  /** Does what kube-controller-manager does to a namespace, at the times of the schedule. */
  async function transitionTo(next: NamespaceState): Promise<void> {
    if (next === state || (next === 'terminating' && state === 'missing')) return;
    const path = `/api/v1/namespaces/${namespace}`;
    if (next === 'terminating') {
      await sendAsServer('DELETE', path);
      state = next;
      await waitForCreateStatus(403);
      return;
    }
    if (state === 'terminating') {
      for (const resource of RESOURCES) await deleteAll(resource);
      await sendAsServer('PUT', `${path}/finalize`, { ...namespaceObject, spec: { finalizers: [] } });
      state = 'missing';
      await waitForCreateStatus(404);
    }
    if (next === 'missing') return;
    await sendAsServer('POST', '/api/v1/namespaces', namespaceObject);
    state = next;
    await waitForCreateStatus(201);
  }

  function open(
    resource: string,
    path: string,
    fromVersion: number,
    onLine: (line: WatchLine) => void,
  ): RealWatch {
    return openRealWatch({ resource, path, fromVersion }, server.sendWatch, onLine);
  }

  await sendAsServer('POST', '/api/v1/namespaces', namespaceObject);
  await waitForCreateStatus(201);
  for (const resource of RESOURCES) {
    const { text } = await server.send('GET', collection(resource), undefined);
    const from = (JSON.parse(text) as { metadata: { resourceVersion: string } }).metadata.resourceVersion;
    version = Math.max(version, Number(from));
    const path = `${collection(resource)}?watch=1&timeoutSeconds=3600&resourceVersion=${from}`;
    const watch = open(resource, path, Number(from), (line) => handleLine(resource, line));
    ownWatches.set(resource, watch);
    await watch.opened;
  }

  const runGuarded = (work: () => Promise<void>): Promise<void> => enqueue(work).catch(failed);

  return {
    namespace,
    memory: undefined,
    handle,
    get version() {
      return version;
    },
    isServed: (resource) => resource in API_KINDS,
    watch({ resource, path, fromVersion }, line) {
      const lines: (() => void)[] = [];
      const watch = open(
        resource,
        path,
        fromVersion,
        ({ version: at, text }) => void lines.push(() => line(text, at)),
      );
      watches.set(watch, lines);
      const ready = async (): Promise<void> => {
        await watch.opened;
        await watch.waitForVersion(ownWatches.get(resource)?.version ?? 0);
        flush(lines);
      };
      return {
        ready: runGuarded(ready),
        stop() {
          watches.delete(watch);
          watch.stop();
        },
      };
    },
    objects: (resource) => objects.get(resource)?.values() ?? [],
    get: (resource, name) => objects.get(resource)?.get(name),
    compact: () => tokens.clear(),
    deleteAll: (resource) => runGuarded(() => deleteAll(resource)),
    setNamespaceState: (next) => runGuarded(() => transitionTo(next)),
    close() {
      for (const watch of [...ownWatches.values(), ...watches.keys()]) watch.stop();
      return Promise.resolve();
    },
  };
}
