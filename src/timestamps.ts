/** RFC 3339 in UTC, to the second, as Kubernetes writes its own times. @param wallMs since 1970 */
export function rfc3339(wallMs: number): string {
  return new Date(wallMs).toISOString().replace(/\.\d+Z$/, 'Z');
}

/**
 * `metav1.MicroTime`: RFC 3339 in UTC with exactly six fraction digits. With three, as `Date` writes them, the API server
 * refuses a Lease or an Event.
 *
 * @param wallMs since 1970; parts of a millisecond are dropped
 */
export function rfc3339Micro(wallMs: number): string {
  return new Date(wallMs).toISOString().replace('Z', '000Z');
}
