import type { Rate } from './policy.ts';

/** How far a rate has been used up. */
export interface TokenBucket {
  tokens: number;
  atMs: number;
}

/** A debt is never longer than this, and so no wait but for one more report. */
const MAX_DEBT_SECONDS = 4;

/** A bucket that is full at any rate. */
export function newBucket(): TokenBucket {
  return { tokens: Number.POSITIVE_INFINITY, atMs: 0 };
}

/** Milliseconds until one may be used, rounded up; 0: at once. Takes none. */
export function delayMs(bucket: TokenBucket, rate: Rate, nowMs: number): number {
  return Math.ceil(waitMs(refilled(bucket, rate, nowMs), rate));
}

/**
 * Takes one, which has been used already.
 *
 * @returns milliseconds until the next one may be used; 0: at once
 */
export function take(bucket: TokenBucket, rate: Rate, nowMs: number): number {
  bucket.tokens = Math.max(refilled(bucket, rate, nowMs) - 1, -MAX_DEBT_SECONDS * rate.perSecond);
  bucket.atMs = nowMs;
  return waitMs(bucket.tokens, rate);
}

function refilled({ tokens, atMs }: TokenBucket, { perSecond, burst }: Rate, nowMs: number): number {
  return Math.min(burst, tokens + ((nowMs - atMs) * perSecond) / 1000);
}

function waitMs(tokens: number, { perSecond }: Rate): number {
  return tokens >= 1 ? 0 : ((1 - tokens) * 1000) / perSecond;
}
