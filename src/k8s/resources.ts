import type { ExpectationObject, ExpectationStatusPatch } from '../core/expectation-object.ts';
import type { PolicyObject, PolicyStatus } from '../core/policy-object.ts';
import type { ReporterManifest, ReporterObject, ReporterStatusPatch } from '../core/reporter-object.ts';
import type {
  ObservedSlice,
  SliceManifest,
  SliceObject,
  SlicePatch,
  SliceStatusPatch,
} from '../core/slice-object.ts';
import {
  OMITTED_CREATED_AT,
  type ObservedTunnel,
  type TunnelManifest,
  type TunnelObject,
  type TunnelObjectPatch,
  type TunnelObjectStatus,
} from '../core/tunnel-object.ts';
import { rfc3339Micro } from '../timestamps.ts';
import { getIfExists, type ResourceClient } from './resource-client.ts';

/** API group and version of the kinds in `crds/`. */
export const API_GROUP = 'reverse-tunnel.io';
export const API_VERSION = 'v1alpha1';

/** `apiVersion` of each object. */
export const GROUP_VERSION = `${API_GROUP}/${API_VERSION}`;

/** Returns the location of a namespaced resource of that group. */
function customResource<P extends string>(plural: P, namespace: string) {
  return { group: API_GROUP, version: API_VERSION, plural, namespace } as const;
}

/** A worker waits for the read, so its limit is that of a write. */
const READ_TIMEOUT_MS = 10_000;

/** Returns the location of ReverseTunnel objects (`crds/reversetunnels.yaml`). */
export function tunnelResource(namespace: string) {
  return customResource('reversetunnels', namespace);
}

/** Returns the body of the request that creates a ReverseTunnel. */
export function tunnelBody({ name, labels, annotations, spec }: TunnelManifest): object {
  const metadata = annotations === undefined ? { name, labels } : { name, labels, annotations };
  return { apiVersion: GROUP_VERSION, kind: 'ReverseTunnel', metadata, spec };
}

/**
 * Calls on ReverseTunnel objects. The only precondition of a patch is the resourceVersion: /status ignores a uid, and
 * the main resource rejects it. A delete has both as preconditions.
 */
export function createTunnelApi(client: ResourceClient<TunnelObject>) {
  return {
    create: (manifest: TunnelManifest): Promise<TunnelObject> => client.create(tunnelBody(manifest)),

    patch: (object: ObservedTunnel, change: TunnelObjectPatch): Promise<TunnelObject> =>
      client.patch(object.name, {
        metadata: {
          resourceVersion: object.resourceVersion,
          labels: change.labels,
          annotations: { [OMITTED_CREATED_AT]: change.omittedCreatedAt },
        },
        spec: { createdAt: change.createdAt },
      }),

    patchStatus: (object: ObservedTunnel, status: TunnelObjectStatus): Promise<TunnelObject> =>
      client.patchStatus(object.name, { metadata: { resourceVersion: object.resourceVersion }, status }),

    delete: (object: ObservedTunnel): Promise<TunnelObject | undefined> =>
      client.delete(object.name, { uid: object.uid, resourceVersion: object.resourceVersion }),

    read: (name: string): Promise<TunnelObject | undefined> => readWithList(client, name),
  };
}

/** Reads an object with a list, which needs no permission beyond those of the watch. */
async function readWithList<T>(client: ResourceClient<T>, name: string): Promise<T | undefined> {
  const { items } = await client.list({
    fieldSelector: `metadata.name=${name}`,
    timeoutMs: READ_TIMEOUT_MS,
  });
  return items[0];
}

/** Returns the location of ReverseTunnelSlice objects (`crds/reversetunnelslices.yaml`). */
export function sliceResource(namespace: string) {
  return customResource('reversetunnelslices', namespace);
}

