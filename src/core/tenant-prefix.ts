/**
 * Tenant isolation in Envoy sends `tenant:node` and `tenant:cluster` as the initiator's ids beside the bare tenant.
 *
 * @returns `value` without a leading `tenantID:`; `value` itself when it has no such scope or is nothing but the scope
 */
export function stripTenantPrefix(tenantID: string, value: string): string {
  const prefixLength = tenantID.length + 1;
  return value.length > prefixLength &&
    value.charCodeAt(tenantID.length) === 0x3a &&
    value.startsWith(tenantID)
    ? value.slice(prefixLength)
    : value;
}
