import type { TunnelIdentity } from '../core/tunnel.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import type { TunnelUpdates } from './envoy-client.ts';

/** How the simulated initiators are spread over tenants and clusters. */
export interface InitiatorPlan {
  readonly tenants: number;
  /** Per tenant. */
  readonly clusters: number;
  /** Prefix node and cluster IDs with the tenant, as Envoy does under tenant isolation. tenantID has no prefix. */
  readonly tenantIsolation: boolean;
}

/**
 * Returns the initiator with this serial number. Tenants are assigned round-robin, and so are the clusters of a tenant.
 *
 * @param serial from 0
 */
export function initiator(serial: number, plan: InitiatorPlan): TunnelIdentity {
  const tenantID = `tenant-${serial % plan.tenants}`;
  const clusterID = `cluster-${Math.floor(serial / plan.tenants) % plan.clusters}`;
  const nodeID = `node-${serial}`;
  return plan.tenantIsolation
    ? { tenantID, clusterID: `${tenantID}:${clusterID}`, nodeID: `${tenantID}:${nodeID}` }
    : { tenantID, clusterID, nodeID };
}

/**
 * The tunnels of one Envoy, counted as its event reporter does: connections by name. The first connection of a name adds
 * the tunnel, and the end of the last one removes it. Connections in between change nothing, neither identity nor
 * created_at.
 */
export interface TunnelRegistry {
  /** Adds a connection of this initiator. */
  connect(identity: TunnelIdentity): void;
  /** Removes a connection of that name. Returns false if there is none. */
  disconnect(name: string): boolean;
  /** Returns the tunnel of that name; undefined if it is not up. */
  get(name: string): ReportedTunnel | undefined;
  /** Returns the tunnels that are up, in the order in which they came up, in a new array. */
  all(): ReportedTunnel[];
  /** Number of tunnels that are up. */
  readonly size: number;
}

/**
 * Creates an empty registry.
 *
 * @param nowMicros returns microseconds since 1970, for created_at
 * @param onUpdate called synchronously for each add and removal
 */
export function createTunnelRegistry(
  nowMicros: () => number,
  onUpdate: (updates: TunnelUpdates) => void,
): TunnelRegistry {
  const entries = new Map<string, { readonly tunnel: ReportedTunnel; connections: number }>();
  return {
    connect(identity) {
      const entry = entries.get(identity.nodeID);
      if (entry !== undefined) {
        entry.connections += 1;
        return;
      }
      const micros = nowMicros();
      const seconds = Math.floor(micros / 1_000_000);
      const tunnel: ReportedTunnel = {
        name: identity.nodeID,
        tenantID: identity.tenantID,
        clusterID: identity.clusterID,
        nodeID: identity.nodeID,
        createdAt: { seconds, nanos: (Math.floor(micros) - seconds * 1_000_000) * 1000 },
      };
      entries.set(tunnel.name, { tunnel, connections: 1 });
      onUpdate({ connections: [tunnel], disconnections: [] });
    },
    disconnect(name) {
      const entry = entries.get(name);
      if (entry === undefined) return false;
      entry.connections -= 1;
      if (entry.connections > 0) return true;
      entries.delete(name);
      onUpdate({ connections: [], disconnections: [name] });
      return true;
    },
    get: (name) => entries.get(name)?.tunnel,
    all: () => Array.from(entries.values(), ({ tunnel }) => tunnel),
    get size() {
      return entries.size;
    },
  };
}
