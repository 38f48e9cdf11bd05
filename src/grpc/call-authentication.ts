import type { Metadata } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { ANYBODY } from '../core/peer.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import type { TokenCheck, TokenChecks, TokenVerdict } from './token-checks.ts';

/** RFC 6750, 2.1. */
const BEARER = /^Bearer +(\S+)$/i;

/** Says whose a call is, by its connection and its metadata, or has it found out. */
export type AuthenticateCall = (
  metadata: Metadata,
  connection: Pick<ConnectionGuard, 'address' | 'certificate' | 'ageMs'> | undefined,
) => TokenVerdict | TokenCheck;

/** `--auth insecure`: everybody is let in, and nobody is anyone. */
export const letEverybodyIn: AuthenticateCall = () => ({
  credential: { peer: ANYBODY, expiresMs: undefined },
});

/**
 * By the connection's certificate, or where it has none by the call's token.
 *
 * @param maxAgeMs for how long what a connection has proven counts: a peer that ends each stream before it comes of age
 *   would otherwise stay for as long as its certificate
 * @param tokens undefined: only certificates are taken
 */
export function authenticateCalls(
  clock: Clock,
  maxAgeMs: number,
  tokens: TokenChecks | undefined,
): AuthenticateCall {
  return (metadata, connection) => {
    const certificate = connection?.certificate;
    if (certificate !== undefined) {
      const verdict = stillValid(certificate, clock);
      return 'credential' in verdict && connection !== undefined && connection.ageMs >= maxAgeMs
        ? { refused: 'connection_max_age' }
        : verdict;
    }
    const [given, more] = metadata.get('authorization');
    const token = typeof given === 'string' && more === undefined ? BEARER.exec(given)?.[1] : undefined;
    return token === undefined || tokens === undefined
      ? { refused: 'no_credential' }
      : tokens.check(token, connection?.address ?? 'unknown');
  };
}

/** A connection may stay open without a stream beyond its certificate's end. */
function stillValid(certificate: Credential, clock: Clock): TokenVerdict {
  return (certificate.expiresMs ?? 0) <= clock.wallMs()
    ? { refused: 'certificate_expired' }
    : { credential: certificate };
}
