import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { errorMessage } from '../error-message.ts';
import type { Connection } from '../k8s/connection.ts';
import type { CertificateInfo } from './inputs.ts';

/** Matches only certificates, so that a private key in the same file is never read. */
const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g;

/**
 * Reads the certificates of a PEM file. If there are none, the result is one entry with the reason.
 *
 * @param source prefix of the file name in messages
 */
export function certificatesFromFile(source: string, path: string): CertificateInfo[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return [{ source: `${source} ${path}`, failure: errorMessage(error) }];
  }
  return certificatesFromPem(`${source} ${path}`, text);
}

/**
 * Returns the client certificate and the CA of the connection to the API server. There is neither if the account uses a
 * token and the machine trusts the CA.
 */
export async function certificatesFromConnection({ credentials }: Connection): Promise<CertificateInfo[]> {
  const { cert, ca } = await credentials.current();
  return [
    ...(cert === undefined ? [] : certificatesFromPem('client certificate of the kubeconfig', cert)),
    ...(ca === undefined ? [] : certificatesFromPem("CA of the API server's certificate", ca)),
  ];
}

/** Parses the certificates of a PEM text; private keys and other content are ignored. */
function certificatesFromPem(source: string, text: string): CertificateInfo[] {
  const blocks = text.match(CERTIFICATE_BLOCK) ?? [];
  if (blocks.length === 0) return [{ source, failure: 'contains no PEM certificate' }];
  return blocks.map((block) => {
    try {
      return certificateInfo(source, new X509Certificate(block));
    } catch (error) {
      return { source, failure: `cannot parse certificate: ${errorMessage(error)}` };
    }
  });
}

/** Returns the name and the validity dates of a certificate. */
export function certificateInfo(source: string, certificate: X509Certificate): CertificateInfo {
  const { subject, subjectAltName } = certificate;
  return {
    source,
    // A SPIFFE certificate has an empty subject.
    subject: (subject === '' || subject === undefined ? (subjectAltName ?? 'unnamed') : subject).replaceAll(
      '\n',
      ', ',
    ),
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
  };
}
