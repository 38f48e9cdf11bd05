import { expect } from 'chai';
import { pino } from 'pino';

import { Workers, type Outcome } from '../../src/controller/workers.ts';
import { Workqueue, type QueueItem } from '../../src/controller/workqueue.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime, flushEventLoop } from '../support/fake-time.ts';

const DONE: Outcome = { kind: 'done', answered: true };
const REFUSED: Outcome = { kind: 'rejected', answer: '422' };
const RETRY: Outcome = { kind: 'retry', blocked: false, unreachable: false, retryAfterMs: undefined };
const NO_ANSWER: Outcome = { kind: 'retry', blocked: true, unreachable: true, retryAfterMs: undefined };
/** The tunnel came and went: nothing was asked of the API server. */
const NOTHING_DUE: Outcome = { kind: 'done', answered: false };

const metrics = createMetrics();

/** Workers over a queue, with looks that are answered as `answer` says or, where it says nothing, by the test. */
function createScene({ concurrency = 4, random = 1 }: { concurrency?: number; random?: number } = {}) {
  metrics.registry.resetMetrics();
  const clock = new FakeClock();
  clock.advance(60_000);
  const startMs = clock.monotonicMs();
  const queue = new Workqueue(clock);
  const logged: Record<string, unknown>[] = [];
  const looks: { readonly name: string; readonly atMs: number }[] = [];
  const open: { readonly name: string; readonly resolve: (outcome: Outcome) => void }[] = [];
  let noAnswers = 0;
  let answer: ((name: string) => Outcome | undefined) | undefined;
  const workers = new Workers({
    queue,
    reconciler: {
      describe: ({ name }) => ({ tunnel: name }),
      reconcile: ({ name }: QueueItem): Promise<Outcome> => {
        looks.push({ name, atMs: clock.monotonicMs() - startMs });
        const outcome = answer?.(name);
        if (outcome !== undefined) return Promise.resolve(outcome);
        const { promise, resolve } = Promise.withResolvers<Outcome>();
        open.push({ name, resolve });
        return promise;
      },
    },
    concurrency,
    backoff: 'shortened',
    onUnreachable: {
      retryNow() {
        noAnswers += 1;
      },
    },
    clock,
    random: () => random,
    metrics,
    log: pino(
      { base: null },
      { write: (line: string) => logged.push(JSON.parse(line) as Record<string, unknown>) },
    ),
  });
  return {
    clock,
    queue,
    workers,
    logged,
    /** Every look, with the ms since the start. */
    looks,
    noAnswers: (): number => noAnswers,
    answers: (how: (name: string) => Outcome | undefined): void => {
      answer = how;
    },
    add: (...names: string[]): void => {
      for (const name of names) queue.add('r', name, clock.monotonicMs());
      workers.onReady();
    },
    /** Names whose look is not answered yet. */
    working: (): string[] => open.map(({ name }) => name),
    /** Answers the oldest look at a name. */
    answerNow: async (name: string, outcome: Outcome): Promise<void> => {
      const index = open.findIndex((each) => each.name === name);
      const [look] = open.splice(index, 1);
      if (index < 0 || look === undefined) throw new Error(`nobody looks at ${name}`);
      look.resolve(outcome);
      await flushEventLoop();
    },
    pass: (ms: number): Promise<void> => advanceTime(clock, ms),
  };
}

