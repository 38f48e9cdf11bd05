import { formatAge } from '../cli/format.ts';
import type { CertificateInfo, DoctorInputs } from './inputs.ts';
import type { CheckResult } from './check-result.ts';

/** Certificates are usually renewed before this; for short-lived ones, the limit is a fraction of their validity. */
const MAX_RENEWAL_NOTICE_MS = 30 * 86_400_000;
const RENEWAL_NOTICE_FRACTION = 0.2;

/**
 * Checks that each certificate is valid, and will be for a while, by the clock of this machine. Trust is not checked, as
 * that requires the CA of the peer.
 */
export function checkCertificates({ certificates, nowMs }: DoctorInputs): CheckResult[] {
  if (certificates.length === 0) {
    return [
      {
        check: 'certificates',
        status: 'skip',
        message: 'no certificate checked',
        remediation: 'pass --tls-cert and --tls-client-ca with the files that the operator uses',
      },
    ];
  }
  return certificates.map((certificate) => checkCertificate(certificate, nowMs));
}

/** Returns one result per certificate, including valid ones, as a file may contain an unexpected one. */
function checkCertificate(certificate: CertificateInfo, nowMs: number): CheckResult {
  const check = 'certificates';
  if ('failure' in certificate) {
    const remediation = 'pass the PEM file that the operator uses';
    return { check, status: 'fail', message: `${certificate.source}: ${certificate.failure}`, remediation };
  }
  const { source, subject, notBeforeMs, notAfterMs } = certificate;
  const name = `${source}: ${subject}`;
  if (nowMs >= notAfterMs) {
    return {
      check,
      status: 'fail',
      message: `${name} expired ${formatAge(nowMs - notAfterMs)} ago, at ${formatDate(notAfterMs)}`,
      remediation: 'renew the certificate; peers reject it',
    };
  }
  if (nowMs < notBeforeMs) {
    return {
      check,
      status: 'fail',
      message: `${name} is not yet valid, not before ${formatDate(notBeforeMs)}`,
      remediation: 'check the clocks of this machine and of the issuer',
    };
  }
  // A certificate that is valid for one day would always be within 30 days of its expiry.
  const remainingMs = notAfterMs - nowMs;
  if (remainingMs < Math.min(MAX_RENEWAL_NOTICE_MS, (notAfterMs - notBeforeMs) * RENEWAL_NOTICE_FRACTION)) {
    return {
      check,
      status: 'warn',
      message: `${name} expires in ${formatAge(remainingMs)}, at ${formatDate(notAfterMs)}`,
      remediation: 'check why the certificate has not been renewed',
    };
  }
  return { check, status: 'ok', message: `${name} is valid until ${formatDate(notAfterMs)}` };
}

/** Formats a time as RFC 3339 without a fraction, as certificates contain whole seconds. */
function formatDate(ms: number): string {
  return new Date(ms).toISOString().replace('.000', '');
}
