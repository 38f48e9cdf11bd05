/** Watches of the reflector. Each test names the corresponding case of client-go's tools/cache/reflector_test.go. */
import { expect } from 'chai';
import * as answers from '../support/recorded-responses.ts';
import { tunnelObject, watchLines } from '../support/recorded-responses.ts';
import { eventually } from '../support/eventually.ts';
import { startReflectorFixture, type ReflectorFixture } from '../support/reflector-fixture.ts';
import type { ScriptedRequest, ScriptedWatch } from '../support/scripted-api-server.ts';

/** Opens a watch and waits until the reflector knows that it is open. */
async function openWatch(f: ReflectorFixture, request: ScriptedRequest): Promise<ScriptedWatch> {
  expect(request.query.get('watch')).to.equal('1');
  const watch = request.watch();
  await f.waitForState('watching');
  return watch;
}

describe('reflector watches', () => {
  let f: ReflectorFixture;
  /** The first watch, from version 10 with a=5 in the store. */
  let watch: ScriptedWatch;

  /** Returns the next request, which must be a watch, and its version. */
  async function nextWatch(): Promise<[version: string | null, request: ScriptedRequest]> {
    const request = await f.server.next();
    expect(request.query.get('watch'), 'a watch instead of a list').to.equal('1');
    return [request.query.get('resourceVersion'), request];
  }

  /** Answers the next request, which must be a list, with these objects. */
  async function answerList(version: string, ...tunnels: string[]): Promise<void> {
    const request = await f.server.next();
    expect(request.query.has('watch'), 'a list instead of a watch').to.equal(false);
    request.respond(answers.listResponse(version, tunnels));
  }

  beforeEach(async () => {
    f = await startReflectorFixture();
    f.run();
    await answerList('10', tunnelObject('a', '5'));
    const request = await f.server.next();
    expect(request.query.get('resourceVersion')).to.equal('10');
    watch = await openWatch(f, request);
  });

  afterEach(() => f.stop());

  // TestReflectorWatchHandler, TestReflectorListAndWatch
  it('delivers events in order', async () => {
    watch.send(
      watchLines.event('MODIFIED', tunnelObject('a', '11')),
      watchLines.event('ADDED', tunnelObject('b', '12')),
      watchLines.event('ADDED', tunnelObject('c', '13')),
      watchLines.event('DELETED', tunnelObject('b', '14')),
    );
    await f.waitForContent('a=11 c=13');
    expect(f.store.calls.slice(3)).to.deep.equal([
      'MODIFIED a 11',
      'ADDED b 12',
      'ADDED c 13',
      'DELETED b 14',
    ]);
  });

  it('skips the event of an own write, continues from its version and delivers a deletion at the same version', async () => {
    f.store.ownWrites.add('11').add('12').add('13');
    watch.send(
      watchLines.event('MODIFIED', tunnelObject('a', '11')),
      watchLines.event('ADDED', tunnelObject('b', '12')),
      watchLines.event('DELETED', tunnelObject('b', '13')),
      watchLines.event('ADDED', tunnelObject('c', '14')),
    );
    await f.waitForContent('a=5 c=14');
    expect(f.store.calls.slice(3)).to.deep.equal(['DELETED b 13', 'ADDED c 14']);
    expect([...f.store.ownWrites]).to.deep.equal(['13']);
    f.store.ownWrites.add('15');
    watch.send(watchLines.event('MODIFIED', tunnelObject('c', '15')));
    await eventually('the own event to be skipped', () => !f.store.ownWrites.has('15'));
    watch.end();
    const [version] = await nextWatch();
    expect(version).to.equal('15');
  });

  it('skips the event of an own deletion and continues from its version', async () => {
    f.store.ownDeletions.add('uid-b 13');
    watch.send(
      watchLines.event('DELETED', tunnelObject('a', '12')),
      watchLines.event('DELETED', tunnelObject('b', '13')),
      watchLines.event('ADDED', tunnelObject('c', '14')),
    );
    await f.waitForContent('c=14');
    expect(f.store.calls.slice(3)).to.deep.equal(['DELETED a 12', 'ADDED c 14']);
    f.store.ownDeletions.add('uid-c 15');
    watch.send(watchLines.event('DELETED', tunnelObject('c', '15')));
    await eventually('the own deletion to be skipped', () => f.store.ownDeletions.size === 0);
    watch.end();
    const [version] = await nextWatch();
    expect(version).to.equal('15');
  });

  it('does not confuse a label of the same name with the version', async () => {
    f.store.ownWrites.add('77');
    const labelled = tunnelObject('a', '11').replace(
      '"name":"a"',
      '"labels":{"resourceVersion":"77","uid":"a"},"name":"a"',
    );
    watch.send(watchLines.event('MODIFIED', labelled));
    await f.waitForContent('a=11');
  });

  // TestWatchTimeout
  it('requests bookmarks and a timeout of 5 to 10 minutes', async () => {
    watch.end();
    f.clock.advance(await f.backoffMs());
    const [, request] = await nextWatch();
    expect(request.query.get('allowWatchBookmarks')).to.equal('true');
    expect(request.query.get('timeoutSeconds'), 'random is 0.5').to.equal('450');
  });

  // TestReflectorResourceVersionUpdate
  it('continues from the last event or bookmark, whichever came last, without a list', async () => {
    for (const [line, version] of [
      [watchLines.event('ADDED', tunnelObject('b', '20')), '20'],
      [watchLines.event('MODIFIED', tunnelObject('b', '30')), '30'],
      [watchLines.bookmark('40'), '40'],
      [watchLines.event('DELETED', tunnelObject('b', '50')), '50'],
    ] as const) {
      watch.send(line);
      watch.end();
      const [from, request] = await nextWatch();
      expect(from).to.equal(version);
      watch = await openWatch(f, request);
    }
    expect(f.clock.monotonicMs(), 'at once').to.equal(0);
    expect(f.logged, 'a normal end is not logged').to.have.length(1);
  });

  // TestReflectorHandleWatchResultChanClosedBefore, TestReflectorHandleWatchResultChanClosedAfter
  it('backs off increasingly if watches end as soon as they are open', async () => {
    const delays: number[] = [];
    for (let i = 0; i < 4; i += 1) {
      watch.end();
      delays.push(await f.backoffMs());
      f.clock.advance(delays.at(-1) ?? 0);
      const [from, request] = await nextWatch();
      expect(from).to.equal('10');
      watch = await openWatch(f, request);
    }
    expect(delays).to.deep.equal([75, 150, 300, 600]);
  });

  // TestNewReflectorWithCustomBackoff: a watch that is open long enough resets the backoff
  it('resets the backoff after a watch that delivered something or was open for 5 s', async () => {
    for (const recover of [
      async () => {
        watch.send(watchLines.event('ADDED', tunnelObject('b', '20')));
        await f.waitForContent('a=5 b=20');
      },
      () => Promise.resolve(f.clock.advance(5_000)),
    ]) {
      for (const delayMs of [75, 150, 300]) {
        watch.reset();
        expect(await f.backoffMs()).to.equal(delayMs);
        f.clock.advance(delayMs);
        watch = await openWatch(f, (await nextWatch())[1]);
      }
      await recover();
    }
    watch.reset();
    expect(await f.backoffMs()).to.equal(75);
  });

  it('relists if a watch is a page without a line feed, and logs its beginning', async () => {
    watch.sendRaw('<html><body>Please log in</body></html>');
    watch.end();
    f.clock.advance(await f.backoffMs());
    expect(f.logged.at(-1)).to.equal(
      'warn watch reversetunnels.reverse-tunnel.io in default: response ended within a line: ' +
        '<html><body>Please log in</body></html> (check that the address is that of the API server)',
    );
    await answerList('30', tunnelObject('b', '20'));
    await f.waitForContent('b=20');
  });

  it('logs a line that is too long, and removes control characters from an invalid event', async () => {
    watch.sendRaw(Buffer.alloc(4 * 1024 * 1024 + 1, 'x'));
    f.clock.advance(await f.backoffMs());
    expect(f.logged.at(-1)).to.contain(
      'watch reversetunnels.reverse-tunnel.io in default: line exceeds 4194304 bytes',
    );
    await answerList('30');
    watch = await openWatch(f, (await nextWatch())[1]);
    f.clock.advance(30_000);
    watch.sendRaw('{"type":"\\u0007\\u001b[31m","object":{}}\n');
    await f.backoffMs();
    expect(f.logged.at(-1)).to.match(/^warn [^\p{Cc}]+unknown type \[31m$/u);
  });

  it('watches again immediately if a watch without events ends normally', async () => {
    f.clock.advance(1_000);
    watch.end();
    const [from] = await nextWatch();
    expect(from).to.equal('10');
    expect(f.clock.monotonicMs()).to.equal(1_000);
  });

  // TestCloseWatchChannelOnError
  it('closes the watch after an ERROR event, whatever the server does', async () => {
    watch.send(watchLines.expired);
    await eventually('the watch to close', () => watch.closed);
    await answerList('220', tunnelObject('a', '5'));
  });

  // TestWatchList, "expiring an established watcher results in returning an error from the reflector"
  it('relists immediately if its version expired in the meantime, reported by a 410 event', async () => {
    watch.send(watchLines.expired);
    await answerList('220', tunnelObject('b', '200'));
    await f.waitForContent('b=200');
    const [from] = await nextWatch();
    expect(from).to.equal('220');
    expect(f.clock.monotonicMs()).to.equal(0);
    expect(f.states.filter((state) => state.startsWith('broken'))).to.deep.equal([]);
    expect(f.logged.at(1)).to.contain('410 Expired: too old resource version: 190 (220)');
  });

  it('relists immediately if its version expired in the meantime, reported by a 410 status', async () => {
    f.clock.advance(1_000);
    watch.end();
    (await nextWatch())[1].respond(answers.CONTINUE_EXPIRED);
    await answerList('220', tunnelObject('b', '200'));
    await f.waitForContent('b=200');
  });

  /** Makes the API server unavailable for this many attempts with a growing backoff. */
  async function simulateOutage(tries: number): Promise<void> {
    watch.reset();
    for (let i = 0; i < tries; i += 1) {
      f.clock.advance(await f.backoffMs());
      const [, request] = await nextWatch();
      f.states.length = 0;
      request.reset();
    }
    f.clock.advance(await f.backoffMs());
  }

  it('relists immediately if its version expired in an outage of any length', async () => {
    await simulateOutage(8);
    (await nextWatch())[1].watch().send(watchLines.expired);
    await answerList('220', tunnelObject('b', '200'));
    await f.waitForContent('b=200');
  });

  it('waits no longer than a starting API server asks for after an outage of any length', async () => {
    await simulateOutage(8);
    f.states.length = 0;
    (await nextWatch())[1].respond(answers.INITIALIZING);
    expect(await f.backoffMs()).to.equal(1_125);
  });

  it('backs off if each list is followed by another 410', async () => {
    watch.send(watchLines.expired);
    await answerList('220');
    (await nextWatch())[1].watch().send(watchLines.expired);
    expect(await f.backoffMs()).to.equal(150);
    f.clock.advance(150);
    await answerList('221');
  });

  // TestNoRelistOnTooManyRequests, TestBackoffOnTooManyRequests
  it('watches again without a list after a 429, with the requested delay', async () => {
    watch.send(watchLines.tooManyRequests);
    for (const answer of [answers.TOO_MANY_REQUESTS, answers.INITIALIZING, answers.TOO_MANY_REQUESTS]) {
      expect(await f.backoffMs()).to.equal(1_125);
      f.states.length = 0;
      f.clock.advance(1_125);
      const [from, request] = await nextWatch();
      expect(from).to.equal('10');
      request.respond(answer);
    }
    f.clock.advance(await f.backoffMs());
    await openWatch(f, (await nextWatch())[1]);
  });

  // TestReflectorListAndWatchInitConnBackoff
  it('continues without a list after a reset connection or a long outage', async () => {
    watch.send(watchLines.event('ADDED', tunnelObject('b', '20')));
    await f.waitForContent('a=5 b=20');
    watch.reset();
    for (let i = 0; i < 14; i += 1) {
      const delayMs = await f.backoffMs();
      expect(delayMs).to.be.at.most(5_000);
      f.states.length = 0;
      f.clock.advance(delayMs);
      const [from, request] = await nextWatch();
      expect(from).to.equal('20');
      request.reset();
    }
    f.clock.advance(await f.backoffMs());
    watch = await openWatch(f, (await nextWatch())[1]);
    watch.send(watchLines.event('MODIFIED', tunnelObject('b', '21')));
    await f.waitForContent('a=5 b=21');
    expect(
      f.logged.filter((line) => line.startsWith('warn')).length,
      'one line per change, then one per 30 s',
    ).to.equal(2);
    expect(f.logged.at(-1)).to.contain('list and watch recovered');
  });

  // TestRetryInternalError, TestRetryWithDeadline: by number and not by time, so that a slow try counts as well
  it('watches again after a 500 and relists if that does not help', async () => {
    for (let i = 0; i < 4; i += 1) {
      watch.send(watchLines.internal);
      const delayMs = await f.backoffMs();
      f.states.length = 0;
      f.clock.advance(delayMs);
      watch = await openWatch(f, (await nextWatch())[1]);
    }
    watch.send(watchLines.internal);
    f.clock.advance(await f.backoffMs());
    await answerList('30', tunnelObject('a', '5'));
  });

  // TestReflectorReplacesStoreOnUnsafeDelete
  it('relists if an unreadable object was deleted, because that causes no event', async () => {
    watch.send(watchLines.event('ADDED', tunnelObject('corrupt', '11')), watchLines.unsafeDelete);
    f.clock.advance(await f.backoffMs());
    expect(f.store.toString()).to.equal('a=5 corrupt=11');
    await answerList('12', tunnelObject('a', '5'));
    await f.waitForContent('a=5');
  });

  it('relists after 90 s without an event or bookmark, because the connection is half-open', async () => {
    f.clock.advance(89_999);
    watch.send(watchLines.event('ADDED', tunnelObject('b', '11')));
    await f.waitForContent('a=5 b=11');
    f.clock.advance(89_999);
    expect(watch.closed).to.equal(false);
    f.clock.advance(1);
    await eventually('the watch to close', () => watch.closed);
    f.clock.advance(await f.backoffMs());
    expect(f.logged.at(-1)).to.match(/^debug .*no event or bookmark for 90 s$/);
    await answerList('12', tunnelObject('b', '11'));
    await f.waitForContent('b=11');
  });

  /**
   * Opens the next watch, lets it be idle for 90 s and answers the list that follows. Returns the line that was
   * logged.
   */
  async function letNextWatchIdle(from: string): Promise<string> {
    const [version, request] = await nextWatch();
    expect(version).to.equal(from);
    await openWatch(f, request);
    f.clock.advance(90_000);
    f.clock.advance(await f.backoffMs());
    const line = f.logged.at(-1) ?? '';
    await answerList(from, tunnelObject('a', '5'));
    await f.waitForState('synced');
    return line;
  }

  it('warns about an idle watch only if the next one is idle too', async () => {
    watch.end();
    f.clock.advance(1_000);
    const logged = f.logged.length;
    expect(await letNextWatchIdle('10')).to.match(/^debug .*no event or bookmark for 90 s$/);
    expect(await letNextWatchIdle('10')).to.match(/^warn .*no event or bookmark for 90 s$/);
    expect(f.logged.slice(logged).map((line) => line.split(' ')[0])).to.deep.equal([
      'debug',
      'debug',
      'warn',
      'info',
    ]);
  });

  it('does not warn about idle watches with another watch between them', async () => {
    watch.end();
    f.clock.advance(1_000);
    await letNextWatchIdle('10');
    const [, request] = await nextWatch();
    const between = await openWatch(f, request);
    between.send(watchLines.bookmark('11'));
    between.end();
    expect(await letNextWatchIdle('11')).to.match(/^debug /);
    expect(f.logged.filter((line) => line.startsWith('warn'))).to.deep.equal([]);
  });

  for (const [what, line] of [
    ['a bookmark', watchLines.bookmark('9')],
    ['an event', watchLines.event('ADDED', tunnelObject('b', '9'))],
  ] as const) {
    it(`relists if ${what} goes back in time: etcd was restored`, async () => {
      watch.send(line);
      f.clock.advance(await f.backoffMs());
      expect(f.logged.at(-1)).to.contain('goes back from resourceVersion 10 to 9');
      await answerList('9', tunnelObject('b', '8'));
      await f.waitForContent('b=8');
      expect((await nextWatch())[0]).to.equal('9');
    });
  }

  for (const [what, bytes] of [
    ['is not JSON', '{"type":"ADDED","object":{]}\n'],
    ['is a proxy error page', '<html><body>504 Gateway Time-out</body></html>\n'],
    ['is null', 'null\n'],
    ['has no object', '{"type":"ADDED"}\n'],
    ['has an object without metadata', '{"type":"MODIFIED","object":{}}\n'],
    ['has no resourceVersion', `${watchLines.bookmark('')}\n`],
    ['is a bookmark with a Status', '{"type":"BOOKMARK","object":{"kind":"Status"}}\n'],
    ['is an error without Status', '{"type":"ERROR","object":{"message":"?"}}\n'],
    ['is of a type that does not exist', `{"type":"PATCHED","object":${tunnelObject('a', '11')}}\n`],
    ['is longer than any object', Buffer.alloc(4 * 1024 * 1024 + 1, 'x')],
  ] as const) {
    it(`relists and logs the cause if a line ${what}`, async () => {
      watch.sendRaw(bytes);
      f.clock.advance(await f.backoffMs());
      expect(f.logged.at(-1)).to.match(/^warn .{20,300}$/);
      await answerList('30', tunnelObject('b', '20'));
      await f.waitForContent('b=20');
    });
  }

  it('relists if the handler throws, because its state is unknown', async () => {
    f.store.failOn = 'ADDED';
    watch.send(
      watchLines.event('ADDED', tunnelObject('b', '11')),
      watchLines.event('ADDED', tunnelObject('c', '12')),
    );
    f.clock.advance(await f.backoffMs());
    expect(f.logged.at(-1)).to.equal(
      'warn watch reversetunnels.reverse-tunnel.io in default: cannot process ADDED b: the store is full',
    );
    await answerList('12', tunnelObject('b', '11'), tunnelObject('c', '12'));
    await f.waitForContent('b=11 c=12');
  });

  it('watches again without a list once its permissions or its token are restored', async () => {
    f.clock.advance(1_000);
    watch.end();
    (await nextWatch())[1].respond(answers.FORBIDDEN);
    f.clock.advance(await f.backoffMs());
    f.states.length = 0;
    (await nextWatch())[1].respond(answers.UNAUTHORIZED);
    (await nextWatch())[1].respond(answers.UNAUTHORIZED);
    f.clock.advance(await f.backoffMs());
    expect((await nextWatch())[0]).to.equal('10');
  });

  it('relists once the CRD is back', async () => {
    watch.send(watchLines.event('DELETED', tunnelObject('a', '11')));
    watch.end();
    (await nextWatch())[1].respond(answers.CRD_MISSING);
    f.clock.advance(await f.backoffMs());
    f.states.length = 0;
    (await f.server.next()).respond(answers.CRD_MISSING);
    f.clock.advance(await f.backoffMs());
    await answerList('40', tunnelObject('b', '39'));
    await f.waitForContent('b=39');
  });
});
