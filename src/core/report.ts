import { exceedsLength, findForbiddenCharacter, quote } from './text.ts';
import { stripTenantPrefix, type Tunnel } from './tunnel.ts';

/** A report that has passed validation, in wire order. */
export interface Report {
  /** True if `added` contains every tunnel that the reporter holds. */
  readonly fullPush: boolean;
  readonly added: readonly Tunnel[];
  readonly removedNames: readonly string[];
}

/** The identity of an initiator as received; parts that are missing on the wire are "". */
export interface ReportedIdentity {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
}

/** Why a part of a report is rejected. Also the `reason` label of metrics, so the set is closed. */
export type ViolationReason =
  | 'missing'
  | 'empty'
  | 'too_long'
  | 'forbidden_character'
  | 'negative'
  | 'changed'
  /** The value is valid, but no ReverseTunnelPolicy allows it. */
  | 'policy';

/** An error in a report. */
export interface Violation {
  /** Path in terms of the wire protocol, such as `added_tunnels[3].identity.tenant_id`. */
  readonly field: string;
  readonly reason: ViolationReason;
  /** One sentence that names the field, the truncated value and the limit; contains no control characters. */
  readonly message: string;
}

/** The parts of a report that violate the contract or a policy. */
export interface RejectedTunnels {
  readonly count: number;
  readonly byReason: ReadonlyMap<ViolationReason, number>;
  /** The first few violations, for messages; there may be a million. */
  readonly first: readonly Violation[];
}

/** Maximum length of a tunnel name in code points. Envoy's own names have at most 257 (`tenant:node`). */
export const MAX_TUNNEL_NAME = 512;
/** Maximum length in code points that the wire contract sets for each part of an identity, without the tenant prefix. */
export const MAX_IDENTITY_PART = 128;
/** Maximum length of node.id and of node.cluster in code points. */
export const MAX_REPORTER_PART = 256;

/**
 * Checks a tunnel by the rules of the wire contract: it has a name and an identity, and each part of the identity has 1
 * to 128 characters. Envoy exceeds the 128 when it adds the tenant prefix to a part, so the prefix does not count.
 *
 * @param identity undefined if the message did not contain the field
 * @param field returns the path of the tunnel, such as `added_tunnels[3]`
 */
export function tunnelViolation(
  name: string,
  identity: ReportedIdentity | undefined,
  field: () => string,
): Violation | undefined {
  const nameViolation = textViolation('name', name, MAX_TUNNEL_NAME);
  if (nameViolation !== undefined) return prefixViolation(field(), nameViolation);
  if (identity === undefined) {
    return { field: `${field()}.identity`, reason: 'missing', message: `${field()}.identity: required` };
  }
  const { tenantID, clusterID, nodeID } = identity;
  const violation =
    textViolation('tenant_id', tenantID, MAX_IDENTITY_PART) ??
    textViolation('cluster_id', stripTenantPrefix(tenantID, clusterID), MAX_IDENTITY_PART) ??
    textViolation('node_id', stripTenantPrefix(tenantID, nodeID), MAX_IDENTITY_PART);
  return violation === undefined ? undefined : prefixViolation(`${field()}.identity`, violation);
}

/** Checks the identity of a reporter: `node.id` is required, `node.cluster` may be empty, each has at most 256 characters. */
export function reporterViolation(id: string, cluster: string): Violation | undefined {
  return (
    textViolation('node.id', id, MAX_REPORTER_PART) ??
    optionalTextViolation('node.cluster', cluster, MAX_REPORTER_PART)
  );
}

/** Checks a required text of 1 to `limit` code points. */
export function textViolation(field: string, value: string, limit: number): Violation | undefined {
  if (value === '') return { field, reason: 'empty', message: `${field}: must not be empty` };
  return optionalTextViolation(field, value, limit);
}

/** Checks a text of at most `limit` code points, which may be empty. */
export function optionalTextViolation(field: string, value: string, limit: number): Violation | undefined {
  if (exceedsLength(value, limit)) {
    return {
      field,
      reason: 'too_long',
      // Does not name the length: counting the largest value that fits a message would block the process for a second.
      message: `${field}: ${quote(value)} exceeds ${limit} characters`,
    };
  }
  const character = findForbiddenCharacter(value);
  if (character !== undefined) {
    return {
      field,
      reason: 'forbidden_character',
      message: `${field}: ${quote(value)} contains ${character}; control characters and direction overrides are not allowed`,
    };
  }
  return undefined;
}

function prefixViolation(path: string, violation: Violation): Violation {
  return { ...violation, field: `${path}.${violation.field}`, message: `${path}.${violation.message}` };
}
