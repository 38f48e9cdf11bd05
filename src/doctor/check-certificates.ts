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
        level: 'skip',
        says: 'no certificate was named or met',
        todo: 'give --tls-cert and --tls-client-ca, the files that the operator is given',
      },
    ];
  }
  return certificates.map((one) => checkCertificate(one, nowMs));
}

/** One finding a certificate, also where all is well: a file may hold others than one thinks. */
function checkCertificate(facts: CertificateFacts, nowMs: number): Finding {
  const check = 'certificates';
  if ('failure' in facts) {
    const todo = 'give the file that the operator is given, with certificates in PEM';
    return { check, level: 'fail', says: `${facts.where}: ${facts.failure}`, todo };
  }
  const { where, subject, notBeforeMs, notAfterMs } = facts;
  const name = `${where}: ${subject}`;
  if (nowMs >= notAfterMs) {
    return {
      check,
      level: 'fail',
      says: `${name} expired ${formatAge(nowMs - notAfterMs)} ago, at ${dateOf(notAfterMs)}`,
      todo: 'renew it; whoever checks it refuses the connection',
    };
  }
  if (nowMs < notBeforeMs) {
    return {
      check,
      level: 'fail',
      says: `${name} is not valid before ${dateOf(notBeforeMs)}`,
      todo: "check this machine's clock, then the issuer's",
    };
  }
  // Of one that is good for a day, 30 days before its end is before its beginning.
  const leftMs = notAfterMs - nowMs;
  if (leftMs < Math.min(MOST_NOTICE_MS, (notAfterMs - notBeforeMs) * NOTICE_SHARE)) {
    return {
      check,
      level: 'warn',
      says: `${name} ends in ${formatAge(leftMs)}, at ${dateOf(notAfterMs)}`,
      todo: 'see why it is not renewed yet',
    };
  }
  return { check, level: 'ok', says: `${name} is valid until ${dateOf(notAfterMs)}` };
}

/** RFC 3339; certificates know whole seconds. */
function dateOf(ms: number): string {
  return new Date(ms).toISOString().replace('.000', '');
}
