import { expect } from 'chai';
import { createCredentialSource, type Credentials } from '../../src/k8s/credentials.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** Runs the callbacks of settled promises. */
async function settle(): Promise<void> {
  for (let i = 0; i < 10; i += 1) await Promise.resolve();
}

function token(text: string, expiresAtMs?: number): Credentials {
  return { ca: 'CA', authorization: `Bearer ${text}`, expiresAtMs };
}

describe('credential source', () => {
  it('reloads credentials that are 10 s old and in use, in the background', async () => {
    const clock = new FakeClock();
    let reads = 0;
    const source = createCredentialSource(
      token('1'),
      {
        renew: () => Promise.reject(new Error('not needed')),
        reload() {
          reads += 1;
          return Promise.resolve(token('2'));
        },
      },
      clock,
    );
    clock.advance(9_999);
    expect(source.current()).to.deep.equal(token('1'));
    await settle();
    expect(reads).to.equal(0);
    clock.advance(1);
    expect(source.current()).to.deep.equal(token('1'));
    void source.current();
    await settle();
    expect(reads).to.equal(1);
    expect(source.current()).to.deep.equal(token('2'));
  });

  it('returns the same object while its content is unchanged, so that connections are kept', async () => {
    const clock = new FakeClock();
    const first = token('1');
    const source = createCredentialSource(first, { renew: () => Promise.resolve(token('1')) }, clock);
    await source.refresh();
    expect(source.current()).to.equal(first);
  });

  it('keeps the credentials if a file is temporarily unreadable', async () => {
    const clock = new FakeClock();
    const source = createCredentialSource(
      token('1'),
      {
        renew: () => Promise.reject(new Error('ENOENT')),
        reload: () => Promise.reject(new Error('ENOENT')),
      },
      clock,
    );
    clock.advance(10_000);
    void source.current();
    await settle();
    expect(source.current()).to.deep.equal(token('1'));
  });

  it('renews once for concurrent rejections, and not again within 5 s', async () => {
    const clock = new FakeClock();
    let renewals = 0;
    const source = createCredentialSource(
      token('1'),
      {
        async renew() {
          renewals += 1;
          await Promise.resolve();
          return token(String(renewals + 1));
        },
      },
      clock,
    );
    await Promise.all([source.refresh(), source.refresh(), source.refresh()]);
    expect(source.current()).to.deep.equal(token('2'));
    clock.advance(4_999);
    await source.refresh();
    expect(renewals).to.equal(1);
    clock.advance(1);
    await source.refresh();
    expect(source.current()).to.deep.equal(token('3'));
  });

  it('reports a failed renewal and its cause to every caller', async () => {
    const clock = new FakeClock();
    const source = createCredentialSource(
      token('1'),
      { renew: () => Promise.reject(new Error('plugin aws not found')) },
      clock,
    );
    for (const attempt of [source.refresh(), source.refresh()]) {
      let message = '';
      await attempt.catch((error: Error) => {
        message = error.message;
      });
      expect(message).to.equal('plugin aws not found');
    }
    expect(source.current()).to.deep.equal(token('1'));
  });

  it('renews in the background one minute before the expiry', async () => {
    const clock = new FakeClock();
    const expiresAtMs = clock.wallMs() + 300_000;
    const source = createCredentialSource(
      token('1', expiresAtMs),
      { renew: () => Promise.resolve(token('2', expiresAtMs + 300_000)) },
      clock,
    );
    clock.advance(240_000);
    expect(source.current()).to.deep.equal(token('1', expiresAtMs));
    await settle();
    expect(source.current(), 'one minute before the expiry').to.deep.equal(token('1', expiresAtMs));
    clock.advance(1);
    expect(source.current(), 'no caller waits').to.deep.equal(token('1', expiresAtMs));
    await settle();
    expect(source.current()).to.deep.equal(token('2', expiresAtMs + 300_000));
  });

  it('waits for the renewal of expired credentials', async () => {
    const clock = new FakeClock();
    const expiresAtMs = clock.wallMs() + 1_000;
    const source = createCredentialSource(
      token('1', expiresAtMs),
      { renew: () => Promise.resolve(token('2')) },
      clock,
    );
    clock.advance(1_000);
    const current = source.current();
    expect(current).to.be.instanceOf(Promise);
    expect(await current).to.deep.equal(token('2'));
  });

  it('returns expired credentials if no others are available, because the clock may be wrong', async () => {
    const clock = new FakeClock();
    const expired = token('1', clock.wallMs() - 1);
    const source = createCredentialSource(
      expired,
      { renew: () => Promise.reject(new Error('offline')) },
      clock,
    );
    expect(await source.current()).to.equal(expired);
  });

  it('does not replace renewed credentials with those of a slower reload', async () => {
    const clock = new FakeClock();
    const reading = Promise.withResolvers<Credentials>();
    const source = createCredentialSource(
      token('1'),
      {
        renew: () => Promise.resolve(token('new')),
        reload: () => reading.promise,
      },
      clock,
    );
    clock.advance(10_000);
    void source.current();
    await source.refresh();
    reading.resolve(token('old'));
    await settle();
    expect(source.current()).to.deep.equal(token('new'));
  });
});
