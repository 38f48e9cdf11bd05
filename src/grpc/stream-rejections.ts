import { status } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { createLogThrottle } from '../log-throttle.ts';

/**
 * Why a call is refused before anything that it sends is read. The keys are the metric's only labels.
 *
 * `UNAUTHENTICATED`: it is refused again until its credential is another. `UNAVAILABLE`: the same call may be let in the
 * next time. Envoy comes back after either; people who read its log are told which it is.
 */
const REJECTIONS = {
  no_credential: {
    code: status.UNAUTHENTICATED,
    message: 'missing credential: send `authorization: Bearer TOKEN`',
  },
  malformed_token: { code: status.UNAUTHENTICATED, message: 'not a ServiceAccount token' },
  token_expired: { code: status.UNAUTHENTICATED, message: 'token has expired' },
  token_audience: { code: status.UNAUTHENTICATED, message: 'token is for another audience' },
  token_rejected: {
    code: status.UNAUTHENTICATED,
    message: 'token rejected by the API server for this audience',
  },
  certificate_expired: { code: status.UNAUTHENTICATED, message: 'client certificate has expired' },
  connection_max_age: {
    code: status.UNAVAILABLE,
    message: 'connection exceeded its maximum age; reconnect',
  },
  review_error: { code: status.UNAVAILABLE, message: 'token review failed' },
  review_timeout: { code: status.UNAVAILABLE, message: 'token review timed out' },
  shutdown: { code: status.UNAVAILABLE, message: 'the operator is shutting down' },
} as const;

/** Why a call is refused. */
export type StreamRejectionReason = keyof typeof REJECTIONS;

/** Counts a refused call and logs it, one line a reason and minute; gives what its peer is told. */
export type RejectStream = (
  reason: StreamRejectionReason,
  address: string,
) => { readonly code: status; readonly details: string };

/** Refusals that share one count of lines a minute. */
export function createStreamRejector(options: {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): RejectStream {
  const { clock, log, metrics } = options;
  const throttled = createLogThrottle(clock);
  return (reason, address) => {
    const { code, message } = REJECTIONS[reason];
    metrics.streamsRejected.inc({ reason });
    throttled(reason, (more) => log.warn({ address, reason, error: message, ...more }, 'stream rejected'));
    return { code, details: message };
  };
}
