/** A TLS server's material and peers of all kinds. */
import { credentials, type ChannelCredentials } from '@grpc/grpc-js';
import type { TlsMaterial } from '../../src/grpc/tls-acceptor.ts';
import type { CertificateAuthority, IssuedCertificate } from './certificates.ts';

/** What a server on loopback shows, and whose peers it believes. */
export function serverMaterial(
  authority: CertificateAuthority,
  clientAuthority?: CertificateAuthority,
): TlsMaterial {
  const { cert, key } = authority.issue({ addresses: ['127.0.0.1'], usage: 'server' });
  return { cert, key, clientCa: clientAuthority?.ca };
}

/** A peer that believes the authority, and shows a certificate where it has one. */
export function peerCredentials(
  authority: CertificateAuthority,
  certificate?: IssuedCertificate,
): ChannelCredentials {
  const { cert = null, key = null } = certificate ?? {};
  return credentials.createSsl(
    Buffer.from(authority.ca),
    key === null ? null : Buffer.from(key),
    cert === null ? null : Buffer.from(cert),
  );
}
