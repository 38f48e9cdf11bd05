import { status } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { sparingly } from './sparing-log.ts';

/**
 * Why a call is refused before anything that it sends is read. The keys are the metric's only labels.
 *
 * `UNAUTHENTICATED`: it is refused again until its credential is another. `UNAVAILABLE`: the same call may be let in the
 * next time. Envoy comes back after either; people who read its log are told which it is.
 */
const REFUSALS = {
  no_credential: {
    code: status.UNAUTHENTICATED,
    words: 'missing credential: send `authorization: Bearer TOKEN`',
  },
  malformed_token: { code: status.UNAUTHENTICATED, words: 'not a ServiceAccount token' },
  token_expired: { code: status.UNAUTHENTICATED, words: 'token has expired' },
  token_audience: { code: status.UNAUTHENTICATED, words: 'token is for another audience' },
  token_rejected: {
    code: status.UNAUTHENTICATED,
    words: 'token rejected by the API server for this audience',
  },
  certificate_expired: { code: status.UNAUTHENTICATED, words: 'client certificate has expired' },
  connection_max_age: {
    code: status.UNAVAILABLE,
    words: 'connection exceeded its maximum age; reconnect',
  },
  review_error: { code: status.UNAVAILABLE, words: 'token review failed' },
  review_timeout: { code: status.UNAVAILABLE, words: 'token review timed out' },
  shutdown: { code: status.UNAVAILABLE, words: 'the operator is shutting down' },
} as const;

/** Why a call is refused. */
export type CallRefusal = keyof typeof REFUSALS;

/** Counts a refused call and logs it, one line a reason and minute; gives what its peer is told. */
export type RefuseCall = (
  reason: CallRefusal,
  address: string,
) => { readonly code: status; readonly details: string };

/** Refusals that share one count of lines a minute. */
export function createCallRefusals(parts: {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): RefuseCall {
  const { clock, log, metrics } = parts;
  const say = sparingly(clock);
  return (reason, address) => {
    const { code, words } = REFUSALS[reason];
    metrics.callsRefused.inc({ reason });
    say(reason, (more) => log.warn({ address, reason, error: words, ...more }, 'stream rejected'));
    return { code, details: words };
  };
}
