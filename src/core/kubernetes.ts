/** Conventions of the Kubernetes API that apply to all kinds. */

/**
 * The kind of a failed API request. The set is closed, and callers decide only by the kind:
 *
 * - `conflict`: the object is not at the version that the write was meant for (409); read it again.
 * - `already_exists`: an object of that name exists and may be terminating (409 AlreadyExists).
 * - `not_found`: no object of that name exists (404).
 * - `expired`: the resourceVersion or the continue token has been compacted (410); list again.
 * - `resource_version_too_large`: the resourceVersion is newer than the store (504) because etcd was restored; list
 *   again without it.
 * - `throttled`: too many requests, or not ready yet (429, 503 with Retry-After).
 * - `rejected`: the same request fails until the request or the cluster changes (400, 403, 405, 413, 422 …).
 * - `unauthorized`: the credentials were rejected even after they were reloaded (401), or could not be obtained.
 * - `no_kind_match`: the API server does not know the resource (404 in plain text); the CRD is not installed, or is being
 *   deleted.
 * - `namespace_not_found`: the namespace does not exist (404).
 * - `terminating`: the namespace is being deleted; nothing can be created in it.
 * - `unavailable`: no response, or the API server failed (no connection, reset, timeout, 5xx); the request may have been executed.
 * - `unexpected_response`: the response does not come from an API server but from a proxy or a login page, for example.
 * - `cancelled`: the caller's signal was aborted, or the client was closed.
 */
export type ApiErrorKind =
  | 'conflict'
  | 'already_exists'
  | 'not_found'
  | 'expired'
  | 'resource_version_too_large'
  | 'throttled'
  | 'rejected'
  | 'unauthorized'
  | 'no_kind_match'
  | 'namespace_not_found'
  | 'terminating'
  | 'unavailable'
  | 'unexpected_response'
  | 'cancelled';

/** A condition of an object (metav1.Condition). */
export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  /** RFC 3339 with a precision of seconds. */
  readonly lastTransitionTime: string;
  readonly observedGeneration?: number;
}

/** The content of a condition, without its transition time and generation. */
export type ConditionContent = Omit<Condition, 'lastTransitionTime' | 'observedGeneration'>;

/** Returns the condition of a type, of which there is at most one. */
export function findCondition<C extends { readonly type: string }>(
  conditions: readonly C[] | undefined,
  type: string,
): C | undefined {
  return conditions?.find((condition) => condition.type === type);
}

/**
 * Builds a condition. The transition time is kept if the status does not change.
 *
 * @param conditions the current conditions of the object
 * @param now RFC 3339 with a precision of seconds
 */
export function buildCondition(
  content: ConditionContent,
  conditions: readonly Condition[] | undefined,
  now: string,
  observedGeneration: number,
): Condition {
  const previous = findCondition(conditions, content.type);
  const lastTransitionTime = previous?.status === content.status ? previous.lastTransitionTime : now;
  return { ...content, lastTransitionTime, observedGeneration };
}

/**
 * Compares two resourceVersions of one resource; versions of different resources must not be compared. They are decimal
 * numbers of any length without leading zeros, so a longer text is the greater number, and texts of equal length compare
 * as text. Kubernetes documents this from version 1.35 on (KEP-5504).
 *
 * @returns a negative number if `a` is older, 0 if both are equal, a positive number if `a` is newer
 */
export function compareResourceVersions(a: string, b: string): number {
  if (a.length !== b.length) return a.length - b.length;
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
