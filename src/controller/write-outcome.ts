import type { ApiErrorKind } from '../core/kubernetes.ts';
import type { RewrittenField } from '../core/rewrite.ts';

/** A failed API call, reduced to what the controllers react to. */
export interface ApiFailure extends Error {
  readonly kind: ApiErrorKind;
  /** The HTTP status; undefined if there was no response. */
  readonly status: number | undefined;
  /** The delay that the API server asks for; undefined if it does not. */
  readonly retryAfterMs: number | undefined;
}

/** Returns true for errors of `TunnelObjectApi` and `ReporterObjectApi`; every other error is a bug. */
export function isApiFailure(error: unknown): error is ApiFailure {
  return error instanceof Error && 'kind' in error;
}

/**
 * The effect of a failed write to a reporter object. Every kind has an entry, so that a new kind cannot be handled by
 * accident.
 *
 * - `raced`: another write came first; the object has changed.
 * - `unknown`: the write may or may not have taken effect; only a read can tell.
 * - `ended`: this replica cancelled the call.
 * - `rejected`: the call will fail until something changes on the server.
 * - `later`: the write had no effect; the same call can be repeated.
 */
const OUTCOMES: Readonly<Record<ApiErrorKind, 'raced' | 'unknown' | 'ended' | 'rejected' | 'later'>> = {
  conflict: 'raced',
  already_exists: 'raced',
  not_found: 'raced',
  unavailable: 'unknown',
  unexpected_response: 'unknown',
  cancelled: 'ended',
  rejected: 'rejected',
  unauthorized: 'rejected',
  no_kind_match: 'rejected',
  namespace_not_found: 'rejected',
  terminating: 'rejected',
  throttled: 'later',
  expired: 'later',
  resource_version_too_large: 'later',
};

/** Returns true if ownership is uncertain: the effect of the write is unknown, or the object has changed. */
export function isOutcomeUnknown({ kind }: ApiFailure): boolean {
  return OUTCOMES[kind] === 'raced' || OUTCOMES[kind] === 'unknown';
}

/** Returns true if the call does not count as a failure: another write came first, or the call was cancelled. */
export function isBenignConflict({ kind }: ApiFailure): boolean {
  return OUTCOMES[kind] === 'raced' || OUTCOMES[kind] === 'ended';
}

/** Returns true if the call must be retried slowly, and the failure must be logged. */
export function isTerminal({ kind }: ApiFailure): boolean {
  return OUTCOMES[kind] === 'rejected';
}

/** Creates the failure of a write that admission rewrote such that it has no effect. It acts as a rejection. */
export function rewrittenError(
  what: string,
  { field, desired, stored }: RewrittenField,
  retryAfterMs: number,
): ApiFailure {
  const error = new Error(
    `${what}: a mutating admission webhook or policy rewrites ${field}: ${desired} was written, ${stored} was stored`,
  );
  return Object.assign(error, { kind: 'rejected' as const, status: undefined, retryAfterMs });
}

/** Creates the failure of a claim whose object name is taken by the object of another reporter. It acts as a rejection. */
export function nameTakenError(name: string): ApiFailure {
  const error = new Error(
    `claim ReverseTunnelReporter ${name}: name is taken by another reporter's object; delete it`,
  );
  return Object.assign(error, {
    kind: 'rejected' as const,
    status: undefined,
    retryAfterMs: undefined,
  });
}
