import type { TunnelIdentity } from './tunnel-registry.ts';

/** How the simulated initiators are spread. */
export interface InitiatorPlan {
  readonly tenants: number;
  readonly clusters: number;
  /** Scope node and cluster ids by the tenant, as Envoy does under tenant isolation. tenantID stays bare. */
  readonly tenantIsolation: boolean;
}

/** The initiator with this serial number, from 0: tenants take turns, and within a tenant its clusters do. */
export function initiator(serial: number, plan: InitiatorPlan): TunnelIdentity {
  const tenantID = `tenant-${serial % plan.tenants}`;
  const clusterID = `cluster-${Math.floor(serial / plan.tenants) % plan.clusters}`;
  const nodeID = `node-${serial}`;
  return plan.tenantIsolation
    ? { tenantID, clusterID: `${tenantID}:${clusterID}`, nodeID: `${tenantID}:${nodeID}` }
    : { tenantID, clusterID, nodeID };
}
