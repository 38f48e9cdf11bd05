import type { CloseReason } from './session.ts';

/** How much a stream's greatest age varies: those that came together, as after a restart, do not go together. */
const JITTER = 0.1;

/** When a stream ends by itself, and as what. */
export interface StreamDeadline {
  /** From now on. */
  readonly ttlMs: number;
  readonly reason: Extract<CloseReason, 'max_age' | 'credential_expired'>;
  readonly details: string;
}

/**
 * How long a stream may live: to the end of what proved whose it is, and no longer than the greatest age, so that a
 * withdrawn certificate, ServiceAccount or permission takes effect by then.
 *
 * @param expiresMs ms since 1970; undefined: the credential has no end
 * @param credentialAgeMs how long ago its peer proved who it is: 0 for a proof of the stream's own
 * @param random 0 to 1
 */
export function streamDeadline(
  expiresMs: number | undefined,
  maxAgeMs: number,
  credentialAgeMs: number,
  wallMs: number,
  random: number,
): StreamDeadline {
  const ageMs = Math.max(0, maxAgeMs * (1 - JITTER + 2 * JITTER * random) - credentialAgeMs);
  const remainingMs = expiresMs === undefined ? Number.POSITIVE_INFINITY : Math.max(0, expiresMs - wallMs);
  return remainingMs <= ageMs
    ? {
        ttlMs: remainingMs,
        reason: 'credential_expired',
        details: 'credential expired; reconnect with a new one',
      }
    : { ttlMs: ageMs, reason: 'max_age', details: 'maximum stream age reached; reconnect' };
}