describe('workers', () => {
  it('take nothing before they are started, and at most so many keys at once', async () => {
    const { add, working, workers, answerNow } = createScene({ concurrency: 3 });
    add('1', '2', '3', '4', '5');
    expect(working()).to.deep.equal([]);
    workers.start();
    expect(working()).to.deep.equal(['1', '2', '3']);
    await answerNow('2', DONE);
    expect(working()).to.deep.equal(['1', '3', '4']);
    await answerNow('1', DONE);
    await answerNow('3', DONE);
    await answerNow('4', DONE);
    await answerNow('5', DONE);
    expect(working()).to.deep.equal([]);
  });

  it('look at a key again that changed while one was on it', async () => {
    const { add, working, workers, answerNow, queue } = createScene();
    workers.start();
    add('1');
    add('1');
    expect(working()).to.deep.equal(['1']);
    await answerNow('1', DONE);
    expect(working()).to.deep.equal(['1']);
    await answerNow('1', DONE);
    expect(queue.idle).to.equal(true);
  });

  it('delay no other key on account of one that is refused for ever; it is tried again ever more rarely', async () => {
    const { add, workers, answers, looks, pass, queue } = createScene({ concurrency: 1 });
    answers((name) => (name === 'bad' ? REFUSED : DONE));
    workers.start();
    add('bad', '1', '2', '3');
    await pass(0);
    expect(looks.map(({ name, atMs }) => [name, atMs])).to.deep.equal([
      ['bad', 0],
      ['1', 0],
      ['2', 0],
      ['3', 0],
    ]);
    await pass(1_200_000);
    const tries = looks.filter(({ name }) => name === 'bad').map(({ atMs }) => atMs / 1000);
    expect(tries).to.deep.equal([0, 5, 15, 35, 75, 155, 315, 615, 915]);
    expect(queue.delayedCount).to.equal(1);
  });

  it('look at a refused key at once when it changes', async () => {
    const { add, workers, answers, looks, pass } = createScene();
    answers(() => REFUSED);
    workers.start();
    add('1');
    await pass(1000);
    answers(() => DONE);
    add('1');
    await pass(60_000);
    expect(looks.map(({ atMs }) => atMs)).to.deep.equal([0, 1000]);
  });

  it('wait longer for a key each time it fails, and forget that once it succeeds', async () => {
    const { add, workers, answers, looks, pass } = createScene();
    let fails = 3;
    answers(() => ((fails -= 1) >= 0 ? RETRY : DONE));
    workers.start();
    add('1');
    await pass(10_000);
    expect(looks.map(({ atMs }) => atMs)).to.deep.equal([0, 100, 300, 700]);
    fails = 1;
    add('1');
    await pass(10_000);
    expect(looks.slice(4).map(({ atMs }) => atMs)).to.deep.equal([10_000, 10_100]);
  });

  it('take a fault of this program in one key for a refusal of that key, and say so', async () => {
    const { add, workers, answers, logged, looks, pass } = createScene({ concurrency: 1 });
    answers((name) => {
      if (name === 'bad') throw new Error('a fault');
      return DONE;
    });
    workers.start();
    add('bad', 'good');
    await pass(4999);
    expect(looks.map(({ name }) => name)).to.deep.equal(['bad', 'good']);
    expect(logged.map(({ tunnel }) => tunnel)).to.deep.equal(['bad']);
    await pass(1);
    expect(looks.map(({ name }) => name)).to.deep.equal(['bad', 'good', 'bad']);
  });
});

describe('an API server that asks for less', () => {
  it('is asked again by that key after the time it named, and not sooner', async () => {
    for (const random of [0, 0.5, 1]) {
      const { add, workers, answers, looks, pass } = createScene({ random });
      answers(() =>
        looks.length === 1 ? { kind: 'retry', blocked: true, retryAfterMs: 5000, unreachable: false } : DONE,
      );
      workers.start();
      add('1');
      await pass(60_000);
      expect(looks).to.have.length(2);
      expect(looks[1]?.atMs).to.be.within(5000, 7500);
    }
  });

  it('that names no time, or none to wait, is asked again with backoff', async () => {
    for (const afterMs of [undefined, 0]) {
      const { add, workers, answers, looks, pass } = createScene();
      answers(() =>
        looks.length <= 2
          ? { kind: 'retry', blocked: true, retryAfterMs: afterMs, unreachable: false }
          : DONE,
      );
      workers.start();
      add('1');
      await pass(60_000);
      expect(looks.map(({ atMs }) => atMs)).to.deep.equal([0, 100, 300]);
    }
  });
});

/** Everybody is at work with an answer behind them; then the connection is gone. */
async function outage(keys: number) {
  const scene = createScene({ concurrency: 8 });
  scene.answers(() => DONE);
  scene.workers.start();
  scene.add('before');
  await scene.pass(10);
  scene.looks.length = 0;
  scene.answers(() => NO_ANSWER);
  scene.add(...Array.from({ length: keys }, (_, index) => `t${index}`));
  await scene.pass(0);
  return scene;
}

