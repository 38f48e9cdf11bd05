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
   * As reported, by the clock of the initiator: canonical RFC 3339 text in UTC (see `formatCreatedAt`); undefined if not
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

/** Returns true if both name the same initiator; `createdAt` is not part of the identity. */
export function sameIdentity(a: Tunnel, b: Tunnel): boolean {
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

/** 0001-01-01T00:00:00Z, the minimum of google.protobuf.Timestamp, in seconds since 1970. */
const MIN_SECONDS = -62_135_596_800;
/** 9999-12-31T23:59:59Z, the maximum of google.protobuf.Timestamp. */
const MAX_SECONDS = 253_402_300_799;

/**
 * Formats `created_at` in the canonical form: RFC 3339 in UTC with 0, 3, 6 or 9 fraction digits, the fewest that
 * represent `nanos` (as in protobuf's JSON mapping). The API server stores `format: date-time` exactly as sent and
 * compares it as text, so equal times must have equal texts. It also rejects years outside 0000 to 9999, so a time that
 * it would reject is omitted.
 *
 * @param seconds since 1970, whole; may be negative
 * @param nanos 0 to 999,999,999, counted forward from `seconds`
 * @returns undefined if either is out of the range of google.protobuf.Timestamp
 */
export function formatCreatedAt(seconds: number, nanos: number): string | undefined {
  if (!(seconds >= MIN_SECONDS && seconds <= MAX_SECONDS && nanos >= 0 && nanos <= 999_999_999)) {
    return undefined;
  }
  // oxlint-disable-next-line no-restricted-globals -- formats a given time; does not read the clock
  const wholeSeconds = new Date(seconds * 1000).toISOString().slice(0, 19);
  return `${wholeSeconds}${formatFraction(nanos)}Z`;
}

function formatFraction(nanos: number): string {
  if (nanos === 0) return '';
  const nineDigits = String(nanos).padStart(9, '0');
  if (nanos % 1_000_000 === 0) return `.${nineDigits.slice(0, 3)}`;
  if (nanos % 1000 === 0) return `.${nineDigits.slice(0, 6)}`;
  return `.${nineDigits}`;
}
