import type { Consequence } from '../core/consequence.ts';
import type { ApiFailure } from './row-api.ts';

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
const LEAVES: Readonly<Record<Consequence, 'raced' | 'unknown' | 'ended' | 'rejected' | 'later'>> = {
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
export function isUnsettled({ consequence }: ApiFailure): boolean {
  return LEAVES[consequence] === 'raced' || LEAVES[consequence] === 'unknown';
}

/** True where the call is to be counted as no failure: it was overtaken, or given up. */
export function isOvertaken({ consequence }: ApiFailure): boolean {
  return LEAVES[consequence] === 'raced' || LEAVES[consequence] === 'ended';
}

/** True where tries are to be far apart, and somebody is to be told. */
export function isRefusal({ consequence }: ApiFailure): boolean {
  return LEAVES[consequence] === 'rejected';
}

/** Another reporter's object stands under the name of this one's: as good as a refusal, until somebody deletes it. */
export function nameTaken(name: string): ApiFailure {
  const error = new Error(
    `claim ReverseTunnelReporter ${name}: name is taken by another reporter's object; delete it`,
  );
  return Object.assign(error, {
    consequence: 'rejected' as const,
    status: undefined,
    retryAfterMs: undefined,
  });
}
