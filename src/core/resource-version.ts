/**
 * Order of two resourceVersions of one resource (never of two resources): below 0 when `a` is the older, 0 when equal,
 * above 0 when `a` is the newer. They are decimal numbers without leading zeros, of any length, so the longer text is
 * the greater and equal lengths compare as text: documented from Kubernetes 1.35 on (KEP-5504).
 */
export function compareResourceVersions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
