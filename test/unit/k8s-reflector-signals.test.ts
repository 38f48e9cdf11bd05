/**
 * Stopping a reflector, and its external triggers. Comments name the corresponding case of client-go's
 * reflector_test.go.
 */
import { expect } from 'chai';
import * as answers from '../support/recorded-responses.ts';
import { tunnelObject, watchLines } from '../support/recorded-responses.ts';
import { eventually } from '../support/eventually.ts';
import { startReflectorFixture, type ReflectorFixture } from '../support/reflector-fixture.ts';
import type { ScriptedWatch } from '../support/scripted-api-server.ts';

describe('reflector stop and triggers', () => {
  let f: ReflectorFixture;

  beforeEach(async () => {
    f = await startReflectorFixture();
  });

  afterEach(() => f.stop());

  async function startWatching(): Promise<ScriptedWatch> {
    f.run();
    (await f.server.next()).respond(answers.listResponse('10', [tunnelObject('a', '5')]));
    const watch = (await f.server.next()).watch();
    await f.waitForState('watching');
    return watch;
  }

  // TestReflectorWatchStoppedBefore, TestReflectorStopWatch, TestReflectorHandleWatchStoppedBefore
  it('sends no request if it is stopped before it starts', async () => {
    const stopped = AbortSignal.abort();
    await f.reflector.run(stopped);
    expect(f.server.count).to.equal(0);
    expect(f.states).to.deep.equal([]);
  });

  // TestReflectorWatchStoppedAfter, TestReflectorHandleWatchStoppedAfter, TestRunUntil
  it('closes its watch when it is stopped and then calls no handler', async () => {
    const watch = await startWatching();
    await f.stop();
    await eventually('the watch to close', () => watch.closed);
    expect(f.states).to.deep.equal(['listing', 'synced', 'watching']);
    expect(f.logged.filter((line) => line.startsWith('warn'))).to.deep.equal([]);
    f = await startReflectorFixture();
  });

  it('ends if it is stopped during a list or a backoff', async () => {
    f.run();
    const page = await f.server.next();
    await f.stop();
    expect(f.store.calls).to.deep.equal(['begin']);
    expect(page.query.has('watch')).to.equal(false);

    f = await startReflectorFixture();
    f.run();
    (await f.server.next()).respond(answers.FORBIDDEN);
    await f.backoffMs();
    await f.stop();
    expect(f.server.count).to.equal(1);
    f = await startReflectorFixture();
  });

  it('retries within a second of its last attempt after retryNow, however often that is called', async () => {
    f.run();
    for (let i = 0; i < 8; i += 1) {
      (await f.server.next()).reset();
      const delayMs = await f.backoffMs();
      f.states.length = 0;
      if (i < 7) f.clock.advance(delayMs);
    }
    await eventually('a backoff of seconds', () => f.clock.pendingTimersMs[0] === 3_750);
    f.clock.advance(200);
    for (let i = 0; i < 64; i += 1) f.reflector.retryNow();
    expect(f.clock.pendingTimersMs).to.deep.equal([800]);
    f.clock.advance(800);
    (await f.server.next()).respond(answers.listResponse('10', []));
    await f.waitForState('synced');
  });

  it('does not extend a backoff after retryNow', async () => {
    f.run();
    (await f.server.next()).reset();
    expect(await f.backoffMs()).to.equal(75);
    f.reflector.retryNow();
    expect(f.clock.pendingTimersMs).to.deep.equal([75]);
  });

  it('reopens a watch that is silent for 2 s after retryNow', async () => {
    const watch = await startWatching();
    watch.send(watchLines.event('ADDED', tunnelObject('b', '20')));
    await f.waitForContent('a=5 b=20');
    for (let i = 0; i < 64; i += 1) f.reflector.retryNow();
    f.clock.advance(1_999);
    expect(watch.closed).to.equal(false);
    f.clock.advance(1);
    const again = await f.server.next();
    expect(again.query.get('watch')).to.equal('1');
    expect(again.query.get('resourceVersion')).to.equal('20');
    await eventually('the first watch to close', () => watch.closed);
    expect(f.states.filter((state) => state.startsWith('broken'))).to.deep.equal([]);
  });

  it('keeps a watch that delivers data after retryNow', async () => {
    const watch = await startWatching();
    f.reflector.retryNow();
    f.clock.advance(1);
    watch.send(watchLines.event('ADDED', tunnelObject('b', '20')));
    await f.waitForContent('a=5 b=20');
    f.clock.advance(10_000);
    await eventually('only the idle timer', () => f.clock.pendingTimersMs.length === 1);
    expect(watch.closed).to.equal(false);
    expect(f.server.count).to.equal(2);
  });

  it('relists immediately when relist is called during a watch', async () => {
    const watch = await startWatching();
    f.reflector.relist();
    (await f.server.next()).respond(answers.listResponse('8', [tunnelObject('b', '7')]));
    await f.waitForContent('b=7');
    const again = await f.server.next();
    expect(again.query.get('resourceVersion')).to.equal('8');
    await eventually('the first watch to close', () => watch.closed);
    expect(f.clock.monotonicMs()).to.equal(0);
  });

  it('relists instead of watching when relist is called during a backoff', async () => {
    const watch = await startWatching();
    watch.reset();
    await f.backoffMs();
    f.reflector.relist();
    const request = await f.server.next();
    expect(request.query.has('watch')).to.equal(false);
  });

  it('lists again when relist is called during a list, which may show the state before', async () => {
    f.run();
    const first = await f.server.next();
    f.reflector.relist();
    f.reflector.relist();
    first.respond(answers.listResponse('8', [tunnelObject('a', '7')]));
    const second = await f.server.next();
    expect(second.query.has('watch'), 'a list instead of a watch').to.equal(false);
    second.respond(answers.listResponse('9', [tunnelObject('b', '9')]));
    await f.waitForContent('b=9');
    const watch = await f.server.next();
    expect(watch.query.get('resourceVersion')).to.equal('9');
  });
});
