/**
 * The validated terms of the wire protocol.
 *
 * There are two node IDs: `ReporterId.id` names the Envoy that reports (the responder), `Tunnel.nodeID` the Envoy at the
 * other end of the tunnel (the initiator).
 */

/** The identity of a reporting Envoy everywhere: its `node.cluster`, which may be empty, and its `node.id`. */
export interface ReporterId {
  readonly cluster: string;
  readonly id: string;
}

/** A tunnel as reported by one reporter. Unique by `name` within that reporter, and immutable. */
export interface Tunnel {
  /** Not empty; Envoy sends the initiator's node ID, or `tenant:node` under tenant isolation. */
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /**
   * As reported, by the clock of the initiator: canonical RFC 3339 text in UTC (see `grpc/created-at`); undefined if not
   * reported or not representable.
   */
  readonly createdAt: string | undefined;
}

/** Returns a text that is equal for equal reporters and for no others, whatever characters the parts contain. */
export function reporterKey(reporter: ReporterId): string {
  return `${reporter.cluster.length}:${reporter.cluster}${reporter.id}`;
}

/** Returns the reporter that `reporterKey` was called with. */
export function parseReporterKey(key: string): ReporterId {
  const colon = key.indexOf(':');
  const idStart = colon + 1 + Number(key.slice(0, colon));
  return { cluster: key.slice(colon + 1, idStart), id: key.slice(idStart) };
}

/** The initiator of a tunnel. Envoy names the tunnel after `nodeID`, with the tenant prefix under tenant isolation. */
export type TunnelIdentity = Pick<Tunnel, 'tenantID' | 'clusterID' | 'nodeID'>;

/** Returns true if both name the same initiator; `createdAt` is not part of the identity. */
export function sameIdentity(a: TunnelIdentity, b: TunnelIdentity): boolean {
  return a.tenantID === b.tenantID && a.clusterID === b.clusterID && a.nodeID === b.nodeID;
}

/** Returns true if both tunnels, which must have the same name, have equal objects. */
export function sameTunnel(a: Tunnel, b: Tunnel): boolean {
  return a === b || (a.createdAt === b.createdAt && sameIdentity(a, b));
}

/**
 * Removes the prefix that Envoy adds to the initiator's node and cluster IDs under tenant isolation: it sends
 * `tenant:node` and `tenant:cluster` in addition to the bare tenant ID.
 *
 * @returns `value` without a leading `tenantID:`, or `value` itself if it has no such prefix or nothing after it
 */
export function stripTenantPrefix(tenantID: string, value: string): string {
  const prefixLength = tenantID.length + 1;
  return value.length > prefixLength &&
    value.charCodeAt(tenantID.length) === 0x3a &&
    value.startsWith(tenantID)
    ? value.slice(prefixLength)
    : value;
}
