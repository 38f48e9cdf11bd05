import { hash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { CallRefusal } from './call-refusals.ts';
import type { Credential } from './credential.ts';
import { sparingly, type SayOf } from './sparing-log.ts';
import { readTokenClaims } from './token-claims.ts';

/** What the API server says of a token. */
export type TokenReview =
  | { readonly authenticated: true; readonly namespace: string; readonly serviceAccount: string }
  /** Not accepted, not for this audience, or not of a ServiceAccount. */
  | { readonly authenticated: false };

/** What became of a check. */
export type TokenVerdict = { readonly credential: Credential } | { readonly refused: CallRefusal };

/** A check that is under way. */
export interface TokenCheck {
  readonly verdict: Promise<TokenVerdict>;
  /** Who asked does not wait any more. */
  leave(): void;
}

/** Who reviews tokens, and for which audience they have to be. */
export interface TokenChecksParts {
  /** Asks the API server; rejects when it gives no answer, with an error whose message holds nothing of the token. */
  readonly review: (token: string) => Promise<TokenReview>;
  readonly audience: string;
  readonly clock: Clock;
  readonly log: Log;
}

/** Reviews under way. So many Envoys may come back in a moment; the API server has 600 seats for all its clients. */
export const REVIEWS_AT_ONCE = 32;
/**
 * An answer is good for so long: a reporter that comes back, and its neighbours with the same token, ask once. A deleted
 * ServiceAccount is accepted for as long beyond the 10 s that the API server itself goes on.
 */
const KNOWN_FOR_MS = 10_000;
/** Some 200 bytes each. */
const MOST_KNOWN = 10_000;

/** A token whose review is wanted. */
interface Pending {
  readonly token: string;
  readonly key: string;
  readonly expiresMs: number | undefined;
  readonly verdict: PromiseWithResolvers<TokenVerdict>;
  waiting: number;
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
export class TokenChecks {
  readonly #parts: TokenChecksParts;
  readonly #sayFailed: SayOf;
  readonly #known = new Map<string, { readonly verdict: TokenVerdict; readonly untilMs: number }>();
  readonly #pending = new Map<string, Pending>();
  /** Those whose review has not been sent, by the addresses that they came from; whose turn it is stands first. */
  readonly #queue = new Map<string, Set<Pending>>();
  #underWay = 0;

  constructor(parts: TokenChecksParts) {
    this.#parts = parts;
    this.#sayFailed = sparingly(parts.clock);
  }

  /** The answer where it is known, else a check to wait for. @param address the peer's */
  check(token: string, address: string): TokenVerdict | TokenCheck {
    const { clock, audience } = this.#parts;
    const claims = readTokenClaims(token);
    if (claims === undefined) return { refused: 'malformed_token' };
    const { expiresMs, audiences } = claims;
    if (expiresMs !== undefined && expiresMs <= clock.wallMs()) return { refused: 'token_expired' };
    if (!audiences.includes(audience)) return { refused: 'token_audience' };
    const key = hash('sha256', token, 'base64');
    const known = this.#known.get(key);
    if (known !== undefined && known.untilMs > clock.monotonicMs()) return known.verdict;

    let pending = this.#pending.get(key);
    if (pending === undefined) {
      pending = {
        token,
        key,
        expiresMs,
        verdict: Promise.withResolvers(),
        waiting: 0,
        addresses: new Set(),
        isSent: false,
      };
      this.#pending.set(key, pending);
    }
    pending.waiting += 1;
    if (!pending.isSent) this.#enqueue(pending, address);
    this.#next();
    return this.#checkOf(pending);
  }

  #checkOf(pending: Pending): TokenCheck {
    let left = false;
    return {
      verdict: pending.verdict.promise,
      leave: () => {
        if (left) return;
        left = true;
        pending.waiting -= 1;
        // Of those that nobody waits for any more a flood of calls must leave nothing.
        if (pending.waiting > 0 || pending.isSent) return;
        this.#dequeue(pending);
        this.#pending.delete(pending.key);
      },
    };
  }

  #enqueue(pending: Pending, address: string): void {
    pending.addresses.add(address);
    const line = this.#queue.get(address);
    if (line === undefined) this.#queue.set(address, new Set([pending]));
    else line.add(pending);
  }

  #dequeue(pending: Pending): void {
    for (const address of pending.addresses) {
      const line = this.#queue.get(address);
      line?.delete(pending);
      if (line?.size === 0) this.#queue.delete(address);
    }
    pending.addresses.clear();
  }

  #next(): void {
    while (this.#underWay < REVIEWS_AT_ONCE) {
      const first = this.#queue.entries().next().value;
      if (first === undefined) return;
      const [address, line] = first;
      const [pending] = line;
      // Behind the others, if it has more.
      this.#queue.delete(address);
      this.#queue.set(address, line);
      if (pending === undefined) return;
      this.#dequeue(pending);
      pending.isSent = true;
      this.#underWay += 1;
      void this.#review(pending);
    }
  }

  async #review(pending: Pending): Promise<void> {
    const { review, log } = this.#parts;
    let verdict: TokenVerdict;
    try {
      verdict = verdictOf(await review(pending.token), pending.expiresMs);
      this.#know(pending.key, verdict);
    } catch (error) {
      // Not known from now on: the next call asks again.
      verdict = { refused: 'review_error' };
      const said = error instanceof Error ? error.message : 'unknown';
      this.#sayFailed('failed', (more) => log.error({ error: said, ...more }, 'failed to review tokens'));
    }
    this.#underWay -= 1;
    this.#pending.delete(pending.key);
    pending.verdict.resolve(verdict);
    this.#next();
  }

  #know(key: string, verdict: TokenVerdict): void {
    this.#known.delete(key);
    this.#known.set(key, { verdict, untilMs: this.#parts.clock.monotonicMs() + KNOWN_FOR_MS });
    if (this.#known.size <= MOST_KNOWN) return;
    const [oldest] = this.#known.keys();
    if (oldest !== undefined) this.#known.delete(oldest);
  }
}

function verdictOf(review: TokenReview, expiresMs: number | undefined): TokenVerdict {
  if (!review.authenticated) return { refused: 'token_rejected' };
  const { namespace, serviceAccount } = review;
  return { credential: { peer: { by: 'token', namespace, serviceAccount }, expiresMs } };
}
