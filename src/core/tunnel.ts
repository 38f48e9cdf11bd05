/**
 * The nouns of the wire, validated: what a reporter says it holds.
 *
 * Two node ids meet here. `ReporterId.id` is the Envoy that reports (the responder); `Tunnel.nodeID` is the
 * Envoy behind the tunnel (the initiator).
 */

/** A reporting Envoy: its `node.cluster` (may be empty) and `node.id`. Both together are its identity, everywhere. */
export interface ReporterId {
  readonly cluster: string;
  readonly id: string;
}

/** A tunnel as reported by one reporter. Unique by `name` within that reporter. Never changed in place. */
export interface Tunnel {
  /** At least 1 character; Envoy sends the initiator's node id, or `tenant:node` under tenant isolation. */
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Canonical RFC 3339 text in UTC (see `created-at.ts`); undefined when not reported or not representable. */
  readonly createdAt: string | undefined;
}

/** One text for a reporter, equal for equal reporters and only for them, whatever characters the parts hold. */
export function reporterKey(reporter: ReporterId): string {
  return `${reporter.cluster.length}:${reporter.cluster}${reporter.id}`;
}

/** The reporter of a key that `reporterKey` gave. */
export function parseReporterKey(key: string): ReporterId {
  const colon = key.indexOf(':');
  const idAt = colon + 1 + Number(key.slice(0, colon));
  return { cluster: key.slice(colon + 1, idAt), id: key.slice(idAt) };
}

/** True when both name the same initiator; `createdAt` is no part of the identity. */
export function sameIdentity(a: Tunnel, b: Tunnel): boolean {
  return a.tenantID === b.tenantID && a.clusterID === b.clusterID && a.nodeID === b.nodeID;
}

/** True when a row for `a` also says what `b` says. Both are taken to have the same name. */
export function sameTunnel(a: Tunnel, b: Tunnel): boolean {
  return a === b || (a.createdAt === b.createdAt && sameIdentity(a, b));
}
