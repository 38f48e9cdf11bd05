import type { Rate } from './policy.ts';

/** How far a rate has been used up. */
export interface TokenBucket {
  tokens: number;
  atMs: number;
}

/** A debt is never longer than this, and so no wait but for one more report. */
const LONGEST_DEBT_SECONDS = 4;

/** A bucket that is full at any rate. */
export function fullBucket(): TokenBucket {
  return { tokens: Number.POSITIVE_INFINITY, atMs: 0 };
}

/** Milliseconds until one may be used, rounded up; 0: at once. Takes none. */
export function untilTokenMs(bucket: TokenBucket, { perSecond, burst }: Rate, nowMs: number): number {
  const refilled = Math.min(burst, bucket.tokens + ((nowMs - bucket.atMs) * perSecond) / 1000);
  return refilled >= 1 ? 0 : Math.ceil(((1 - refilled) * 1000) / perSecond);
}

/**
 * Takes one, which has been used already.
 *
 * @returns milliseconds until the next one may be used; 0: at once
 */
export function takeToken(bucket: TokenBucket, { perSecond, burst }: Rate, nowMs: number): number {
  const refilled = bucket.tokens + ((nowMs - bucket.atMs) * perSecond) / 1000;
  bucket.tokens = Math.max(Math.min(burst, refilled) - 1, -LONGEST_DEBT_SECONDS * perSecond);
  bucket.atMs = nowMs;
  return bucket.tokens >= 1 ? 0 : ((1 - bucket.tokens) * 1000) / perSecond;
}
