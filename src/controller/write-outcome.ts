import type { ApiErrorKind } from '../core/kubernetes.ts';
import type { ApiFailure } from './tunnel-object-api.ts';

/**
 * What a failed call about a reporter's object leaves behind. Every consequence has its line, so that a new one is not
 * taken for something by being forgotten.
 *
 * - `raced`: somebody else was quicker, and the object is not as it was.
 * - `unknown`: it may have been done or not; only a read tells.
 * - `ended`: this replica itself gave it up.
 * - `rejected`: nothing will change before somebody changes something.
 * - `later`: nothing was done, and the same call may be sent again.
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

/** True where ownership is in doubt: what became of the write is not known, or the object is not as it was. */
export function isOutcomeUnknown({ kind }: ApiFailure): boolean {
  return OUTCOMES[kind] === 'raced' || OUTCOMES[kind] === 'unknown';
}

/** True where the call is to be counted as no failure: it was overtaken, or given up. */
export function isBenignConflict({ kind }: ApiFailure): boolean {
  return OUTCOMES[kind] === 'raced' || OUTCOMES[kind] === 'ended';
}

/** True where tries are to be far apart, and somebody is to be told. */
export function isTerminal({ kind }: ApiFailure): boolean {
  return OUTCOMES[kind] === 'rejected';
}

/** Another reporter's object stands under the name of this one's: as good as a refusal, until somebody deletes it. */
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
