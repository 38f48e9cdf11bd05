import type { ReportedTunnel } from '../grpc/report-message.ts';
import type { TunnelUpdates } from './envoy-client.ts';

/** Who is behind a tunnel. Envoy's name for the tunnel is `nodeID`, scoped by the tenant where tenants are isolated. */
export interface TunnelIdentity {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
}

/**
 * What one Envoy holds, as its event reporter counts it: connections by name. The first connection of a name is
 * an add, the last one gone is a removal; those between change nothing, also not the identity or created_at.
 */
export interface TunnelRegistry {
  /** One more connection from this initiator. */
  connect(identity: TunnelIdentity): void;
  /** One connection of that name is gone. False when there was none. */
  disconnect(name: string): boolean;
  /** The tunnel of that name, if it is up. */
  get(name: string): ReportedTunnel | undefined;
  /** The tunnels that are up, in the order they came up; a new array. */
  all(): ReportedTunnel[];
  /** Tunnels that are up, each name once. */
  readonly size: number;
}

/**
 * An empty registry.
 * @param nowMicros Microseconds since 1970: the created_at of a tunnel that comes up.
 * @param onUpdate Told of each add and removal at once, in the order of time.
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
