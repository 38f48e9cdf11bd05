import { hash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { StreamRejectionReason } from './stream-rejections.ts';
import type { Credential } from './credential.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import { readTokenClaims } from './token-claims.ts';

/** What the API server says of a token. */
export type TokenReview =
  | { readonly authenticated: true; readonly namespace: string; readonly serviceAccount: string }
  /** Not accepted, not for this audience, or not of a ServiceAccount. */
  | { readonly authenticated: false };

/** What became of a check. */
export type AuthenticationResult =
  { readonly credential: Credential } | { readonly rejected: StreamRejectionReason };

/** A check that is under way. */
export interface PendingAuthentication {
  readonly result: Promise<AuthenticationResult>;
  /** Who asked does not wait any more. */
  cancel(): void;
}

/** Who reviews tokens, and for which audience they have to be. */
export interface TokenAuthenticatorOptions {
  /** Asks the API server; rejects when it gives no answer, with an error whose message holds nothing of the token. */
  readonly review: (token: string) => Promise<TokenReview>;
  readonly audience: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** Reviews under way. So many Envoys may come back in a moment; the API server has 600 seats for all its clients. */
export const MAX_CONCURRENT_REVIEWS = 32;
/**
 * An answer is good for so long: a reporter that comes back, and its neighbours with the same token, ask once. A deleted
 * ServiceAccount is accepted for as long beyond the 10 s that the API server itself goes on.
 */
const CACHE_TTL_MS = 10_000;
/** Some 200 bytes each. */
const MAX_CACHED_RESULTS = 10_000;

/** A token whose review is wanted. */
interface PendingReview {
  readonly token: string;
  readonly key: string;
  readonly expiresMs: number | undefined;
  readonly result: PromiseWithResolvers<AuthenticationResult>;
  waiters: number;
  /** In whose lines it stands; none once it is sent. */
  readonly addresses: Set<string>;
  isSent: boolean;
}

/**
 * Has tokens reviewed: each once, however many calls carry it, some at a time. Addresses take turns, so that a flood of
 * forged tokens makes nobody late who comes from elsewhere; those of one address are reviewed in the order in which they
 * came. What a token says of itself is looked at first, so that one that is expired or for somebody else costs no review.
 *
 * Tokens are known by their hash; the text is kept no longer than until its review is back.
 */
export class TokenAuthenticator {
  readonly #options: TokenAuthenticatorOptions;
  readonly #throttled: LogThrottle;
  readonly #cache = new Map<string, { readonly result: AuthenticationResult; readonly untilMs: number }>();
  readonly #pending = new Map<string, PendingReview>();
  /** Those whose review has not been sent, by the addresses that they came from; whose turn it is stands first. */
  readonly #queue = new Map<string, Set<PendingReview>>();
  #inFlight = 0;

  constructor(options: TokenAuthenticatorOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
  }

  /** The answer where it is known, else a check to wait for. @param address the peer's */
  authenticate(token: string, address: string): AuthenticationResult | PendingAuthentication {
    const { clock, audience } = this.#options;
    const claims = readTokenClaims(token);
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
    this.#next();
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
        // Of those that nobody waits for any more a flood of calls must leave nothing.
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

  #next(): void {
    while (this.#inFlight < MAX_CONCURRENT_REVIEWS) {
      const first = this.#queue.entries().next().value;
      if (first === undefined) return;
      const [address, addressQueue] = first;
      const [pending] = addressQueue;
      // Behind the others, if it has more.
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
      this.#cacheResult(pending.key, result);
    } catch (error) {
      // Not known from now on: the next call asks again.
      result = { rejected: 'review_error' };
      const message = error instanceof Error ? error.message : 'unknown';
      this.#throttled('failed', (more) => log.error({ error: message, ...more }, 'failed to review tokens'));
    }
    this.#inFlight -= 1;
    this.#pending.delete(pending.key);
    pending.result.resolve(result);
    this.#next();
  }

  #cacheResult(key: string, verdict: AuthenticationResult): void {
    this.#cache.delete(key);
    this.#cache.set(key, { result: verdict, untilMs: this.#options.clock.monotonicMs() + CACHE_TTL_MS });
    if (this.#cache.size <= MAX_CACHED_RESULTS) return;
    const [oldest] = this.#cache.keys();
    if (oldest !== undefined) this.#cache.delete(oldest);
  }
}

function authenticationResult(review: TokenReview, expiresMs: number | undefined): AuthenticationResult {
  if (!review.authenticated) return { rejected: 'token_rejected' };
  const { namespace, serviceAccount } = review;
  return { credential: { peer: { kind: 'token', namespace, serviceAccount }, expiresMs } };
}
