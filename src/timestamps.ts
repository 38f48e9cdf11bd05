/**
 * Returns RFC 3339 in UTC with seconds, the format of Kubernetes' own timestamps.
 *
 * @param wallMs milliseconds since 1970
 */
export function rfc3339(wallMs: number): string {
  return new Date(wallMs).toISOString().replace(/\.\d+Z$/, 'Z');
}

/**
 * Returns `metav1.MicroTime`: RFC 3339 in UTC with exactly six fraction digits. The API server rejects a Lease or an
 * Event with the three digits that `Date` writes.
 *
 * @param wallMs milliseconds since 1970; fractions are dropped
 */
export function rfc3339Micro(wallMs: number): string {
  return new Date(wallMs).toISOString().replace('Z', '000Z');
}
