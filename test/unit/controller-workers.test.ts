import { expect } from 'chai';
import { pino } from 'pino';

import { Workers, type Outcome } from '../../src/controller/workers.ts';
import { Workqueue, type QueueItem } from '../../src/controller/workqueue.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime, flushEventLoop } from '../support/fake-time.ts';

const DONE: Outcome = { kind: 'done', answered: true };
const REFUSED: Outcome = { kind: 'rejected', answer: '422' };
const RETRY: Outcome = { kind: 'retry', blocked: false, unreachable: false, retryAfterMs: undefined };
const NO_ANSWER: Outcome = { kind: 'retry', blocked: true, unreachable: true, retryAfterMs: undefined };
/** The tunnel was added and removed, so no request was sent. */
const NOTHING_DUE: Outcome = { kind: 'done', answered: false };

/** Workers of a queue; `answer` returns the result of a reconcile, or undefined if the test completes it. */
function createScene({ concurrency = 4, random = 1 }: { concurrency?: number; random?: number } = {}) {
  const clock = new FakeClock();
  clock.advance(60_000);
  const startMs = clock.monotonicMs();
  const queue = new Workqueue(clock);
  const logged: Record<string, unknown>[] = [];
  const looks: { readonly name: string; readonly priority: string; readonly atMs: number }[] = [];
  const open: { readonly name: string; readonly resolve: (outcome: Outcome) => void }[] = [];
  let noAnswers = 0;
  let answer: ((name: string) => Outcome | undefined) | undefined;
  const workers = new Workers({
    queue,
    reconciler: {
      describe: ({ name }) => ({ tunnel: name }),
      reconcile: ({ name, priority }: QueueItem): Promise<Outcome> => {
        looks.push({ name, priority, atMs: clock.monotonicMs() - startMs });
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
    retryCounter: { inc() {} },
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
    /** Every reconcile, with the ms since the start. */
    looks,
    noAnswers: (): number => noAnswers,
    answers: (how: (name: string) => Outcome | undefined): void => {
      answer = how;
    },
    add: (...names: string[]): void => {
      for (const name of names) queue.add('r', name, clock.monotonicMs());
      workers.onReady();
    },
    /** Names whose reconcile is not completed yet. */
    working: (): string[] => open.map(({ name }) => name),
    /** Completes the oldest reconcile of a name. */
    answerNow: async (name: string, outcome: Outcome): Promise<void> => {
      const index = open.findIndex((each) => each.name === name);
      const [look] = open.splice(index, 1);
      if (index < 0 || look === undefined) throw new Error(`no reconcile of ${name}`);
      look.resolve(outcome);
      await flushEventLoop();
    },
    pass: (ms: number): Promise<void> => advanceTime(clock, ms),
  };
}

describe('workers', () => {
  it('let other callbacks run between reconciliations that send no request', async () => {
    const { queue, workers, looks, answers } = createScene();
    answers(() => NOTHING_DUE);
    workers.start();
    for (let index = 0; index < 1000; index += 1) queue.add('r', `t-${index}`, 0);
    const perTick: number[] = [];
    for (let seen = 0; seen < 1000; seen = looks.length) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      perTick.push(looks.length - seen);
    }
    expect(Math.max(...perTick)).to.equal(64);
  });

  it('let other callbacks run after 2 ms of reconciliations that send requests', async () => {
    const { clock, queue, workers, looks, answers } = createScene({ concurrency: 10 });
    answers(() => {
      clock.advance(1);
      return undefined;
    });
    workers.start();
    for (let index = 0; index < 10; index += 1) queue.add('r', `t-${index}`, 0);
    const perTick: number[] = [];
    for (let seen = 0; seen < 10; seen = looks.length) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      perTick.push(looks.length - seen);
    }
    expect(Math.max(...perTick)).to.equal(2);
  });

  const retries: Record<string, [failure: Outcome, priority: QueueItem['priority']]> = {
    'an item without a response at its own priority': [NO_ANSWER, 'high'],
    'a failed item at its own priority': [RETRY, 'high'],
    'a rejected item at its own priority': [REFUSED, 'high'],
    'a failed item at the priority of its next step': [{ ...RETRY, priority: 'high' }, 'normal'],
    'a rejected item at the priority of its next step': [{ ...REFUSED, priority: 'high' }, 'normal'],
    'an item without a response at the priority of its next step': [
      { ...NO_ANSWER, priority: 'high' },
      'normal',
    ],
  };
  for (const [title, [failure, priority]] of Object.entries(retries)) {
    it(`retry ${title}`, async () => {
      const { queue, clock, looks, answers, workers, pass } = createScene();
      queue.add('r', 't', clock.monotonicMs(), priority);
      answers(() => (looks.length === 1 ? failure : DONE));
      workers.start();
      await pass(60_000);
      expect(looks.map((look) => look.priority)).to.deep.equal([priority, 'high']);
    });
  }

  it('take no key before they are started, and then at most `concurrency` keys', async () => {
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

  it('reconcile a key again that changed during its reconcile', async () => {
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

  it('delay no other key because of one that is always rejected, and retry it with increasing delays', async () => {
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

  it('reconcile a rejected key immediately when it changes', async () => {
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

  it('double the delay of a key at each failure, and reset it at a success', async () => {
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

  it('treat and log an internal error in one key as a rejection of that key', async () => {
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

describe('a throttling API server', () => {
  it('gets the key again after the Retry-After time, and not earlier', async () => {
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

  it('gets the key again with backoff if there is no Retry-After, or if it is 0', async () => {
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

/** All workers are busy after a response; then the connection is lost. */
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

describe('an unreachable API server', () => {
  it('is probed by one key at a time, at most every 2 s, however many keys wait', async () => {
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

  it('is still probed when most keys need no request, and its return is detected as soon', async () => {
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

  it('is probed again while an earlier probe hangs', async () => {
    const { looks, pass, answers, workers } = await outage(1000);
    await pass(10_000);
    looks.length = 0;
    // From now on, there is neither a response nor an error.
    answers(() => undefined);
    await pass(10_000);
    expect(looks.length).to.be.within(4, 6);
    workers.stop();
  });

  it('fails only the requests in flight at its beginning', async () => {
    const { looks, pass } = await outage(1000);
    await pass(100);
    // 8 in flight, and the first probe after 100 ms.
    expect(looks).to.have.length(9);
  });

  it('does not count as a failure of any key: all are reconciled within 2 s of its return', async () => {
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

  it('is reachable again at any response, even a rejection', async () => {
    const { looks, pass, answers } = await outage(10);
    await pass(60_000);
    looks.length = 0;
    answers(() => REFUSED);
    await pass(2000);
    expect(new Set(looks.map(({ name }) => name)).size).to.equal(10);
  });

  it('that responds to a request in flight gets all keys immediately, before the next probe', async () => {
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

  it('is not assumed if only one key times out, which delays only that key', async () => {
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

  it('is probed also from the start', async () => {
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

  it('waits for queued and running keys, but not for delayed ones', async () => {
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

  it('does not resolve while the API server is unreachable and keys wait', async () => {
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
  it('take no more keys; running reconciles complete, and changes are not lost', async () => {
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

  it('leave no timer, whatever they were waiting for', async () => {
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

  it('leave no timer, whatever completes later', async () => {
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
