/** RFC 3339 in UTC, to the second, as Kubernetes writes its own times. @param wallMs since 1970 */
export function rfc3339(wallMs: number): string {
  return new Date(wallMs).toISOString().replace(/\.\d+Z$/, 'Z');
}
