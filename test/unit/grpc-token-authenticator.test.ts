import { expect } from 'chai';
import { pino } from 'pino';
import {
  TokenAuthenticator,
  type TokenReview,
  type AuthenticationResult,
} from '../../src/grpc/token-authenticator.ts';
import { readTokenClaims } from '../../src/grpc/token-claims.ts';
import { FakeClock } from '../support/fake-clock.ts';

const AUDIENCE = 'reverse-tunnel-operator';
const REVIEWED: TokenReview = { authenticated: true, namespace: 'edge', serviceAccount: 'envoy' };

/** A token of these claims, with a signature that nobody has made. */
function token(claims: object, signature = 'c2ln'): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'RS256' })}.${part(claims)}.${signature}`;
}

function createWorld(): {
  clock: FakeClock;
  checks: { check(text: string, address?: string): ReturnType<TokenAuthenticator['authenticate']> };
  /** Reviews that wait for an answer, oldest first. */
  asked: { readonly token: string; answer(review: TokenReview): void; fail(error: Error): void }[];
  logged: string[];
} {
  const clock = new FakeClock();
  const asked: ReturnType<typeof createWorld>['asked'] = [];
  const logged: string[] = [];
  const checks = new TokenAuthenticator({
    review: (text) =>
      new Promise((resolve, reject) => asked.push({ token: text, answer: resolve, fail: reject })),
    audience: AUDIENCE,
    clock,
    log: pino({ level: 'trace' }, { write: (line) => void logged.push(line) }),
  });
  const check = (text: string, address = '192.0.2.1'): ReturnType<TokenAuthenticator['authenticate']> =>
    checks.authenticate(text, address);
  return { clock, checks: { check }, asked, logged };
}

/** What is known at once, or comes. */
function verdictOf(check: ReturnType<TokenAuthenticator['authenticate']>): Promise<AuthenticationResult> {
  return 'result' in check ? check.result : Promise.resolve(check);
}

describe('the check of a token', () => {
  const nowSeconds = new FakeClock().wallMs() / 1000;
  const good = { aud: [AUDIENCE], exp: nowSeconds + 600 };

  it('asks once for one token, however many calls carry it, and knows the answer for 10 s', async () => {
    const { checks, asked, clock } = createWorld();
    const waiting = Array.from({ length: 100 }, () => verdictOf(checks.check(token(good))));
    expect(asked).to.have.length(1);
    asked[0]?.answer(REVIEWED);
    const verdicts = await Promise.all(waiting);
    const credential = {
      peer: { kind: 'token', namespace: 'edge', serviceAccount: 'envoy' },
      expiresMs: good.exp * 1000,
    };
    for (const verdict of verdicts) expect(verdict).to.deep.equal({ credential });
    clock.advance(9_999);
    expect(checks.check(token(good))).to.deep.equal({ credential });
    clock.advance(1);
    void checks.check(token(good));
    expect(asked).to.have.length(2);
  });

  it('knows a refusal as long, so that a peer that comes back with it is no flood of reviews', async () => {
    const { checks, asked } = createWorld();
    const verdict = verdictOf(checks.check(token(good)));
    asked[0]?.answer({ authenticated: false });
    expect(await verdict).to.deep.equal({ rejected: 'token_rejected' });
    expect(checks.check(token(good))).to.deep.equal({ rejected: 'token_rejected' });
    expect(asked).to.have.length(1);
  });

  it('knows nothing of a review that failed: the next call asks again', async () => {
    const { checks, asked } = createWorld();
    const verdict = verdictOf(checks.check(token(good)));
    asked[0]?.fail(new Error('no answer'));
    expect(await verdict).to.deep.equal({ rejected: 'review_error' });
    const again = verdictOf(checks.check(token(good)));
    expect(asked).to.have.length(2);
    asked[1]?.answer(REVIEWED);
    expect(await again).to.have.property('credential');
  });

  it('takes a token that has expired since its review for what it is', async () => {
    const { checks, asked, clock } = createWorld();
    const short = token({ ...good, exp: nowSeconds + 5 });
    const verdict = verdictOf(checks.check(short));
    asked[0]?.answer(REVIEWED);
    await verdict;
    clock.advance(5_000);
    expect(checks.check(short)).to.deep.equal({ rejected: 'token_expired' });
  });

  for (const { what, text, rejected } of [
    { what: 'garbage', text: 'garbage', rejected: 'malformed_token' },
    { what: 'two parts', text: 'a.b', rejected: 'malformed_token' },
    { what: 'claims that are no JSON', text: 'YQ.YQ.YQ', rejected: 'malformed_token' },
    { what: 'claims that are no object', text: 'YQ.bnVsbA.YQ', rejected: 'malformed_token' },
    { what: 'a line feed in it', text: `${token(good)}\n`, rejected: 'malformed_token' },
    { what: 'an expiry that is none', text: token({ ...good, exp: 'never' }), rejected: 'malformed_token' },
    { what: 'an audience that is none', text: token({ ...good, aud: [1] }), rejected: 'malformed_token' },
    { what: 'an expiry that is now', text: token({ ...good, exp: nowSeconds }), rejected: 'token_expired' },
    { what: 'another audience', text: token({ ...good, aud: 'kubernetes' }), rejected: 'token_audience' },
    { what: 'a longer audience', text: token({ ...good, aud: `${AUDIENCE}-2` }), rejected: 'token_audience' },
    { what: 'no audience', text: token({ exp: good.exp }), rejected: 'token_audience' },
  ]) {
    it(`refuses one with ${what} without asking`, () => {
      const { checks, asked } = createWorld();
      expect(checks.check(text)).to.deep.equal({ rejected });
      expect(asked).to.have.length(0);
    });
  }

  it('asks for 32 at once, the others in the order in which they came, and not for those that nobody waits for', async () => {
    const { checks, asked } = createWorld();
    const tokens = Array.from({ length: 40 }, (_, i) => token(good, `sig${i}`));
    const all = tokens.map((text) => checks.check(text));
    expect(asked.map((one) => one.token)).to.deep.equal(tokens.slice(0, 32));
    // Once for each that left, also where it says so twice.
    for (const check of all.slice(32, 36)) {
      if ('cancel' in check) {
        check.cancel();
        check.cancel();
      }
    }
    for (const one of asked.splice(0)) one.answer(REVIEWED);
    await Promise.all(all.slice(0, 32).map(verdictOf));
    expect(asked.map((one) => one.token)).to.deep.equal(tokens.slice(36));
  });

  it('lets addresses take turns: a flood of one makes a call of another wait for one review more, and not for all', async () => {
    const { checks, asked } = createWorld();
    const flood = (from: number): string[] =>
      Array.from({ length: 100 }, (_, i) => token(good, `forged${from + i}`));
    for (const text of flood(0)) void checks.check(text, '198.51.100.66');
    expect(asked.splice(0, 31)).to.have.length(31);
    const mine = token(good, 'mine');
    void checks.check(mine, '192.0.2.1');
    // The same token, from the flood's address too: it is behind all others there.
    void checks.check(token(good, 'shared'), '198.51.100.66');
    void checks.check(token(good, 'shared'), '192.0.2.2');
    const next = async (): Promise<string | undefined> => {
      asked.shift()?.answer({ authenticated: false });
      await new Promise(setImmediate);
      return asked[0]?.token;
    };
    expect([await next(), await next(), await next(), await next()]).to.deep.equal([
      token(good, 'forged32'),
      mine,
      token(good, 'shared'),
      token(good, 'forged33'),
    ]);
  });

  it('remembers the last 10,000 answers, and no more', async function () {
    this.timeout(20_000);
    const { checks, asked } = createWorld();
    const learn = async (serial: number): Promise<void> => {
      const verdict = verdictOf(checks.check(token(good, `sig${serial}`)));
      asked.pop()?.answer(REVIEWED);
      await verdict;
    };
    for (let serial = 0; serial <= 10_000; serial += 1) await learn(serial);
    void checks.check(token(good, 'sig10000'));
    void checks.check(token(good, 'sig1'));
    expect(asked, 'the newest and the oldest that is kept').to.have.length(0);
    void checks.check(token(good, 'sig0'));
    expect(asked, 'the one before').to.have.length(1);
  });

  it('goes on for the others when one of those that wait for the same token leaves', async () => {
    const { checks, asked } = createWorld();
    for (let i = 0; i < 32; i += 1) void checks.check(token(good, `sig${i}`));
    const [leaves, stays] = [checks.check(token(good)), checks.check(token(good))];
    if ('cancel' in leaves) leaves.cancel();
    for (const one of asked.splice(0)) one.answer(REVIEWED);
    await new Promise(setImmediate);
    expect(asked).to.have.length(1);
    asked[0]?.answer(REVIEWED);
    expect(await verdictOf(stays)).to.have.property('credential');
  });

  it('says in one line a minute that failed to review tokens, and no token', async () => {
    const { checks, asked, logged, clock } = createWorld();
    const fail = async (signature: string): Promise<void> => {
      const verdict = verdictOf(checks.check(token(good, signature)));
      asked.pop()?.fail(new Error('create tokenreviews: 503'));
      await verdict;
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

describe('the claims of a token', () => {
  it('are its expiry in milliseconds and its audiences, one or a list', () => {
    expect(readTokenClaims(token({ exp: 1_800_000_000, aud: 'a' }))).to.deep.equal({
      expiresMs: 1_800_000_000_000,
      audiences: ['a'],
    });
    expect(readTokenClaims(token({ aud: ['a', 'b'] }))).to.deep.equal({
      expiresMs: undefined,
      audiences: ['a', 'b'],
    });
  });
});
