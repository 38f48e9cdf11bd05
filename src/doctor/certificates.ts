import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { CertificateFacts } from './facts.ts';

/** Of a file that holds the key as well only these blocks are read. */
const PEM = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g;

/** The certificates of a PEM file; one fact that says why, when there are none. */
export function certificatesOfFile(where: string, path: string): CertificateFacts[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return [{ where: `${where} ${path}`, failure: error instanceof Error ? error.message : String(error) }];
  }
  return certificatesOfPem(`${where} ${path}`, text);
}

/** The certificates in a text of PEM blocks; keys and whatever else stands there are passed over. */
export function certificatesOfPem(where: string, text: string): CertificateFacts[] {
  const blocks = text.match(PEM) ?? [];
  if (blocks.length === 0) return [{ where, failure: 'contains no PEM certificate' }];
  return blocks.map((block) => {
    try {
      return certificateFacts(where, new X509Certificate(block));
    } catch (error) {
      return {
        where,
        failure: `cannot parse certificate: ${error instanceof Error ? error.message : String(error)}`,
      };
    }
  });
}

/** What is judged of a certificate. */
export function certificateFacts(where: string, certificate: X509Certificate): CertificateFacts {
  const { subject, subjectAltName } = certificate;
  return {
    where,
    // SPIFFE certificates have names only there.
    subject: (subject === '' || subject === undefined ? (subjectAltName ?? 'unnamed') : subject).replaceAll(
      '\n',
      ', ',
    ),
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
  };
}
