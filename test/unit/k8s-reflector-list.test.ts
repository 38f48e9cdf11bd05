/** Lists of the reflector. Each test names the corresponding case of client-go's tools/cache/reflector_test.go. */
import { expect } from 'chai';
import * as answers from '../support/recorded-responses.ts';
import { startReflectorFixture, type ReflectorFixture } from '../support/reflector-fixture.ts';

const MIB = 'x'.repeat(1024 * 1024);

describe('reflector lists', () => {
  let f: ReflectorFixture;

  beforeEach(async () => {
    f = await startReflectorFixture(4);
    f.run();
  });

  afterEach(() => f.stop());

  // TestReflectorWatchListPageSize
  it('lists all pages and watches from their version', async () => {
    const names = [...Array(10).keys()].map((i) => answers.tunnelObject(`r${i}`, String(100 + i)));
    const first = await f.server.next();
    expect(first.query.get('limit')).to.equal('4');
    expect(first.query.has('continue')).to.equal(false);
    first.respond(answers.listResponse('200', names.slice(0, 4), 'C1'));
    const second = await f.server.next();
    expect(second.query.get('continue')).to.equal('C1');
    expect(second.query.get('limit')).to.equal('4');
    second.respond(answers.listResponse('200', names.slice(4, 8), 'C2'));
    const third = await f.server.next();
    expect(third.query.get('continue')).to.equal('C2');
    expect(f.reflector.hasSynced).to.equal(false);
    third.respond(answers.listResponse('200', names.slice(8)));

    const watch = await f.server.next();
    expect(watch.query.get('resourceVersion')).to.equal('200');
    expect(f.store.versions.size).to.equal(10);
    expect(f.reflector.hasSynced).to.equal(true);
    expect(f.states).to.deep.equal(['listing', 'synced']);
    watch.watch();
    await f.waitForState('watching');
    expect(f.logged).to.deep.equal(['info listed all objects']);
  });

  // The intent of TestReflectorListExtract: the list is never completely in memory.
  it('passes a page on before it has the next one', async () => {
    (await f.server.next()).respond(answers.listResponse('200', [answers.tunnelObject('a', '1')], 'C1'));
    const second = await f.server.next();
    await f.waitForContent('a=1');
    expect(f.store.calls).to.deep.equal(['begin', 'item a 1']);
    second.respond(answers.listResponse('200', [answers.tunnelObject('b', '2')]));
    await f.waitForContent('a=1 b=2');
  });

  // The outcome of TestReflectorNotPaginatingNotConsistentReads and
  // TestReflectorPaginatingNonConsistentReadsIfWatchCacheDisabled: a cached state is never mistaken for the stored one.
  // TestReflectorResyncWithResourceVersion: each list is consistent with the store, instead of never going back.
  it('lists what is stored now instead of what was cached at a version', async () => {
    for (let i = 0; i < 2; i += 1) {
      const request = await f.server.next();
      expect([...request.query.keys()].toSorted()).to.deep.equal(['limit', 'timeout']);
      request.respond(answers.listResponse('200', [answers.tunnelObject('a', '1')]));
      const watch = (await f.server.next()).watch();
      watch.send(answers.watchLines.bookmark('201'), answers.watchLines.expired);
    }
    await f.server.next();
  });

  // TestReflectorListAndWatchWithErrors, TestReflectorListAndWatchInitConnBackoff
  it('retries forever with a growing backoff of up to 5 s', async () => {
    const delays: number[] = [];
    for (let i = 0; i < 9; i += 1) {
      (await f.server.next()).respond(answers.BAD_VERSION);
      const delayMs = await f.backoffMs();
      delays.push(delayMs);
      f.states.length = 0;
      f.clock.advance(delayMs);
    }
    expect(delays).to.deep.equal([75, 150, 300, 600, 1_200, 2_400, 3_750, 3_750, 3_750]);
    (await f.server.next()).respond(answers.listResponse('200', [answers.tunnelObject('a', '1')]));
    await f.waitForState('synced');
    expect(f.store.toString()).to.equal('a=1');
  });

  // TestReflectorListAndWatchInitConnBackoff
  it('connects to an API server that starts later', async () => {
    (await f.server.next()).reset();
    f.clock.advance(await f.backoffMs());
    (await f.server.next()).respond(answers.listResponse('200', []));
    await f.waitForState('synced');
  });

  // TestBackoffOnTooManyRequests, for a list
  it('waits as long as a starting API server asks for', async () => {
    (await f.server.next()).respond(answers.STARTING);
    expect(await f.backoffMs()).to.equal(5_000 * 1.125);
    f.clock.advance(5_000);
    expect(f.server.count).to.equal(1);
    f.clock.advance(625);
    (await f.server.next()).respond(answers.listResponse('200', []));
    await f.waitForState('synced');
  });

  // TestReflectorFullListIfExpired
  it('starts again with larger pages if the pages took longer than their version is kept', async () => {
    (await f.server.next()).respond(answers.listResponse('200', [answers.tunnelObject('a', '1')], 'C1'));
    (await f.server.next()).respond(answers.CONTINUE_EXPIRED);
    const again = await f.server.next();
    expect(again.query.has('continue')).to.equal(false);
    expect(again.query.get('limit')).to.equal('8');
    again.respond(answers.listResponse('300', [answers.tunnelObject('b', '250')], 'C2'));
    (await f.server.next()).respond(answers.CONTINUE_EXPIRED);
    // Consecutive occurrences are a failure and cause a backoff.
    expect(f.states.filter((state) => state.startsWith('broken'))).to.deep.equal([]);
    f.clock.advance(await f.backoffMs());
    const third = await f.server.next();
    expect(third.query.get('limit')).to.equal('16');
    third.respond(answers.listResponse('400', [answers.tunnelObject('b', '250')]));
    await f.waitForState('synced');
    expect(f.store.toString(), 'objects of the interrupted list are removed').to.equal('b=250');
  });

  it('limits the growth of expired pages to what fits into a response', async () => {
    for (const limit of ['4', '8', '16', '32', '64', '64']) {
      const request = await f.server.next();
      expect(request.query.get('limit')).to.equal(limit);
      request.respond(answers.CONTINUE_EXPIRED);
      if (limit !== '4') f.clock.advance(await f.backoffMs());
      f.states.length = 0;
    }
    (await f.server.next()).respond(answers.listResponse('300', []));
    (await f.server.next()).watch().send(answers.watchLines.expired);
    f.clock.advance(await f.backoffMs());
    expect((await f.server.next()).query.get('limit'), 'afterwards').to.equal('4');
  });

  it('lists smaller pages from then on if a page does not fit into a response', async () => {
    (await f.server.next()).respond(answers.CONTINUE_EXPIRED);
    const tooLarge = await f.server.next();
    expect(tooLarge.query.get('limit')).to.equal('8');
    const answer = tooLarge.stream(200);
    while (!answer.closed) await answer.write(MIB);
    f.clock.advance(await f.backoffMs());
    const fitting = await f.server.next();
    expect(fitting.query.get('limit')).to.equal('4');
    fitting.respond(answers.CONTINUE_EXPIRED);
    f.clock.advance(await f.backoffMs());
    const last = await f.server.next();
    expect(last.query.get('limit'), 'no more than what fits').to.equal('4');
    last.respond(answers.listResponse('300', [answers.tunnelObject('a', '1')]));
    await f.waitForContent('a=1');
  });

  it('lists smaller pages than usual if those do not fit into a response', async () => {
    const answer = (await f.server.next()).stream(200);
    while (!answer.closed) await answer.write(MIB);
    f.clock.advance(await f.backoffMs());
    const smaller = await f.server.next();
    expect(smaller.query.get('limit')).to.equal('2');
    smaller.respond(answers.listResponse('200', [answers.tunnelObject('a', '1')]));
    (await f.server.next()).watch().send(answers.watchLines.expired);
    expect((await f.server.next()).query.get('limit'), 'in the next list').to.equal('2');
  });

  it('lists pages of the usual size if one that has grown gets no response', async () => {
    (await f.server.next()).respond(answers.CONTINUE_EXPIRED);
    const grown = await f.server.next();
    expect(grown.query.get('limit')).to.equal('8');
    grown.reset();
    f.clock.advance(await f.backoffMs());
    expect((await f.server.next()).query.get('limit')).to.equal('4');
  });

  it('fails instead of listing forever if a proxy answers each page with the same one', async () => {
    (await f.server.next()).respond(answers.listResponse('200', [answers.tunnelObject('a', '1')], 'C1'));
    (await f.server.next()).respond(answers.listResponse('200', [answers.tunnelObject('a', '1')], 'C1'));
    await f.backoffMs();
    expect(f.logged).to.deep.equal([
      'warn list reversetunnels.reverse-tunnel.io in default: two consecutive pages with the same continue token ' +
        '(check that the address is that of the API server)',
    ]);
    expect(f.reflector.hasSynced).to.equal(false);
  });

  it('keeps the known objects until a list is complete', async () => {
    (await f.server.next()).respond(
      answers.listResponse('200', [answers.tunnelObject('a', '1'), answers.tunnelObject('b', '2')]),
    );
    (await f.server.next()).watch().send(answers.watchLines.expired);
    (await f.server.next()).respond(answers.listResponse('300', [answers.tunnelObject('b', '2')], 'C1'));
    (await f.server.next()).reset();
    const delayMs = await f.backoffMs();
    expect(f.store.toString()).to.equal('a=1 b=2');
    expect(f.reflector.hasSynced).to.equal(true);
    f.clock.advance(delayMs);
    (await f.server.next()).respond(answers.listResponse('301', [answers.tunnelObject('b', '2')]));
    await f.waitForContent('b=2');
  });

  // TestReflectorExpiredExactResourceVersion
  it('relists once without delay if a list is answered with 410', async () => {
    (await f.server.next()).respond(answers.CONTINUE_EXPIRED);
    (await f.server.next()).respond(answers.listResponse('200', []));
    await f.waitForState('synced');
    expect(f.clock.monotonicMs()).to.equal(0);
  });

  // TestReflectorFullListIfTooLarge
  it('relists once without delay if its version is newer than the store', async () => {
    (await f.server.next()).respond(answers.listResponse('999999999', [answers.tunnelObject('a', '5')]));
    (await f.server.next()).respond(answers.VERSION_TOO_LARGE);
    const again = await f.server.next();
    expect(again.query.has('resourceVersion')).to.equal(false);
    expect(again.query.get('limit'), 'not because of a timeout').to.equal('4');
    again.respond(answers.listResponse('210', [answers.tunnelObject('a', '4')]));
    const watch = await f.server.next();
    expect(watch.query.get('resourceVersion')).to.equal('210');
    expect(f.store.toString(), 'accepted although older: etcd was restored').to.equal('a=4');
    expect(f.clock.monotonicMs()).to.equal(0);
  });

  it('continues with a relist after the handler has thrown', async () => {
    f.store.failOn = 'item b';
    (await f.server.next()).respond(
      answers.listResponse('200', [answers.tunnelObject('a', '1'), answers.tunnelObject('b', '2')]),
    );
    const delayMs = await f.backoffMs();
    expect(f.logged.filter((line) => line.startsWith('warn'))).to.deep.equal(['warn the store is full']);
    f.clock.advance(delayMs);
    (await f.server.next()).respond(
      answers.listResponse('200', [answers.tunnelObject('a', '1'), answers.tunnelObject('b', '2')]),
    );
    await f.waitForContent('a=1 b=2');
  });

  for (const [situation, answer, message] of [
    [
      'the CRD is missing',
      answers.CRD_MISSING,
      'list reversetunnels.reverse-tunnel.io in default: 404 resource not found (is the CRD installed?): 404 page not found ' +
        '(install the CRDs: kubectl apply -f crds/)',
    ],
    [
      'it must not list',
      answers.FORBIDDEN,
      'list reversetunnels.reverse-tunnel.io in default: 403 Forbidden: reversetunnels.reverse-tunnel.io is forbidden: ' +
        'User "system:serviceaccount:default:viewer" cannot list resource "reversetunnels" in API group ' +
        '"reverse-tunnel.io" in the namespace "default" (grant the RBAC permissions to the ServiceAccount)',
    ],
  ] as const) {
    it(`warns once and then every 30 s that ${situation}, and logs the recovery`, async () => {
      const warnings = (): string[] => f.logged.filter((line) => line.startsWith('warn'));
      while (f.clock.monotonicMs() < 61_000) {
        (await f.server.next()).respond(answer);
        const delayMs = await f.backoffMs();
        expect(delayMs).to.be.at.most(5_000);
        f.states.length = 0;
        f.clock.advance(delayMs);
      }
      expect(warnings()).to.deep.equal(Array(3).fill(`warn ${message}`));
      (await f.server.next()).respond(answers.listResponse('200', []));
      (await f.server.next()).watch();
      await f.waitForState('watching');
      expect(f.logged.at(-1)).to.equal('info list and watch recovered');
    });
  }
});
