import type { Peer } from './peer.ts';
import { peerText } from './policy-set.ts';
import type { ReporterId, Tunnel } from './tunnel.ts';
import { shown, type Violation } from './violation.ts';

/** What is said to a peer that no policy admits, and of it. */
export function peerRefusal(peer: Peer): string {
  return `no ReverseTunnelPolicy admits ${peerText(peer)}`;
}

/** What is wrong with a reporter that its peer may not report as. */
export function reporterRefusal(peer: Peer, { id, cluster }: ReporterId): Violation {
  return {
    field: 'node.id',
    reason: 'policy',
    message: `node.id: ${shown(id)} in node.cluster ${shown(cluster)} is not allowed by any ReverseTunnelPolicy for ${peerText(peer)}`,
  };
}

/** What is wrong with a reporter that another peer holds, whose tunnels this one may not report. */
export function heldRefusal(peer: Peer, { id, cluster }: ReporterId): Violation {
  return {
    field: 'node.id',
    reason: 'policy',
    message:
      `node.id: ${shown(id)} in node.cluster ${shown(cluster)} is held by another peer, which may report tunnels that no ` +
      `ReverseTunnelPolicy allows for ${peerText(peer)}; retry once that peer loses access or its tunnels expire`,
  };
}

/** What is said of a tunnel that its reporter may not report. */
export function outsideMessage({ name, tenantID, clusterID }: Tunnel): string {
  return `tunnel ${shown(name)}: tenant ${shown(tenantID)} in cluster ${shown(clusterID)} is not allowed for this reporter by any ReverseTunnelPolicy`;
}
