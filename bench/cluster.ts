/** A control plane for one scenario, with the CRDs and ServiceAccounts. */
import { setTimeout as delay } from 'node:timers/promises';
import type { AdminRequest } from '../control-plane/service-account.ts';
import { startControlPlane, type ControlPlaneOptions } from '../control-plane/start.ts';
import { applyCrds } from '../test/support/apply-crds.ts';
import { OPERATOR_RBAC_RULES } from '../test/support/operator-process.ts';

export const API = '/apis/reverse-tunnel.io/v1alpha1';
/** In its first seconds, the API server is busy with its start: caches, OpenAPI, storage of the CRDs. */
const SETTLE_MS = 3000;

/** The credentials of a ServiceAccount with exactly the permissions of the operator, in a separate namespace. */
export interface Access {
  readonly namespace: string;
  readonly kubeconfigPath: string;
  readonly token: string;
}

export interface BenchCluster extends AsyncDisposable {
  /** `https://127.0.0.1:<port>`. */
  readonly url: string;
  /** PEM. */
  readonly ca: string;
  readonly adminToken: string;
  /** Process ID of kube-apiserver. */
  readonly apiserverPid: number;
  /** The JSON gateway of etcd. */
  readonly etcdUrl: string;
  /** Undefined unless the cluster was opened with `audit`. */
  readonly auditLogPath: string | undefined;
  /** Sends a request as the administrator on a new connection. */
  readonly request: AdminRequest;
  /** Creates a namespace and a ServiceAccount in it. */
  access(namespace: string): Promise<Access>;
  /** Returns the number of ReverseTunnels in a namespace, using one list with limit 1. */
  countObjects(namespace: string): Promise<number>;
}

/**
 * Starts etcd and kube-apiserver. Each scenario starts its own, so that leftovers of others have no effect.
 *
 * @param options `audit`: whether the API server logs each request for tunnels, which is needed to count writes
 */
export async function openBenchCluster(
  options: Pick<ControlPlaneOptions, 'audit' | 'etcdFlags'>,
): Promise<BenchCluster> {
  const controlPlane = await startControlPlane(options);
  try {
    await applyCrds(controlPlane);
    await delay(SETTLE_MS);
  } catch (error) {
    await controlPlane.stop();
    throw error;
  }
  const { request } = controlPlane;
  return {
    url: controlPlane.url,
    ca: controlPlane.caData,
    adminToken: controlPlane.adminToken,
    apiserverPid: controlPlane.apiserver.pid ?? Number.NaN,
    etcdUrl: controlPlane.etcdUrl,
    auditLogPath: controlPlane.auditLogPath,
    request,
    async access(namespace) {
      const { status, body } = await request('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
      if (status !== 201) throw new Error(`create namespace ${namespace}: ${status} ${JSON.stringify(body)}`);
      const account = { namespace, serviceAccount: 'reverse-tunnel-operator', rules: OPERATOR_RBAC_RULES };
      return { namespace, ...(await controlPlane.kubeconfigFor(account)) };
    },
    async countObjects(namespace) {
      const path = `${API}/namespaces/${namespace}/reversetunnels?limit=1`;
      const { status, body } = await request('GET', path);
      if (status !== 200) throw new Error(`count ReverseTunnels: ${status} ${JSON.stringify(body)}`);
      const page = body as { items: unknown[]; metadata: { remainingItemCount?: number } };
      return page.items.length + (page.metadata.remainingItemCount ?? 0);
    },
    [Symbol.asyncDispose]: () => controlPlane.stop(),
  };
}