describe('an API server that does not answer', () => {
  it('is knocked at by one key at a time, at most every 2 s, however many keys wait', async () => {
    const { looks, pass, queue, clock, noAnswers } = await outage(1000);
    await pass(10_000);
    looks.length = 0;
    const told = noAnswers();
    await pass(60_000);
    expect(looks).to.have.length(30);
    expect(noAnswers() - told).to.equal(30);
    expect(queue.depth).to.equal(1000);
    expect(clock.pendingTimersMs, 'one timer').to.have.length(1);
  });

  it('is still knocked at when most keys turn out to need nothing, and its return is noticed as soon', async () => {
    const { looks, pass, queue, answers } = await outage(1000);
    await pass(10_000);
    looks.length = 0;
    answers((name) => (name.endsWith('0') ? NO_ANSWER : NOTHING_DUE));
    await pass(20_000);
    const asked = looks.filter(({ name }) => name.endsWith('0'));
    expect(asked.length).to.be.within(9, 11);
    answers(() => DONE);
    await pass(2000);
    expect(queue.idle).to.equal(true);
  });

  it('is knocked at again while an earlier knock hangs', async () => {
    const { looks, pass, answers, workers } = await outage(1000);
    await pass(10_000);
    looks.length = 0;
    // From now on nothing is answered, nor refused.
    answers(() => undefined);
    await pass(10_000);
    expect(looks.length).to.be.within(4, 6);
    workers.stop();
  });

  it('costs at its beginning what was in flight, and no more', async () => {
    const { looks, pass } = await outage(1000);
    await pass(100);
    // 8 in flight, and the first knock after 100 ms.
    expect(looks).to.have.length(9);
  });

  it('does not count as the failure of any key: all are served within 2 s of its return', async () => {
    const { looks, pass, queue, answers } = await outage(1000);
    await pass(3_600_000);
    looks.length = 0;
    answers(() => DONE);
    await pass(2000);
    expect(new Set(looks.map(({ name }) => name)).size).to.equal(1000);
    expect(looks).to.have.length(1000);
    expect(queue.idle).to.equal(true);
    expect(queue.delayedCount).to.equal(0);
  });

  it('is there again when any answer comes, a refusal too', async () => {
    const { looks, pass, answers } = await outage(10);
    await pass(60_000);
    looks.length = 0;
    answers(() => REFUSED);
    await pass(2000);
    expect(new Set(looks.map(({ name }) => name)).size).to.equal(10);
  });

  it('that answers a request which was in flight is asked by everybody at once, before the next knock', async () => {
    const { add, workers, working, answerNow, pass, clock } = createScene({ concurrency: 2 });
    workers.start();
    add('slow', '1', '2', '3');
    await pass(10);
    await answerNow('1', NO_ANSWER);
    expect(working()).to.deep.equal(['slow']);
    await answerNow('slow', DONE);
    expect(working()).to.deep.equal(['2', '3']);
    expect(clock.pendingTimersMs).to.deep.equal([]);
  });

  it('for one key alone, which times out while others are answered, delays that key alone', async () => {
    const { add, workers, answers, answerNow, looks, pass, queue } = createScene({ concurrency: 2 });
    answers((name) => (name === 'bad' ? undefined : DONE));
    workers.start();
    add('bad', '1');
    await pass(10_000);
    add('2');
    await pass(0);
    await answerNow('bad', NO_ANSWER);
    expect(queue.delayedCount).to.equal(1);
    add('3', '4');
    await pass(0);
    expect(looks.map(({ name }) => name)).to.deep.equal(['bad', '1', '2', '3', '4']);
  });

  it('from the very start is knocked at too', async () => {
    const { add, workers, answers, looks, pass, queue } = createScene({ concurrency: 8 });
    answers(() => NO_ANSWER);
    workers.start();
    add(...Array.from({ length: 100 }, (_, index) => `t${index}`));
    await pass(60_000);
    expect(looks.length).to.be.below(8 + 36);
    expect(queue.depth).to.equal(100);
  });
});

describe('drained', () => {
  it('resolves at once when there is nothing to do', async () => {
    const { workers } = createScene();
    await workers.drained();
  });

  it('waits for what waits and for what is being worked on, and not for what waits for a time', async () => {
    const { add, workers, answerNow, queue } = createScene({ concurrency: 1 });
    workers.start();
    add('1', '2');
    let drained = 0;
    const wait = async (): Promise<void> => {
      await workers.drained();
      drained += 1;
    };
    const waiting = [wait(), wait()];
    await answerNow('1', REFUSED);
    expect(drained).to.equal(0);
    await answerNow('2', DONE);
    await Promise.all(waiting);
    expect(queue.delayedCount).to.equal(1);
  });

  it('does not resolve while the API server is away and keys wait', async () => {
    const { add, workers, answers, pass } = createScene();
    answers(() => NO_ANSWER);
    workers.start();
    add('1');
    let drained = false;
    const wait = async (): Promise<void> => {
      await workers.drained();
      drained = true;
    };
    const waiting = wait();
    await pass(60_000);
    expect(drained).to.equal(false);
    answers(() => DONE);
    await pass(2000);
    await waiting;
  });
});

describe('stopped workers', () => {
  it('take nothing more; what is being worked on ends by itself, and its change is not lost', async () => {
    const { add, workers, working, answerNow, queue } = createScene({ concurrency: 1 });
    workers.start();
    add('1', '2');
    workers.stop();
    await answerNow('1', DONE);
    expect(working()).to.deep.equal([]);
    expect(queue.depth).to.equal(1);
    add('3');
    expect(working()).to.deep.equal([]);
  });

  it('leave no timer behind, whatever they were waiting for', async () => {
    for (const outcome of [RETRY, REFUSED, NO_ANSWER]) {
      const { add, workers, answerNow, clock } = createScene();
      workers.start();
      add('1');
      await answerNow('1', outcome);
      expect(clock.pendingTimersMs).to.have.length(1);
      workers.stop();
      expect(clock.pendingTimersMs, JSON.stringify(outcome)).to.deep.equal([]);
    }
  });

  it('leave no timer behind, whatever is answered later', async () => {
    for (const late of [DONE, RETRY, REFUSED, NO_ANSWER]) {
      const { add, workers, working, answerNow, clock } = createScene();
      workers.start();
      add('1', '2');
      workers.stop();
      await answerNow('1', late);
      expect(working()).to.deep.equal(['2']);
      expect(clock.pendingTimersMs, JSON.stringify(late)).to.deep.equal([]);
    }
  });
});
