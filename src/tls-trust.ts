import { getCACertificates, type SecureContextOptions } from 'node:tls';

/**
 * Returns the options of a TLS context for the one trust rule of this project, which is that of Go and kubectl: each
 * certificate in the bundle is a trust anchor, whether it is self-signed or not. OpenSSL's own default accepts only
 * self-signed ones, which rejects a PKI whose published CA is an intermediate.
 *
 * @param ca PEM; an empty list trusts no peer; undefined: the CAs that Node and the system trust
 */
export function trustOptions(
  ca: string | Buffer | string[] | undefined,
): Required<Pick<SecureContextOptions, 'ca' | 'allowPartialTrustChain'>> {
  return {
    ca: ca ?? [...getCACertificates('default'), ...getCACertificates('system')],
    allowPartialTrustChain: true,
  };
}
