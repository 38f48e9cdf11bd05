/** A control plane of a measurement's own, with the CRDs in place and ways in for ServiceAccounts. */
import { setTimeout as delay } from 'node:timers/promises';
import type { AdminRequest } from '../control-plane/service-account.ts';
import { startControlPlane } from '../control-plane/start.ts';
import { applyCrds } from '../test/support/apply-crds.ts';
import { OPERATOR_RBAC_RULES } from '../test/support/operator-process.ts';

export const API = '/apis/reverse-tunnel.io/v1alpha1';
/** The API server's first seconds go into its own start: caches, OpenAPI, the CRDs' storage. */
const SETTLE_MS = 3000;

/** A ServiceAccount's way in, with the rights that the operator needs and no more, in a namespace of its own. */
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
  /** Undefined unless the world was opened with it. */
  readonly auditLogPath: string | undefined;
  /** As the administrator, on a connection of its own. */
  readonly request: AdminRequest;
  /** Makes the namespace and an account in it. */
  access(namespace: string): Promise<Access>;
  /** Rows of a namespace, by one list of a single row. */
  countObjects(namespace: string): Promise<number>;
}

/**
 * Starts etcd and kube-apiserver, anew for each measurement, so that none pays for what another one left behind.
 *
 * @param audit the API server writes each row request into a log: for counts, not for speed
 */
export async function openBenchCluster({ audit }: { readonly audit: boolean }): Promise<BenchCluster> {
  const controlPlane = await startControlPlane({ audit });
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
    auditLogPath: controlPlane.auditLogPath,
    request,
    async access(namespace) {
      const { status, body } = await request('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
      if (status !== 201) throw new Error(`namespace ${namespace}: ${status} ${JSON.stringify(body)}`);
      const account = { namespace, serviceAccount: 'reverse-tunnel-operator', rules: OPERATOR_RBAC_RULES };
      return { namespace, ...(await controlPlane.kubeconfigFor(account)) };
    },
    async countObjects(namespace) {
      const path = `${API}/namespaces/${namespace}/reversetunnels?limit=1`;
      const { status, body } = await request('GET', path);
      if (status !== 200) throw new Error(`counting rows: ${status} ${JSON.stringify(body)}`);
      const page = body as { items: unknown[]; metadata: { remainingItemCount?: number } };
      return page.items.length + (page.metadata.remainingItemCount ?? 0);
    },
    [Symbol.asyncDispose]: () => controlPlane.stop(),
  };
}
