import type {
  ObservedTunnel,
  TunnelManifest,
  TunnelObject,
  TunnelObjectStatus,
} from '../core/tunnel-object.ts';
import type { ResourceClient } from './resource-client.ts';
import type { ReporterObject, ReporterStatusPatch } from '../core/reporter-object.ts';
import { MANAGED_BY_LABELS } from '../core/labels.ts';
import { ApiError } from './api-error.ts';
import type { PolicyObject, PolicyStatus } from '../core/policy-object.ts';
import { rfc3339Micro } from '../timestamps.ts';

/** The API group of the kinds in `crds/`, and the version that this program reads and writes. */
export const API_GROUP = 'reverse-tunnel.io';
export const API_VERSION = 'v1alpha1';

/** What stands in `apiVersion` of each object. */
export const GROUP_VERSION = `${API_GROUP}/${API_VERSION}`;

/** A kind of that group by its plural, in a namespace. */
export function customResource<P extends string>(plural: P, namespace: string) {
  return { group: API_GROUP, version: API_VERSION, plural, namespace } as const;
}

/** A worker waits for it: no longer than for a write. */
const READ_TIMEOUT_MS = 10_000;

/** Where rows live: the resource that `crds/reversetunnels.yaml` defines. */
export function tunnelResource(namespace: string) {
  return customResource('reversetunnels', namespace);
}

/**
 * The writes on rows as the API server takes them. A patch's precondition is the resourceVersion alone: a uid is
 * ignored by /status and refused by the main resource. A deletion's is both.
 */
export function createTunnelApi(client: ResourceClient<TunnelObject>) {
  return {
    create: ({ name, labels, spec }: TunnelManifest): Promise<TunnelObject> =>
      client.create({ apiVersion: GROUP_VERSION, kind: 'ReverseTunnel', metadata: { name, labels }, spec }),

    patch: (
      object: ObservedTunnel,
      change: { labels: Readonly<Record<string, string>>; createdAt: string | null },
    ): Promise<TunnelObject> =>
      client.patch(object.name, {
        metadata: { resourceVersion: object.resourceVersion, labels: change.labels },
        spec: { createdAt: change.createdAt },
      }),

    patchStatus: (object: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject> =>
      client.patchStatus(object.name, { metadata: { resourceVersion: object.resourceVersion }, status }),

    delete: (object: ObservedTunnel): Promise<TunnelObject | undefined> =>
      client.delete(object.name, { uid: object.uid, resourceVersion: object.resourceVersion }),

    /** By a list, which needs no right beyond those that the watch needs. */
    async read(name: string): Promise<TunnelObject | undefined> {
      const { items } = await client.list({
        fieldSelector: `metadata.name=${name}`,
        timeoutMs: READ_TIMEOUT_MS,
      });
      return items[0];
    },
  };
}

/** Argo CD is not to look at an Application again for each change of an object that is in none. Rows go without: see decision 7. */
const ARGOCD_ANNOTATIONS = { 'argocd.argoproj.io/ignore-resource-updates': 'true' };

/** Where reporters' objects live: the resource that `crds/reversetunnelreporters.yaml` defines. */
export function reporterResource(namespace: string) {
  return customResource('reversetunnelreporters', namespace);
}

/** The calls on reporters' objects as the API server takes them. */
export function createReporterApi(client: ResourceClient<ReporterObject>) {
  return {
    create: (name: string, spec: ReporterObject['spec']): Promise<ReporterObject> =>
      client.create({
        apiVersion: GROUP_VERSION,
        kind: 'ReverseTunnelReporter',
        metadata: { name, labels: MANAGED_BY_LABELS, annotations: ARGOCD_ANNOTATIONS },
        spec,
      }),

    patchStatus: (
      name: string,
      resourceVersion: string,
      status: ReporterStatusPatch,
    ): Promise<ReporterObject> => client.patchStatus(name, { metadata: { resourceVersion }, status }),

    /** By a GET, which the API server answers from etcd's quorum: what it shows is not older than the request. */
    async read(name: string): Promise<ReporterObject | undefined> {
      try {
        return await client.get(name);
      } catch (error) {
        if (error instanceof ApiError && error.kind === 'not_found') return undefined;
        throw error;
      }
    },

    delete: (name: string, uid: string, resourceVersion: string): Promise<ReporterObject | undefined> =>
      client.delete(name, { uid, resourceVersion }),
  };
}

/** Where policies live: the resource that `crds/reversetunnelpolicies.yaml` defines. */
export function policyResource(namespace: string) {
  return customResource('reversetunnelpolicies', namespace);
}

/** The one write on policies: they are people's, and only their status is the operator's. */
export function createPolicyApi(client: ResourceClient<PolicyObject>) {
  return {
    patchStatus: (name: string, resourceVersion: string, status: PolicyStatus): Promise<PolicyObject> =>
      client.patchStatus(name, { metadata: { resourceVersion }, status }),
  };
}

/** What an event says. */
export interface EventContent {
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, at most 128. */
  readonly reason: string;
  readonly action: string;
  /** For people; cut to what the API server takes. */
  readonly note: string;
}

/** The object that an event is about; without its uid `kubectl describe` does not show the event. */
export interface Regarding {
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

/** The API server counts bytes here. */
const MAX_NOTE_BYTES = 1024;
const REPORTING_CONTROLLER = 'reverse-tunnel.io/operator';

/** Where events live, beside the objects that they are about. */
export function eventResource(namespace: string) {
  return { group: 'events.k8s.io', version: 'v1', plural: 'events', namespace } as const;
}

/** Sends events of one process. @param instance at most 128 characters count */
export function createEventApi(
  client: Pick<ResourceClient<object>, 'create'>,
  namespace: string,
  instance: string,
) {
  return {
    async create(regarding: Regarding, content: EventContent, wallMs: number): Promise<void> {
      await client.create({
        apiVersion: 'events.k8s.io/v1',
        kind: 'Event',
        metadata: { generateName: `${regarding.name}-` },
        eventTime: rfc3339Micro(wallMs),
        reportingController: REPORTING_CONTROLLER,
        reportingInstance: instance.slice(0, 128),
        regarding: { apiVersion: 'reverse-tunnel.io/v1alpha1', namespace, ...regarding },
        ...content,
        note: truncateNote(content.note),
      });
    },
  };
}

function truncateNote(note: string): string {
  const bytes = Buffer.from(note);
  if (bytes.length <= MAX_NOTE_BYTES) return note;
  // A character that was cut in two becomes U+FFFD, which takes no more bytes than it had.
  return bytes
    .subarray(0, MAX_NOTE_BYTES - 3)
    .toString()
    .replace(/\ufffd$/, '');
}
