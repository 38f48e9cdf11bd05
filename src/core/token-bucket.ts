/** A rate limit. */
export interface Rate {
  readonly perSecond: number;
  /** Maximum number at once after a pause. */
  readonly burst: number;
}

/** The state of a rate limit. */
export interface TokenBucket {
  /** Negative while in debt. */
  tokens: number;
  /** When `tokens` was computed. */
  atMs: number;
}

/** Limits the debt, and with it every delay, to this plus the time for one token. */
const MAX_DEBT_SECONDS = 4;

/** Creates a bucket that is full, whatever the rate. */
export function newBucket(): TokenBucket {
  return { tokens: Number.POSITIVE_INFINITY, atMs: 0 };
}

/** Returns the milliseconds until a token is available, rounded up; 0 if one is available now. Takes no token. */
export function delayMs(bucket: TokenBucket, rate: Rate, nowMs: number): number {
  return Math.ceil(waitMs(refilled(bucket, rate, nowMs), rate));
}

/**
 * Takes a token for something that has already happened, so the bucket may go into debt.
 *
 * @returns milliseconds until the next token is available; 0 if one is available now
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
