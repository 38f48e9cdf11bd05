/** Objects written to a real API server as the administrator, for tests of the CRDs themselves. */
import { expect } from 'chai';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { createNamespace } from './control-plane.ts';

const API_PATH = '/apis/reverse-tunnel.io/v1alpha1';

/** A spec with distinct values for every column and selector. */
export const TUNNEL_SPEC = {
  tunnelName: 'acme:node-17',
  tenantID: 'acme',
  clusterID: 'eu-1',
  nodeID: 'node-17',
  reporter: { id: 'responder-0', cluster: 'edge' },
  createdAt: '2026-11-23T05:00:00.123456Z',
};

/** The spec of a slice with two tunnels, one of which has every field. */
export const SLICE_SPEC = {
  reporter: TUNNEL_SPEC.reporter,
  tenantID: TUNNEL_SPEC.tenantID,
  tunnelCount: 2,
  tunnels: [
    { name: 'acme:node-17', clusterID: 'eu-1', nodeID: 'node-17', createdAt: TUNNEL_SPEC.createdAt },
    { name: 'acme:node-18', clusterID: 'eu-1', nodeID: 'node-18' },
  ],
} as const;

/** The part of an object that tests read. */
export interface StoredObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly managedFields: readonly { readonly subresource?: string; readonly fieldsV1: object }[];
  };
  readonly spec: object;
  readonly status: object;
}

export interface WriteResult {
  readonly code: number;
  /** The resulting object; undefined when the write was rejected. */
  readonly object: StoredObject | undefined;
  /** Rejected fields with the reason, for example `spec.nodeID FieldValueTooLong`. */
  readonly rejected: readonly string[];
}

/** A namespace for the tests of one suite. */
export type CrdNamespace = Awaited<ReturnType<typeof createCrdNamespace>>;

/** Plural names, as used in paths. */
export type Resource =
  | 'reversetunnels'
  | 'reversetunnelreporters'
  | 'reversetunnelpolicies'
  | 'reversetunnelexpectations'
  | 'reversetunnelslices';

const KINDS = {
  reversetunnels: 'ReverseTunnel',
  reversetunnelreporters: 'ReverseTunnelReporter',
  reversetunnelpolicies: 'ReverseTunnelPolicy',
  reversetunnelexpectations: 'ReverseTunnelExpectation',
  reversetunnelslices: 'ReverseTunnelSlice',
};

/** Creates a namespace on a control plane with the CRDs. It is not deleted; it ends with the control plane. */
export async function createCrdNamespace(plane: ControlPlaneClient) {
  const name = await createNamespace(plane, 'crd');
  const path = (resource: Resource): string => `${API_PATH}/namespaces/${name}/${resource}`;
  const kubectl = async (args: readonly string[]) => plane.kubectl(['--namespace', name, ...args]);
  return {
    name,
    /** Creates an object with the given or a generated name. With `dryRun`, it is validated but not stored. */
    async create(
      resource: Resource,
      { name: objectName, ...content }: { name?: string; spec: unknown; status?: unknown },
      dryRun = false,
    ): Promise<WriteResult> {
      const metadata = objectName === undefined ? { generateName: 'object-' } : { name: objectName };
      const body = { apiVersion: 'reverse-tunnel.io/v1alpha1', kind: KINDS[resource], metadata, ...content };
      return toWriteResult(
        await plane.request('POST', `${path(resource)}${dryRun ? '?dryRun=All' : ''}`, body),
      );
    },
    async get(resource: Resource, objectName: string): Promise<StoredObject> {
      const { status, body } = await plane.request('GET', `${path(resource)}/${objectName}`);
      expect(status, JSON.stringify(body)).to.equal(200);
      return body as StoredObject;
    },
    /**
     * Returns the names of the objects that match a field selector, in order; undefined when the API server rejects
     * the selector.
     */
    async select(resource: Resource, fieldSelector: string): Promise<readonly string[] | undefined> {
      const query = new URLSearchParams({ fieldSelector });
      const { status, body } = await plane.request('GET', `${path(resource)}?${query.toString()}`);
      if (status === 400) return undefined;
      expect(status, JSON.stringify(body)).to.equal(200);
      return (body as { items: StoredObject[] }).items.map((item) => item.metadata.name);
    },
    /** Runs kubectl in this namespace and returns its stdout; fails when kubectl fails. */
    async kubectl(...args: string[]): Promise<string> {
      const { code, stdout, stderr } = await kubectl(args);
      expect(code, `kubectl ${args.join(' ')}: ${stderr}`).to.equal(0);
      return stdout;
    },
    /** Runs kubectl in this namespace and returns its stderr; fails when kubectl succeeds. */
    async kubectlRejected(...args: string[]): Promise<string> {
      const { code, stdout, stderr } = await kubectl(args);
      expect(code, `kubectl ${args.join(' ')} printed ${stdout}`).to.equal(1);
      return stderr;
    },
  };
}

function toWriteResult({ status, body }: { status: number; body: unknown }): WriteResult {
  if (status < 300) return { code: status, object: body as StoredObject, rejected: [] };
  const { details } = body as { details?: { causes?: { field: string; reason: string }[] } };
  // In addition to the rejected fields, the API server reports under "<nil>" that it did not evaluate CEL rules.
  const rejected = (details?.causes ?? []).filter(({ field }) => field !== '<nil>');
  return {
    code: status,
    object: undefined,
    rejected: rejected.map(({ field, reason }) => `${field} ${reason}`),
  };
}
