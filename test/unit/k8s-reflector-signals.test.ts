/** Stopping a reflector, and what it makes of signs from outside. With the case of client-go's reflector_test.go. */
import { expect } from 'chai';
import * as answers from '../support/recorded-responses.ts';
import { tunnelObject, watchLines } from '../support/recorded-responses.ts';
import { eventually } from '../support/eventually.ts';
import { startReflectorFixture, type ReflectorFixture } from '../support/reflector-fixture.ts';
import type { ScriptedWatch } from '../support/scripted-api-server.ts';

describe('reflector: end and signs from outside', () => {
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
  it('asks for nothing when it is stopped before it began', async () => {
    const stopped = AbortSignal.abort();
    await f.reflector.run(stopped);
    expect(f.server.count).to.equal(0);
    expect(f.states).to.deep.equal([]);
  });

  // TestReflectorWatchStoppedAfter, TestReflectorHandleWatchStoppedAfter, TestRunUntil
  it('closes its watch when it is stopped, and calls nobody any more', async () => {
    const watch = await startWatching();
    await f.stop();
    await eventually('the watch is closed', () => watch.closed);
    expect(f.states).to.deep.equal(['listing', 'synced', 'watching']);
    expect(f.logged.filter((line) => line.startsWith('warn'))).to.deep.equal([]);
    f = await startReflectorFixture();
  });

  it('ends when it is stopped in the middle of a list, or at rest', async () => {
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

  it('tries again within a second of its last try when hastened, however often', async () => {
    f.run();
    for (let i = 0; i < 8; i += 1) {
      (await f.server.next()).reset();
      const restMs = await f.backoffMs();
      f.states.length = 0;
      if (i < 7) f.clock.advance(restMs);
    }
    await eventually('a rest of seconds', () => f.clock.pendingTimersMs[0] === 3_750);
    f.clock.advance(200);
    for (let i = 0; i < 64; i += 1) f.reflector.retryNow();
    expect(f.clock.pendingTimersMs).to.deep.equal([800]);
    f.clock.advance(800);
    (await f.server.next()).respond(answers.listResponse('10', []));
    await f.waitForState('synced');
  });

  it('does not rest longer for being hastened', async () => {
    f.run();
    (await f.server.next()).reset();
    expect(await f.backoffMs()).to.equal(75);
    f.reflector.retryNow();
    expect(f.clock.pendingTimersMs).to.deep.equal([75]);
  });

  it('opens a watch anew that stays silent for 2 s after a sign that its connection is lost', async () => {
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
    await eventually('the first is closed', () => watch.closed);
    expect(f.states.filter((state) => state.startsWith('broken'))).to.deep.equal([]);
  });

  it('keeps a watch that shows that it lives', async () => {
    const watch = await startWatching();
    f.reflector.retryNow();
    f.clock.advance(1);
    watch.send(watchLines.event('ADDED', tunnelObject('b', '20')));
    await f.waitForContent('a=5 b=20');
    f.clock.advance(10_000);
    await eventually('no timer but that for silence', () => f.clock.pendingTimersMs.length === 1);
    expect(watch.closed).to.equal(false);
    expect(f.server.count).to.equal(2);
  });

  it('lists again at once when told that the watch did not show what is stored', async () => {
    const watch = await startWatching();
    f.reflector.relist();
    (await f.server.next()).respond(answers.listResponse('8', [tunnelObject('b', '7')]));
    await f.waitForContent('b=7');
    const again = await f.server.next();
    expect(again.query.get('resourceVersion')).to.equal('8');
    await eventually('the first watch is closed', () => watch.closed);
    expect(f.clock.monotonicMs()).to.equal(0);
  });

  it('lists instead of watching when told so at rest', async () => {
    const watch = await startWatching();
    watch.reset();
    await f.backoffMs();
    f.reflector.relist();
    const request = await f.server.next();
    expect(request.query.has('watch')).to.equal(false);
  });

  it('lists once more when told so while a list is under way, which may show what was before', async () => {
    f.run();
    const first = await f.server.next();
    f.reflector.relist();
    f.reflector.relist();
    first.respond(answers.listResponse('8', [tunnelObject('a', '7')]));
    const second = await f.server.next();
    expect(second.query.has('watch'), 'a list and no watch').to.equal(false);
    second.respond(answers.listResponse('9', [tunnelObject('b', '9')]));
    await f.waitForContent('b=9');
    const watch = await f.server.next();
    expect(watch.query.get('resourceVersion')).to.equal('9');
  });
});
