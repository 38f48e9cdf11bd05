import { stripTenantPrefix } from './tenant-prefix.ts';
import type { Tunnel } from './tunnel.ts';
import {
  MAX_IDENTITY_PART,
  MAX_REPORTER_PART,
  MAX_TUNNEL_NAME,
  optionalTextViolation,
  textViolation,
  type Violation,
} from './violation.ts';

/** A report that has passed validation, in the order of the wire. */
export interface Report {
  /** True: `added` is everything the reporter holds. */
  readonly fullPush: boolean;
  readonly added: readonly Tunnel[];
  readonly removedNames: readonly string[];
}

/** An initiator's identity as it came; each part "" when the wire left it out. */
export interface ReportedIdentity {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
}

/**
 * Checks one tunnel by the rules of the wire contract: a name, an identity, each part of it 1 to 128 characters.
 * Envoy does not hold itself to the 128 when it adds the tenant's scope to a part, so the scope does not count.
 *
 * @param identity undefined when the message left the field out
 * @param field where it stood, as `added_tunnels[3]`
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

/** Checks who reports: `node.id` is required, `node.cluster` may be empty, neither longer than 256 characters. */
export function reporterViolation(id: string, cluster: string): Violation | undefined {
  return (
    textViolation('node.id', id, MAX_REPORTER_PART) ??
    optionalTextViolation('node.cluster', cluster, MAX_REPORTER_PART)
  );
}

function prefixViolation(path: string, violation: Violation): Violation {
  return { ...violation, field: `${path}.${violation.field}`, message: `${path}.${violation.message}` };
}
