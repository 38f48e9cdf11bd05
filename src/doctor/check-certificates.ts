import { formatAge } from '../cli/age.ts';
import type { CertificateInfo, DoctorInputs } from './inputs.ts';
import type { CheckResult } from './check-result.ts';

/** Whoever renews does so well before; of short-lived certificates a fifth of their time. */
const MAX_RENEWAL_NOTICE_MS = 30 * 86_400_000;
const RENEWAL_NOTICE_FRACTION = 0.2;

/**
 * The certificates: each is valid now and for a while, by the clock of this machine. Whether somebody believes them is
 * not judged: that needs the other side's CA, and a probe shows it.
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

/** One finding a certificate, also where all is well: a file may hold others than one thinks. */
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
  // Of one that is good for a day, 30 days before its end is before its beginning.
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

/** RFC 3339; certificates know whole seconds. */
function formatDate(ms: number): string {
  return new Date(ms).toISOString().replace('.000', '');
}
