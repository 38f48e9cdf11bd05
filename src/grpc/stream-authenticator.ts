import type { Metadata, ServerDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { ANONYMOUS } from '../core/peer.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import type { ReportResponse } from './messages.ts';
import type { StreamRejectionReason, RejectStream } from './rejections.ts';
import type {
  AuthenticationResult,
  PendingAuthentication,
  TokenAuthenticator,
} from './token-authenticator.ts';

/** RFC 6750, section 2.1. */
const BEARER = /^Bearer +(\S+)$/i;
/** A review takes milliseconds and times out after 5 s; the remainder is for reviews queued before it. */
const AUTHENTICATION_TIMEOUT_MS = 10_000;

/** Authenticates a call from its connection and metadata, or starts a token review. */
export type AuthenticateCall = (
  metadata: Metadata,
  connection: Pick<ConnectionGuard, 'address' | 'certificate' | 'ageMs'> | undefined,
) => AuthenticationResult | PendingAuthentication;

/** Accepts every call as anonymous (`--auth insecure`). */
export const allowAnonymous: AuthenticateCall = () => ({
  credential: { peer: ANONYMOUS, expiresMs: undefined },
});

/**
 * Authenticates calls by the connection's certificate or, if it has none, by the call's bearer token.
 *
 * @param maxAgeMs how long the certificate of a connection is trusted: otherwise a peer that ends each stream before
 *   its maximum age could stay until the certificate expires
 * @param tokens undefined: only certificates are accepted
 */
export function authenticateCalls(
  clock: Clock,
  maxAgeMs: number,
  tokens: TokenAuthenticator | undefined,
): AuthenticateCall {
  return (metadata, connection) => {
    const certificate = connection?.certificate;
    if (certificate !== undefined) {
      const result = checkExpiry(certificate, clock);
      return 'credential' in result && connection !== undefined && connection.ageMs >= maxAgeMs
        ? { rejected: 'connection_max_age' }
        : result;
    }
    const [header, extra] = metadata.get('authorization');
    const token = typeof header === 'string' && extra === undefined ? BEARER.exec(header)?.[1] : undefined;
    return token === undefined || tokens === undefined
      ? { rejected: 'no_credential' }
      : tokens.authenticate(token, connection?.address ?? 'unknown');
  };
}

/** Checks the certificate again: a connection without a stream may outlive its certificate. */
function checkExpiry(certificate: Credential, clock: Clock): AuthenticationResult {
  return (certificate.expiresMs ?? 0) <= clock.wallMs()
    ? { rejected: 'certificate_expired' }
    : { credential: certificate };
}

/** How calls are authenticated and rejected. */
export interface StreamAuthenticatorOptions {
  readonly authenticate: AuthenticateCall;
  readonly reject: RejectStream;
  readonly clock: Clock;
}

type Call = ServerDuplexStream<Buffer, ReportResponse>;

/**
 * Accepts calls once their peer is authenticated. Nothing is read from a call until then: the data that its peer sends
 * stays within HTTP/2's flow-control windows, and the pending calls of a connection count against its quota.
 */
export class StreamAuthenticator {
  readonly #options: StreamAuthenticatorOptions;
  readonly #abortPending = new Set<(reason: StreamRejectionReason) => void>();

  constructor(options: StreamAuthenticatorOptions) {
    this.#options = options;
  }

  /** @param onAuthenticated called at most once; synchronously if no token review is needed */
  authenticate(
    call: Call,
    connection: ConnectionGuard | undefined,
    onAuthenticated: (credential: Credential) => void,
  ): void {
    const outcome = this.#options.authenticate(call.metadata, connection);
    if ('credential' in outcome) {
      onAuthenticated(outcome.credential);
      return;
    }
    const address = connection?.address ?? 'unknown';
    const reject = (reason: StreamRejectionReason): void =>
      void call.emit('error', this.#options.reject(reason, address));
    if ('rejected' in outcome) {
      // This connection would be rejected forever; on a new one, the peer presents its current certificate.
      if (outcome.rejected === 'certificate_expired' || outcome.rejected === 'connection_max_age')
        connection?.drain();
      reject(outcome.rejected);
      return;
    }
    void this.#awaitReview(outcome, call, connection).then((result) => {
      if (call.cancelled) return undefined;
      return 'credential' in result ? onAuthenticated(result.credential) : reject(result.rejected);
    });
  }

  /** Rejects all pending calls because the server is shutting down. */
  close(): void {
    for (const abort of this.#abortPending) abort('shutdown');
  }

  /** Resolves with the result of the review, or with the reason why it was aborted. */
  async #awaitReview(
    pending: PendingAuthentication,
    call: Call,
    connection: ConnectionGuard | undefined,
  ): Promise<AuthenticationResult> {
    const aborted = Promise.withResolvers<AuthenticationResult>();
    const abort = (reason: StreamRejectionReason): void => aborted.resolve({ rejected: reason });
    const cancelDeadline = this.#options.clock.setTimer(AUTHENTICATION_TIMEOUT_MS, () =>
      abort('review_timeout'),
    );
    this.#abortPending.add(abort);
    // The reason does not matter: the caller ignores the result of a cancelled call.
    call.once('cancelled', () => abort('review_timeout'));
    // May terminate the connection if too many of its calls are pending.
    connection?.changePendingAuthentications(1);
    const result = await Promise.race([pending.result, aborted.promise]);
    cancelDeadline();
    this.#abortPending.delete(abort);
    pending.cancel();
    connection?.changePendingAuthentications(-1);
    return result;
  }
}
