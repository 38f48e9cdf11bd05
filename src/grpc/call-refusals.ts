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
    words: 'it has no credential: `authorization: Bearer` and a token are wanted',
  },
  malformed_token: { code: status.UNAUTHENTICATED, words: 'the token is none of a ServiceAccount' },
  token_expired: { code: status.UNAUTHENTICATED, words: 'the token has expired' },
  token_audience: { code: status.UNAUTHENTICATED, words: 'the token is for another audience' },
  token_refused: {
    code: status.UNAUTHENTICATED,
    words: 'the API server does not accept the token for this audience',
  },
  certificate_expired: { code: status.UNAUTHENTICATED, words: 'the client certificate has expired' },
  connection_aged: {
    code: status.UNAVAILABLE,
    words: 'the certificate was shown as long ago as may be; come back on a new connection',
  },
  review_failed: { code: status.UNAVAILABLE, words: 'the token could not be reviewed' },
  review_late: { code: status.UNAVAILABLE, words: 'the token was not reviewed in time' },
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
    say(reason, (more) => log.warn({ address, reason, ...more }, `stream refused: ${words}`));
    return { code, details: words };
  };
}
