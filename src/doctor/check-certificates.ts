import { formatAge } from '../inspect/age.ts';
import type { CertificateFacts, DoctorFacts } from './facts.ts';
import type { Finding } from './finding.ts';

/** Whoever renews does so well before; of short-lived certificates a fifth of their time. */
const MOST_NOTICE_MS = 30 * 86_400_000;
const NOTICE_SHARE = 0.2;

/**
 * The certificates: each is valid now and for a while, by the clock of this machine. Whether somebody believes them is
 * not judged: that needs the other side's CA, and a probe shows it.
 */
export function checkCertificates({ certificates, nowMs }: DoctorFacts): Finding[] {
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
  return certificates.map((one) => checkCertificate(one, nowMs));
}

/** One finding a certificate, also where all is well: a file may hold others than one thinks. */
function checkCertificate(facts: CertificateFacts, nowMs: number): Finding {
  const check = 'certificates';
  if ('failure' in facts) {
    const remediation = 'pass the PEM file that the operator uses';
    return { check, status: 'fail', message: `${facts.where}: ${facts.failure}`, remediation };
  }
  const { where, subject, notBeforeMs, notAfterMs } = facts;
  const name = `${where}: ${subject}`;
  if (nowMs >= notAfterMs) {
    return {
      check,
      status: 'fail',
      message: `${name} expired ${formatAge(nowMs - notAfterMs)} ago, at ${dateOf(notAfterMs)}`,
      remediation: 'renew the certificate; peers reject it',
    };
  }
  if (nowMs < notBeforeMs) {
    return {
      check,
      status: 'fail',
      message: `${name} is not yet valid, not before ${dateOf(notBeforeMs)}`,
      remediation: 'check the clocks of this machine and of the issuer',
    };
  }
  // Of one that is good for a day, 30 days before its end is before its beginning.
  const leftMs = notAfterMs - nowMs;
  if (leftMs < Math.min(MOST_NOTICE_MS, (notAfterMs - notBeforeMs) * NOTICE_SHARE)) {
    return {
      check,
      status: 'warn',
      message: `${name} expires in ${formatAge(leftMs)}, at ${dateOf(notAfterMs)}`,
      remediation: 'check why the certificate has not been renewed',
    };
  }
  return { check, status: 'ok', message: `${name} is valid until ${dateOf(notAfterMs)}` };
}

/** RFC 3339; certificates know whole seconds. */
function dateOf(ms: number): string {
  return new Date(ms).toISOString().replace('.000', '');
}
