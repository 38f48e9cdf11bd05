import type { X509Certificate } from 'node:crypto';
import type { Credential } from './credential.ts';
import { readSubjectAltNames } from './subject-alt-names.ts';

/**
 * What a peer's certificate proves, once its authority has been found good.
 *
 * Not by the subject's common name: that it is a name to go by has been withdrawn (RFC 9525, 2).
 *
 * @returns undefined when its names or its end cannot be read
 */
export function certificateCredential(certificate: X509Certificate): Credential | undefined {
  const names = readSubjectAltNames(certificate.subjectAltName);
  const expiresMs = certificate.validToDate.getTime();
  return names === undefined || !Number.isFinite(expiresMs)
    ? undefined
    : { peer: { kind: 'certificate', ...names }, expiresMs };
}
