import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import type { AuthenticateCall } from './call-authentication.ts';
import type { CallRefusal, RefuseCall } from './call-refusals.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import type { ReportResponse } from './proto.ts';
import type { TokenCheck, TokenVerdict } from './token-checks.ts';

/** A review takes milliseconds, and is given up after 5 s; the rest is for those before it. Envoy comes back after 5 s. */
const LONGEST_WAIT_MS = 10_000;

/** How a call is told apart, and how it is refused. */
export interface AdmissionParts {
  readonly authenticate: AuthenticateCall;
  readonly refuse: RefuseCall;
  readonly clock: Clock;
}

type Call = ServerDuplexStream<Buffer, ReportResponse>;

/**
 * Lets a call in when it is known whose it is. Nothing of it is read before: what its peer sends meanwhile stays in
 * HTTP/2's windows, and how many calls of a connection wait is held against it.
 */
export class Admission {
  readonly #parts: AdmissionParts;
  readonly #waiting = new Set<(refusal: CallRefusal) => void>();

  constructor(parts: AdmissionParts) {
    this.#parts = parts;
  }

  /** @param admitted called once, at once where nothing has to be waited for, or never */
  admit(
    call: Call,
    connection: ConnectionGuard | undefined,
    admitted: (credential: Credential) => void,
  ): void {
    const found = this.#parts.authenticate(call.metadata, connection);
    if ('credential' in found) {
      admitted(found.credential);
      return;
    }
    const address = connection?.address ?? 'unknown';
    const refuse = (reason: CallRefusal): void =>
      void call.emit('error', this.#parts.refuse(reason, address));
    if ('refused' in found) {
      // On this connection it would be refused for ever; on a new one its peer shows what certificate it has by now.
      if (found.refused === 'certificate_expired' || found.refused === 'connection_max_age')
        connection?.retire();
      refuse(found.refused);
      return;
    }
    void this.#wait(found, call, connection).then((verdict) => {
      if (call.cancelled) return undefined;
      return 'credential' in verdict ? admitted(verdict.credential) : refuse(verdict.refused);
    });
  }

  /** The verdict, or what ends the wait for it. */
  async #wait(check: TokenCheck, call: Call, connection: ConnectionGuard | undefined): Promise<TokenVerdict> {
    const givenUp = Promise.withResolvers<TokenVerdict>();
    const giveUp = (refused: CallRefusal): void => givenUp.resolve({ refused });
    const cancelDeadline = this.#parts.clock.setTimer(LONGEST_WAIT_MS, () => giveUp('review_timeout'));
    this.#waiting.add(giveUp);
    // Then nobody is there to be told, whatever it is.
    call.once('cancelled', () => giveUp('review_timeout'));
    // May cut the connection, where too many of its calls wait.
    connection?.unproven(1);
    const verdict = await Promise.race([check.verdict, givenUp.promise]);
    cancelDeadline();
    this.#waiting.delete(giveUp);
    check.leave();
    connection?.unproven(-1);
    return verdict;
  }

  /** Refuses those that wait: this server goes. */
  close(): void {
    for (const giveUp of this.#waiting) giveUp('shutdown');
  }
}
