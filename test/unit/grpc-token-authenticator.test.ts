import { expect } from 'chai';
import { pino } from 'pino';
import {
  decodeClaims,
  TokenAuthenticator,
  type TokenReview,
  type AuthenticationResult,
} from '../../src/grpc/token-authenticator.ts';
import { FakeClock } from '../support/fake-clock.ts';

const AUDIENCE = 'reverse-tunnel-operator';
const REVIEWED: TokenReview = { authenticated: true, namespace: 'edge', serviceAccount: 'envoy' };

/** Returns a token with these claims and an invalid signature. */
function token(claims: object, signature = 'c2ln'): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'RS256' })}.${part(claims)}.${signature}`;
}

interface Harness {
  readonly clock: FakeClock;
  readonly authenticate: (text: string, address?: string) => ReturnType<TokenAuthenticator['authenticate']>;
  /** Reviews without an answer, oldest first. */
  readonly reviews: { readonly token: string; answer(review: TokenReview): void; fail(error: Error): void }[];
  readonly logged: string[];
}

function createHarness(): Harness {
  const clock = new FakeClock();
  const reviews: Harness['reviews'] = [];
  const logged: string[] = [];
  const authenticator = new TokenAuthenticator({
    review: (text) =>
      new Promise((resolve, reject) => reviews.push({ token: text, answer: resolve, fail: reject })),
    audience: AUDIENCE,
    clock,
    log: pino({ level: 'trace' }, { write: (line) => void logged.push(line) }),
  });
  return {
    clock,
    authenticate: (text, address = '192.0.2.1') => authenticator.authenticate(text, address),
    reviews,
    logged,
  };
}

/** Resolves with the result, whether it is known immediately or after a review. */
function resultOf(outcome: ReturnType<TokenAuthenticator['authenticate']>): Promise<AuthenticationResult> {
  return 'result' in outcome ? outcome.result : Promise.resolve(outcome);
}

describe('TokenAuthenticator', () => {
  const nowSeconds = new FakeClock().wallMs() / 1000;
  const good = { aud: [AUDIENCE], exp: nowSeconds + 600 };

  it('reviews a token once, however many calls carry it, and caches the result for 10 s', async () => {
    const { authenticate, reviews, clock } = createHarness();
    const waiting = Array.from({ length: 100 }, () => resultOf(authenticate(token(good))));
    expect(reviews).to.have.length(1);
    reviews[0]?.answer(REVIEWED);
    const results = await Promise.all(waiting);
    const credential = {
      peer: { kind: 'token', namespace: 'edge', serviceAccount: 'envoy' },
      expiresMs: good.exp * 1000,
    };
    for (const result of results) expect(result).to.deep.equal({ credential });
    clock.advance(9_999);
    expect(authenticate(token(good))).to.deep.equal({ credential });
    clock.advance(1);
    void authenticate(token(good));
    expect(reviews).to.have.length(2);
  });

  it('caches a rejection too, so a peer that retries does not cause a flood of reviews', async () => {
    const { authenticate, reviews } = createHarness();
    const result = resultOf(authenticate(token(good)));
    reviews[0]?.answer({ authenticated: false });
    expect(await result).to.deep.equal({ rejected: 'token_rejected' });
    expect(authenticate(token(good))).to.deep.equal({ rejected: 'token_rejected' });
    expect(reviews).to.have.length(1);
  });

  it('does not cache a failed review', async () => {
    const { authenticate, reviews } = createHarness();
    const result = resultOf(authenticate(token(good)));
    reviews[0]?.fail(new Error('no answer'));
    expect(await result).to.deep.equal({ rejected: 'review_error' });
    const again = resultOf(authenticate(token(good)));
    expect(reviews).to.have.length(2);
    reviews[1]?.answer(REVIEWED);
    expect(await again).to.have.property('credential');
  });

  it('rejects a token that has expired since its review', async () => {
    const { authenticate, reviews, clock } = createHarness();
    const short = token({ ...good, exp: nowSeconds + 5 });
    const result = resultOf(authenticate(short));
    reviews[0]?.answer(REVIEWED);
    await result;
    clock.advance(5_000);
    expect(authenticate(short)).to.deep.equal({ rejected: 'token_expired' });
  });

  for (const { what, text, rejected } of [
    { what: 'no structure', text: 'garbage', rejected: 'malformed_token' },
    { what: 'two parts only', text: 'a.b', rejected: 'malformed_token' },
    { what: 'claims that are not JSON', text: 'YQ.YQ.YQ', rejected: 'malformed_token' },
    { what: 'claims that are not an object', text: 'YQ.bnVsbA.YQ', rejected: 'malformed_token' },
    { what: 'a line feed', text: `${token(good)}\n`, rejected: 'malformed_token' },
    {
      what: 'an expiry that is not a number',
      text: token({ ...good, exp: 'never' }),
      rejected: 'malformed_token',
    },
    {
      what: 'an audience that is not a string',
      text: token({ ...good, aud: [1] }),
      rejected: 'malformed_token',
    },
    { what: 'an expiry that is now', text: token({ ...good, exp: nowSeconds }), rejected: 'token_expired' },
    { what: 'another audience', text: token({ ...good, aud: 'kubernetes' }), rejected: 'token_audience' },
    { what: 'a longer audience', text: token({ ...good, aud: `${AUDIENCE}-2` }), rejected: 'token_audience' },
    { what: 'no audience', text: token({ exp: good.exp }), rejected: 'token_audience' },
  ]) {
    it(`rejects a token with ${what} without a review`, () => {
      const { authenticate, reviews } = createHarness();
      expect(authenticate(text)).to.deep.equal({ rejected });
      expect(reviews).to.have.length(0);
    });
  }

  it('has at most 32 reviews in flight, queues the others in order, and skips cancelled ones', async () => {
    const { authenticate, reviews } = createHarness();
    const tokens = Array.from({ length: 40 }, (_, i) => token(good, `sig${i}`));
    const outcomes = tokens.map((text) => authenticate(text));
    expect(reviews.map((review) => review.token)).to.deep.equal(tokens.slice(0, 32));
    // Cancelling twice counts once.
    for (const outcome of outcomes.slice(32, 36)) {
      if ('cancel' in outcome) {
        outcome.cancel();
        outcome.cancel();
      }
    }
    for (const review of reviews.splice(0)) review.answer(REVIEWED);
    await Promise.all(outcomes.slice(0, 32).map(resultOf));
    expect(reviews.map((review) => review.token)).to.deep.equal(tokens.slice(36));
  });

  it('schedules addresses round-robin: a flood from one delays a call from another by one review', async () => {
    const { authenticate, reviews } = createHarness();
    const flood = (from: number): string[] =>
      Array.from({ length: 100 }, (_, i) => token(good, `forged${from + i}`));
    for (const text of flood(0)) void authenticate(text, '198.51.100.66');
    expect(reviews.splice(0, 31)).to.have.length(31);
    const mine = token(good, 'mine');
    void authenticate(mine, '192.0.2.1');
    // The same token from two addresses: at the flood's address, it is at the end of the queue.
    void authenticate(token(good, 'shared'), '198.51.100.66');
    void authenticate(token(good, 'shared'), '192.0.2.2');
    const next = async (): Promise<string | undefined> => {
      reviews.shift()?.answer({ authenticated: false });
      await new Promise(setImmediate);
      return reviews[0]?.token;
    };
    expect([await next(), await next(), await next(), await next()]).to.deep.equal([
      token(good, 'forged32'),
      mine,
      token(good, 'shared'),
      token(good, 'forged33'),
    ]);
  });

  it('caches up to 10,000 results', async () => {
    const { authenticate, reviews } = createHarness();
    const review = async (serial: number): Promise<void> => {
      const result = resultOf(authenticate(token(good, `sig${serial}`)));
      reviews.pop()?.answer(REVIEWED);
      await result;
    };
    for (let serial = 0; serial <= 10_000; serial += 1) await review(serial);
    void authenticate(token(good, 'sig10000'));
    void authenticate(token(good, 'sig1'));
    expect(reviews, 'the newest and the oldest cached result').to.have.length(0);
    void authenticate(token(good, 'sig0'));
    expect(reviews, 'the evicted result').to.have.length(1);
  });

  it('still reviews a token if one of two calls that carry it is cancelled', async () => {
    const { authenticate, reviews } = createHarness();
    for (let i = 0; i < 32; i += 1) void authenticate(token(good, `sig${i}`));
    const [cancelled, remaining] = [authenticate(token(good)), authenticate(token(good))];
    if ('cancel' in cancelled) cancelled.cancel();
    for (const review of reviews.splice(0)) review.answer(REVIEWED);
    await new Promise(setImmediate);
    expect(reviews).to.have.length(1);
    reviews[0]?.answer(REVIEWED);
    expect(await resultOf(remaining)).to.have.property('credential');
  });

  it('logs one line per minute about failed reviews, without a token', async () => {
    const { authenticate, reviews, logged, clock } = createHarness();
    const fail = async (signature: string): Promise<void> => {
      const result = resultOf(authenticate(token(good, signature)));
      reviews.pop()?.fail(new Error('create tokenreviews: 503'));
      await result;
    };
    await fail('one');
    await fail('two');
    clock.advance(60_000);
    await fail('three');
    expect(logged.map((line) => JSON.parse(line) as object)).to.have.length(2);
    expect(logged[1]).to.contain('"suppressed":1');
    for (const line of logged) expect(line).to.not.contain('eyJ');
  });
});

describe('decodeClaims', () => {
  it('returns the expiry in milliseconds and the audiences, given as a string or a list', () => {
    expect(decodeClaims(token({ exp: 1_800_000_000, aud: 'a' }))).to.deep.equal({
      expiresMs: 1_800_000_000_000,
      audiences: ['a'],
    });
    expect(decodeClaims(token({ aud: ['a', 'b'] }))).to.deep.equal({
      expiresMs: undefined,
      audiences: ['a', 'b'],
    });
  });
});
