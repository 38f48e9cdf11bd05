import type { EndReason } from './session.ts';

/** How much a stream's greatest age varies: those that came together, as after a restart, do not go together. */
const JITTER = 0.1;

/** When a stream ends by itself, and as what. */
export interface StreamLife {
  /** From now on. */
  readonly lifeMs: number;
  readonly reason: Extract<EndReason, 'max_age' | 'credential_expired'>;
  readonly details: string;
}

/**
 * How long a stream may live: to the end of what proved whose it is, and no longer than the greatest age, so that a
 * withdrawn certificate, ServiceAccount or permission takes effect by then.
 *
 * @param expiresMs ms since 1970; undefined: the credential has no end
 * @param provenMs how long ago its peer proved who it is: 0 for a proof of the stream's own
 * @param random 0 to 1
 */
export function streamLife(
  expiresMs: number | undefined,
  maxAgeMs: number,
  provenMs: number,
  wallMs: number,
  random: number,
): StreamLife {
  const ageMs = Math.max(0, maxAgeMs * (1 - JITTER + 2 * JITTER * random) - provenMs);
  const leftMs = expiresMs === undefined ? Number.POSITIVE_INFINITY : Math.max(0, expiresMs - wallMs);
  return leftMs <= ageMs
    ? {
        lifeMs: leftMs,
        reason: 'credential_expired',
        details: 'credential expired; reconnect with a new one',
      }
    : { lifeMs: ageMs, reason: 'max_age', details: 'maximum stream age reached; reconnect' };
}
