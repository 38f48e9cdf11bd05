import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { CertificateInfo } from './inputs.ts';

/** Of a file that holds the key as well only these blocks are read. */
const CERTIFICATE_BLOCK = /-----BEGIN CERTIFICATE-----[^]*?-----END CERTIFICATE-----/g;

/** The certificates of a PEM file; one fact that says why, when there are none. */
export function certificatesFromFile(source: string, path: string): CertificateInfo[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    return [{ source: `${source} ${path}`, failure: error instanceof Error ? error.message : String(error) }];
  }
  return certificatesFromPem(`${source} ${path}`, text);
}

/** The certificates in a text of PEM blocks; keys and whatever else stands there are passed over. */
export function certificatesFromPem(source: string, text: string): CertificateInfo[] {
  const blocks = text.match(CERTIFICATE_BLOCK) ?? [];
  if (blocks.length === 0) return [{ source, failure: 'contains no PEM certificate' }];
  return blocks.map((block) => {
    try {
      return certificateInfo(source, new X509Certificate(block));
    } catch (error) {
      return {
        source,
        failure: `cannot parse certificate: ${error instanceof Error ? error.message : String(error)}`,
      };
    }
  });
}

/** What is judged of a certificate. */
export function certificateInfo(source: string, certificate: X509Certificate): CertificateInfo {
  const { subject, subjectAltName } = certificate;
  return {
    source,
    // SPIFFE certificates have names only there.
    subject: (subject === '' || subject === undefined ? (subjectAltName ?? 'unnamed') : subject).replaceAll(
      '\n',
      ', ',
    ),
    notBeforeMs: Date.parse(certificate.validFrom),
    notAfterMs: Date.parse(certificate.validTo),
  };
}
