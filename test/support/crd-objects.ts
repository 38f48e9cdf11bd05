/** Objects of the kinds, written to a real API server as the administrator, for tests of the CRDs themselves. */
import { expect } from 'chai';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { createNamespace } from './control-plane.ts';

const API_PATH = '/apis/reverse-tunnel.io/v1alpha1';

/** A spec whose values are told apart in every column and selector. */
export const TUNNEL_SPEC = {
  tunnelName: 'acme:node-17',
  tenantID: 'acme',
  clusterID: 'eu-1',
  nodeID: 'node-17',
  reporter: { id: 'responder-0', cluster: 'edge' },
  createdAt: '2026-11-23T05:00:00.123456Z',
};

/** What is read of an object of either kind. */
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

/** How the API server answered a write. */
export interface WriteResult {
  readonly code: number;
  /** The object as it is now; undefined when the write was refused. */
  readonly object: StoredObject | undefined;
  /** Each refused field with the reason, as `spec.nodeID FieldValueTooLong`. */
  readonly rejected: readonly string[];
}

/** The kinds in a namespace that no other test uses. */
export interface CrdNamespace {
  readonly name: string;
  /** POST. The name of the object is made up when `name` is left out; `dryRun` validates and stores nothing. */
  create(
    resource: Resource,
    body: { name?: string; spec: unknown; status?: unknown },
    dryRun?: boolean,
  ): Promise<WriteResult>;
  get(resource: Resource, name: string): Promise<StoredObject>;
  /** Names of the objects that a field selector finds, in order; undefined when the API server refuses the selector. */
  select(resource: Resource, fieldSelector: string): Promise<readonly string[] | undefined>;
  /** kubectl in this namespace: what it printed on stdout; fails the test when kubectl does. */
  kubectl(...args: string[]): Promise<string>;
  /** kubectl in this namespace, to fail: what it printed on stderr; fails the test when kubectl does not. */
  kubectlRejected(...args: string[]): Promise<string>;
}

/** The plural names, as they stand in a path. */
export type Resource = 'reversetunnels' | 'reversetunnelreporters' | 'reversetunnelpolicies';

const KINDS = {
  reversetunnels: 'ReverseTunnel',
  reversetunnelreporters: 'ReverseTunnelReporter',
  reversetunnelpolicies: 'ReverseTunnelPolicy',
};

/** Makes a namespace on a control plane that has the CRDs. It is left there: it goes with the control plane. */
export async function createCrdNamespace(plane: ControlPlaneClient): Promise<CrdNamespace> {
  const name = await createNamespace(plane, 'crd');
  const path = (resource: Resource): string => `${API_PATH}/namespaces/${name}/${resource}`;
  const kubectl = async (args: readonly string[]) => plane.kubectl(['--namespace', name, ...args]);
  return {
    name,
    async create(resource, { name: objectName, ...content }, dryRun = false) {
      const metadata = objectName === undefined ? { generateName: 'object-' } : { name: objectName };
      const body = { apiVersion: 'reverse-tunnel.io/v1alpha1', kind: KINDS[resource], metadata, ...content };
      return toWriteResult(
        await plane.request('POST', `${path(resource)}${dryRun ? '?dryRun=All' : ''}`, body),
      );
    },
    async get(resource, objectName) {
      const { status, body } = await plane.request('GET', `${path(resource)}/${objectName}`);
      expect(status, JSON.stringify(body)).to.equal(200);
      return body as StoredObject;
    },
    async select(resource, fieldSelector) {
      const query = new URLSearchParams({ fieldSelector });
      const { status, body } = await plane.request('GET', `${path(resource)}?${query.toString()}`);
      if (status === 400) return undefined;
      expect(status, JSON.stringify(body)).to.equal(200);
      return (body as { items: StoredObject[] }).items.map((item) => item.metadata.name);
    },
    async kubectl(...args) {
      const { code, stdout, stderr } = await kubectl(args);
      expect(code, `kubectl ${args.join(' ')}: ${stderr}`).to.equal(0);
      return stdout;
    },
    async kubectlRejected(...args) {
      const { code, stdout, stderr } = await kubectl(args);
      expect(code, `kubectl ${args.join(' ')} printed ${stdout}`).to.equal(1);
      return stderr;
    },
  };
}

function toWriteResult({ status, body }: { status: number; body: unknown }): WriteResult {
  if (status < 300) return { code: status, object: body as StoredObject, rejected: [] };
  const { details } = body as { details?: { causes?: { field: string; reason: string }[] } };
  // Beside what it refuses, the API server says under "<nil>" that it then left CEL rules unchecked.
  const rejected = (details?.causes ?? []).filter(({ field }) => field !== '<nil>');
  return {
    code: status,
    object: undefined,
    rejected: rejected.map(({ field, reason }) => `${field} ${reason}`),
  };
}
