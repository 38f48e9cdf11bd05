import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { AuthenticateCall } from './call-authentication.ts';
import type { StreamRejectionReason, RejectStream } from './stream-rejections.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import type { ReportResponse } from './proto.ts';
import type { PendingAuthentication, AuthenticationResult } from './token-authenticator.ts';

/** A review takes milliseconds, and is given up after 5 s; the rest is for those before it. Envoy comes back after 5 s. */
const AUTHENTICATION_TIMEOUT_MS = 10_000;

/** How a call is told apart, and how it is refused. */
export interface StreamAuthenticatorOptions {
  readonly authenticate: AuthenticateCall;
  readonly reject: RejectStream;
  readonly clock: Clock;
}

type Call = ServerDuplexStream<Buffer, ReportResponse>;

/**
 * Lets a call in when it is known whose it is. Nothing of it is read before: what its peer sends meanwhile stays in
 * HTTP/2's windows, and how many calls of a connection wait is held against it.
 */
export class StreamAuthenticator {
  readonly #options: StreamAuthenticatorOptions;
  readonly #abortPending = new Set<(refusal: StreamRejectionReason) => void>();

  constructor(options: StreamAuthenticatorOptions) {
    this.#options = options;
  }

  /** @param onAuthenticated called once, at once where nothing has to be waited for, or never */
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
      // On this connection it would be refused for ever; on a new one its peer shows what certificate it has by now.
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

  /** The verdict, or what ends the wait for it. */
  async #awaitReview(
    pending: PendingAuthentication,
    call: Call,
    connection: ConnectionGuard | undefined,
  ): Promise<AuthenticationResult> {
    const aborted = Promise.withResolvers<AuthenticationResult>();
    const abort = (refused: StreamRejectionReason): void => aborted.resolve({ rejected: refused });
    const cancelDeadline = this.#options.clock.setTimer(AUTHENTICATION_TIMEOUT_MS, () =>
      abort('review_timeout'),
    );
    this.#abortPending.add(abort);
    // Then nobody is there to be told, whatever it is.
    call.once('cancelled', () => abort('review_timeout'));
    // May cut the connection, where too many of its calls wait.
    connection?.changePendingAuthentications(1);
    const result = await Promise.race([pending.result, aborted.promise]);
    cancelDeadline();
    this.#abortPending.delete(abort);
    pending.cancel();
    connection?.changePendingAuthentications(-1);
    return result;
  }

  /** Refuses those that wait: this server goes. */
  close(): void {
    for (const abort of this.#abortPending) abort('shutdown');
  }
}
