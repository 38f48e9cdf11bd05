import { hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Credential } from './credential.ts';
import type { StreamRejectionReason } from './rejections.ts';

/** The API server's review of a token. */
export type TokenReview =
  | { readonly authenticated: true; readonly namespace: string; readonly serviceAccount: string }
  /** The token is invalid, not for this audience, or not a ServiceAccount token. */
  | { readonly authenticated: false };

/** The credential of a call, or why it is rejected. */
export type AuthenticationResult =
  { readonly credential: Credential } | { readonly rejected: StreamRejectionReason };

/** An authentication that waits for a token review. */
export interface PendingAuthentication {
  readonly result: Promise<AuthenticationResult>;
  /** The caller no longer waits for the result. */
  cancel(): void;
}

/** How tokens are reviewed. */
export interface TokenAuthenticatorOptions {
  /** Sends a TokenReview; rejects if the API server does not answer, with an error that does not contain the token. */
  readonly review: (token: string) => Promise<TokenReview>;
  /** The audience that tokens must carry. */
  readonly audience: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** The maximum number of reviews in flight: Envoys may reconnect all at once, and the API server has 600 seats. */
export const MAX_CONCURRENT_REVIEWS = 32;
/**
 * How long a result is cached, so that a reporter that reconnects and its neighbors with the same token share one
 * review. The token of a deleted ServiceAccount is accepted for this long in addition to the API server's own 10 s.
 */
const CACHE_TTL_MS = 10_000;
/** Some 200 bytes per entry. */
const MAX_CACHED_RESULTS = 10_000;
/**
 * Three base64url parts (RFC 7515, section 3.1), so the token does not contain characters that a log line, a header
 * or JSON would have to escape.
 */
const JWT = /^[\w-]+\.([\w-]+)\.[\w-]+$/;

/** The claims of a token. They prove nothing before the token has been reviewed. */
export interface TokenClaims {
  /** ms since 1970; undefined: the token has no `exp` claim. */
  readonly expiresMs: number | undefined;
  readonly audiences: readonly string[];
}

/** A token whose review is queued or in flight. */
interface PendingReview {
  readonly token: string;
  readonly key: string;
  readonly expiresMs: number | undefined;
  readonly result: PromiseWithResolvers<AuthenticationResult>;
  waiters: number;
  /** The addresses in whose queues the review is; empty once it is sent. */
  readonly addresses: Set<string>;
  isSent: boolean;
}

/**
 * Authenticates tokens by TokenReview. Each token is reviewed once, however many calls carry it, and the number of
 * reviews in flight is limited. Addresses are scheduled round-robin, so a flood of forged tokens does not delay peers
 * at other addresses; the tokens of one address are reviewed in order of arrival. Claims are checked first, so an
 * expired token or one for another audience does not cost a review.
 *
 * Tokens are identified by their hash; the text is kept only until its review returns.
 */
export class TokenAuthenticator {
  readonly #options: TokenAuthenticatorOptions;
  readonly #throttled: LogThrottle;
  readonly #cache = new LRUCache<string, { readonly result: AuthenticationResult; readonly untilMs: number }>(
    {
      max: MAX_CACHED_RESULTS,
    },
  );
  readonly #pending = new Map<string, PendingReview>();
  /** Queued reviews by the addresses that sent the tokens; the first address is next. */
  readonly #queue = new Map<string, Set<PendingReview>>();
  #inFlight = 0;

  constructor(options: TokenAuthenticatorOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
  }

  /**
   * Returns the result if it is known without a review, otherwise a pending authentication.
   *
   * @param address the peer's IP address
   */
  authenticate(token: string, address: string): AuthenticationResult | PendingAuthentication {
    const { clock, audience } = this.#options;
    const claims = decodeClaims(token);
    if (claims === undefined) return { rejected: 'malformed_token' };
    const { expiresMs, audiences } = claims;
    if (expiresMs !== undefined && expiresMs <= clock.wallMs()) return { rejected: 'token_expired' };
    if (!audiences.includes(audience)) return { rejected: 'token_audience' };
    const key = hash('sha256', token, 'base64');
    const cached = this.#cache.get(key);
    if (cached !== undefined && cached.untilMs > clock.monotonicMs()) return cached.result;

    let pending = this.#pending.get(key);
    if (pending === undefined) {
      pending = {
        token,
        key,
        expiresMs,
        result: Promise.withResolvers(),
        waiters: 0,
        addresses: new Set(),
        isSent: false,
      };
      this.#pending.set(key, pending);
    }
    pending.waiters += 1;
    if (!pending.isSent) this.#enqueue(pending, address);
    this.#sendQueued();
    return this.#pendingAuthentication(pending);
  }