/** Calls on ReverseTunnelSlice objects, with the preconditions of those on ReverseTunnel objects. */
export function createSliceApi(client: ResourceClient<SliceObject>) {
  return {
    create: ({ name, labels, spec }: SliceManifest): Promise<SliceObject> =>
      client.create({
        apiVersion: GROUP_VERSION,
        kind: 'ReverseTunnelSlice',
        metadata: { name, labels },
        spec,
      }),

    /** Replaces the list of entries; a merge patch leaves the metadata of others as it is. */
    patch: (slice: ObservedSlice, { labels, tunnelCount, tunnels }: SlicePatch): Promise<SliceObject> =>
      client.patch(slice.name, {
        metadata: { resourceVersion: slice.resourceVersion, labels },
        spec: { tunnelCount, tunnels },
      }),

    patchStatus: (slice: ObservedSlice, status: SliceStatusPatch): Promise<SliceObject> =>
      client.patchStatus(slice.name, { metadata: { resourceVersion: slice.resourceVersion }, status }),

    delete: (slice: ObservedSlice): Promise<SliceObject | undefined> =>
      client.delete(slice.name, { uid: slice.uid, resourceVersion: slice.resourceVersion }),

    read: (name: string): Promise<SliceObject | undefined> => readWithList(client, name),
  };
}

/** Returns the location of ReverseTunnelReporter objects (`crds/reversetunnelreporters.yaml`). */
export function reporterResource(namespace: string) {
  return customResource('reversetunnelreporters', namespace);
}

/** Calls on ReverseTunnelReporter objects. */
export function createReporterApi(client: ResourceClient<ReporterObject>) {
  return {
    create: (manifest: ReporterManifest): Promise<ReporterObject> =>
      client.create({ apiVersion: GROUP_VERSION, kind: 'ReverseTunnelReporter', ...manifest }),

    patchStatus: (
      name: string,
      resourceVersion: string,
      status: ReporterStatusPatch,
    ): Promise<ReporterObject> => client.patchStatus(name, { metadata: { resourceVersion }, status }),

    /**
     * Reads with a GET, which the API server answers from etcd's quorum: the result is not older than the request.
     */
    read: (name: string): Promise<ReporterObject | undefined> => getIfExists(client, name),

    delete: (name: string, uid: string, resourceVersion: string): Promise<ReporterObject | undefined> =>
      client.delete(name, { uid, resourceVersion }),
  };
}

/** Returns the location of ReverseTunnelPolicy objects (`crds/reversetunnelpolicies.yaml`). */
export function policyResource(namespace: string) {
  return customResource('reversetunnelpolicies', namespace);
}

/** Calls on ReverseTunnelPolicy objects. Users own them; the operator writes only their status. */
export function createPolicyApi(client: ResourceClient<PolicyObject>) {
  return {
    patchStatus: (name: string, resourceVersion: string, status: PolicyStatus): Promise<PolicyObject> =>
      client.patchStatus(name, { metadata: { resourceVersion }, status }),
  };
}

/** Returns the location of ReverseTunnelExpectation objects (`crds/reversetunnelexpectations.yaml`). */
export function expectationResource(namespace: string) {
  return customResource('reversetunnelexpectations', namespace);
}

/** Calls on ReverseTunnelExpectation objects. Users own them; the operator writes only their status. */
export function createExpectationApi(client: ResourceClient<ExpectationObject>) {
  return {
    patchStatus: (
      name: string,
      resourceVersion: string,
      status: ExpectationStatusPatch,
    ): Promise<ExpectationObject> => client.patchStatus(name, { metadata: { resourceVersion }, status }),
  };
}

/** The content of an Event. */
export interface EventContent {
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, at most 128 characters. */
  readonly reason: string;
  readonly action: string;
  /** Human-readable message; truncated to the API server's limit. */
  readonly note: string;
}

/** The object that an Event is about. Without the uid, `kubectl describe` does not show the Event. */
export interface Regarding {
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

/** The API server counts bytes here. */
const MAX_NOTE_BYTES = 1024;
const REPORTING_CONTROLLER = 'reverse-tunnel.io/operator';

/** Returns the location of Events, in the namespace of the objects that they are about. */
export function eventResource(namespace: string) {
  return { group: 'events.k8s.io', version: 'v1', plural: 'events', namespace } as const;
}

/**
 * Creates the writer for this process's Events.
 *
 * @param instance name of this process; truncated to 128 characters
 */
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
        regarding: { apiVersion: GROUP_VERSION, namespace, ...regarding },
        ...content,
        note: truncateNote(content.note),
      });
    },
  };
}

function truncateNote(note: string): string {
  const bytes = Buffer.from(note);
  if (bytes.length <= MAX_NOTE_BYTES) return note;
  // A truncated character becomes U+FFFD, which takes no more bytes than the part that it replaces.
  return bytes
    .subarray(0, MAX_NOTE_BYTES - 3)
    .toString()
    .replace(/\ufffd$/, '');
}
