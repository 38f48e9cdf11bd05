import type { Metadata } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { ANONYMOUS } from '../core/peer.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import type {
  PendingAuthentication,
  TokenAuthenticator,
  AuthenticationResult,
} from './token-authenticator.ts';

/** RFC 6750, 2.1. */
const BEARER = /^Bearer +(\S+)$/i;

/** Says whose a call is, by its connection and its metadata, or has it found out. */
export type AuthenticateCall = (
  metadata: Metadata,
  connection: Pick<ConnectionGuard, 'address' | 'certificate' | 'ageMs'> | undefined,
) => AuthenticationResult | PendingAuthentication;

/** `--auth insecure`: everybody is let in, and nobody is anyone. */
export const allowAnonymous: AuthenticateCall = () => ({
  credential: { peer: ANONYMOUS, expiresMs: undefined },
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

/** A connection may stay open without a stream beyond its certificate's end. */
function checkExpiry(certificate: Credential, clock: Clock): AuthenticationResult {
  return (certificate.expiresMs ?? 0) <= clock.wallMs()
    ? { rejected: 'certificate_expired' }
    : { credential: certificate };
}
