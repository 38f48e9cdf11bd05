import type { Peer } from './peer.ts';
import { describePeer } from './policy-set.ts';
import type { ReporterId, Tunnel } from './tunnel.ts';
import { quote, type Violation } from './violation.ts';

/** What is said to a peer that no policy admits, and of it. */
export function peerRejection(peer: Peer): string {
  return `no ReverseTunnelPolicy admits ${describePeer(peer)}`;
}

/** What is wrong with a reporter that its peer may not report as. */
export function reporterRejection(peer: Peer, { id, cluster }: ReporterId): Violation {
  return {
    field: 'node.id',
    reason: 'policy',
    message: `node.id: ${quote(id)} in node.cluster ${quote(cluster)} is not allowed by any ReverseTunnelPolicy for ${describePeer(peer)}`,
  };
}

/** What is wrong with a reporter that another peer holds, whose tunnels this one may not report. */
export function heldByOtherPeer(peer: Peer, { id, cluster }: ReporterId): Violation {
  return {
    field: 'node.id',
    reason: 'policy',
    message:
      `node.id: ${quote(id)} in node.cluster ${quote(cluster)} is held by another peer, which may report tunnels that no ` +
      `ReverseTunnelPolicy allows for ${describePeer(peer)}; retry once that peer loses access or its tunnels expire`,
  };
}

/** What is said of a tunnel that its reporter may not report. */
export function deniedTunnelMessage({ name, tenantID, clusterID }: Tunnel): string {
  return `tunnel ${quote(name)}: tenant ${quote(tenantID)} in cluster ${quote(clusterID)} is not allowed for this reporter by any ReverseTunnelPolicy`;
}