  #pendingAuthentication(pending: PendingReview): PendingAuthentication {
    let isCancelled = false;
    return {
      result: pending.result.promise,
      cancel: () => {
        if (isCancelled) return;
        isCancelled = true;
        pending.waiters -= 1;
        // A flood of calls must not leave queued reviews without a waiting call.
        if (pending.waiters > 0 || pending.isSent) return;
        this.#dequeue(pending);
        this.#pending.delete(pending.key);
      },
    };
  }

  #enqueue(pending: PendingReview, address: string): void {
    pending.addresses.add(address);
    const addressQueue = this.#queue.get(address);
    if (addressQueue === undefined) this.#queue.set(address, new Set([pending]));
    else addressQueue.add(pending);
  }

  #dequeue(pending: PendingReview): void {
    for (const address of pending.addresses) {
      const addressQueue = this.#queue.get(address);
      addressQueue?.delete(pending);
      if (addressQueue?.size === 0) this.#queue.delete(address);
    }
    pending.addresses.clear();
  }

  #sendQueued(): void {
    while (this.#inFlight < MAX_CONCURRENT_REVIEWS) {
      const next = this.#queue.entries().next().value;
      if (next === undefined) return;
      const [address, addressQueue] = next;
      const [pending] = addressQueue;
      // Moves the address to the end of the round; `#dequeue` removes it if its queue is empty.
      this.#queue.delete(address);
      this.#queue.set(address, addressQueue);
      if (pending === undefined) return;
      this.#dequeue(pending);
      pending.isSent = true;
      this.#inFlight += 1;
      void this.#review(pending);
    }
  }

  async #review(pending: PendingReview): Promise<void> {
    const { review, log } = this.#options;
    let result: AuthenticationResult;
    try {
      result = authenticationResult(await review(pending.token), pending.expiresMs);
      const untilMs = this.#options.clock.monotonicMs() + CACHE_TTL_MS;
      this.#cache.set(pending.key, { result, untilMs });
    } catch (error) {
      // Not cached: the next call with this token sends a review again.
      result = { rejected: 'review_error' };
      const message = error instanceof Error ? error.message : 'unknown';
      this.#throttled('failed', (more) => log.error({ error: message, ...more }, 'failed to review tokens'));
    }
    this.#inFlight -= 1;
    this.#pending.delete(pending.key);
    pending.result.resolve(result);
    this.#sendQueued();
  }
}

function authenticationResult(review: TokenReview, expiresMs: number | undefined): AuthenticationResult {
  if (!review.authenticated) return { rejected: 'token_rejected' };
  const { namespace, serviceAccount } = review;
  return { credential: { peer: { kind: 'token', namespace, serviceAccount }, expiresMs } };
}

/**
 * Decodes the claims of a JWT without verifying its signature.
 *
 * `decodeJwt` of `jose` is not a replacement: it accepts any text as header and signature, white space within the
 * payload, and claims of any type, so each check below would still be needed.
 *
 * @returns undefined if the token is not a JWT, or its `exp` or `aud` has the wrong type
 */
export function decodeClaims(token: string): TokenClaims | undefined {
  const payload = JWT.exec(token)?.[1];
  if (payload === undefined) return undefined;
  let claims: unknown;
  try {
    claims = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof claims !== 'object' || claims === null) return undefined;
  const { exp, aud = [] } = claims as { readonly exp?: unknown; readonly aud?: unknown };
  if (exp !== undefined && !(typeof exp === 'number' && Number.isSafeInteger(Math.trunc(exp))))
    return undefined;
  // A single audience may be a string instead of a list (RFC 7519, section 4.1.3).
  const audiences: unknown[] = Array.isArray(aud) ? aud : [aud];
  if (!audiences.every((audience) => typeof audience === 'string')) return undefined;
  return { expiresMs: exp === undefined ? undefined : exp * 1000, audiences };
}
