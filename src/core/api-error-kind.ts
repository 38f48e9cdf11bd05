/**
 * What a failed call to the API server means for what to do next. A closed set: callers decide by it and by nothing
 * else.
 *
 * - `conflict`: the object is another than the one the write was meant for (409); read it again.
 * - `already_exists`: an object of that name is there, perhaps one that is being deleted (409 AlreadyExists).
 * - `not_found`: there is no object of that name (404).
 * - `expired`: the resourceVersion or the continue token is no longer kept (410); list again.
 * - `resource_version_too_large`: the resourceVersion is newer than the store (504): etcd was restored; list again, without it.
 * - `throttled`: too many requests, or not ready yet (429, 503 with Retry-After).
 * - `rejected`: the same request is rejected again until somebody changes something (400, 403, 405, 413, 422 …).
 * - `unauthorized`: the credentials are not accepted, also after they were read again (401), or cannot be had.
 * - `no_kind_match`: the API server does not know the resource (404 in plain text): its CRD is not installed.
 * - `namespace_not_found`: there is no such namespace (404).
 * - `terminating`: the namespace or the CRD is being deleted; nothing can be created there.
 * - `unavailable`: no answer, or the API server failed (refused, reset, timed out, 5xx); it may or may not have acted.
 * - `unexpected_response`: something answered, but not as an API server does: a proxy or login page stands in between.
 * - `cancelled`: the caller's own signal, or the client was closed.
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
