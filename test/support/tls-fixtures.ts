/** TLS material of servers and peers. */
import { credentials, type ChannelCredentials } from '@grpc/grpc-js';
import type { TlsMaterial } from '../../src/grpc/tls-acceptor.ts';
import { tlsServerName } from '../../src/grpc/tls-server-name.ts';
import type { CertificateAuthority, IssuedCertificate } from '../../control-plane/certificates.ts';

const LOOPBACK = '127.0.0.1';

/** Returns the TLS material of a server on loopback, which trusts the given client authority. */
export function serverMaterial(
  authority: CertificateAuthority,
  clientAuthority?: CertificateAuthority,
): TlsMaterial {
  const { cert, key } = authority.issue({ addresses: [LOOPBACK], usage: 'server' });
  return { cert, key, clientCa: clientAuthority?.ca };
}

/** Returns the credentials of a peer that trusts the authority, optionally with a certificate. */
export function peerCredentials(
  authority: CertificateAuthority,
  certificate?: IssuedCertificate,
): ChannelCredentials {
  const { cert = null, key = null } = certificate ?? {};
  return credentials.createSsl(
    Buffer.from(authority.ca),
    key === null ? null : Buffer.from(key),
    cert === null ? null : Buffer.from(cert),
    tlsServerName(LOOPBACK).verifyOptions,
  );
}
