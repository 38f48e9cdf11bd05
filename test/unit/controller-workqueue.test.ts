import { expect } from 'chai';
import * as fc from 'fast-check';

import { Workqueue, type QueueItem } from '../../src/controller/workqueue.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import { heapBytes } from '../support/heap.ts';

function createQueue(): { queue: Workqueue; clock: FakeClock } {
  const clock = new FakeClock();
  return { queue: new Workqueue(clock), clock };
}

/** Takes the next key, which must exist. */
function take(queue: Workqueue): QueueItem {
  const item = queue.take();
  if (item === undefined) throw new Error('no key is waiting');
  return item;
}

/** Takes and completes all waiting keys in their order. */
function drain(queue: Workqueue): string[] {
  const taken: string[] = [];
  for (let item = queue.take(); item !== undefined; item = queue.take()) {
    taken.push(`${item.key}/${item.name}`);
    queue.done(item);
  }
  return taken;
}

describe('a key in the workqueue', () => {
  it('is queued once, however often it is added', () => {
    const { queue } = createQueue();
    for (let time = 0; time < 10; time += 1) queue.add('r', 't', time);
    queue.add('r', 'u', 0);
    queue.add('s', 't', 0);
    expect(queue.depth).to.equal(3);
    expect(drain(queue)).to.have.members(['r/t', 'r/u', 's/t']);
    expect(queue.take()).to.equal(undefined);
    expect(queue.depth).to.equal(0);
  });

  it('is pending while it waits, is delayed or is being reconciled', () => {
    const { queue } = createQueue();
    queue.add('r', 'running', 0);
    const item = take(queue);
    queue.add('r', 'waiting', 0);
    queue.addAfter({ key: 'r', name: 'delayed', priority: 'normal', sinceMs: 0 }, 1000);
    queue.add('s', 'other', 0);
    expect([...queue.pendingNames('r')].toSorted()).to.deep.equal(['delayed', 'running', 'waiting']);
    queue.done(item);
    expect([...queue.pendingNames('r')].toSorted()).to.deep.equal(['delayed', 'waiting']);
    expect([...queue.pendingNames('unknown')]).to.be.empty;
  });

  it('has one worker at a time, and is reconciled again once if it changed meanwhile', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 0);
    const item = take(queue);
    for (let time = 1; time < 10; time += 1) queue.add('r', 't', time);
    expect(queue.take()).to.equal(undefined);
    expect(queue.idle, 'its worker is not done').to.equal(false);
    queue.done(item);
    expect(drain(queue)).to.deep.equal(['r/t']);
    expect(queue.idle).to.equal(true);
  });

  it('is not reconciled again if it did not change meanwhile', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 0);
    queue.done(take(queue));
    expect(queue.take()).to.equal(undefined);
    expect(queue.idle).to.equal(true);
  });

  it('is kept while it waits or has a worker, but not while it is delayed', () => {
    const { queue } = createQueue();
    expect(queue.isActive('r', 't')).to.equal(false);
    queue.add('r', 't', 0);
    expect(queue.isActive('r', 't')).to.equal(true);
    expect(queue.isActive('r', 'u')).to.equal(false);
    const item = take(queue);
    expect(queue.isActive('r', 't')).to.equal(true);
    queue.addAfter(item, 1000);
    queue.done(item);
    expect(queue.isActive('r', 't')).to.equal(false);
    expect(queue.delayedCount).to.equal(1);
    queue.close();
  });

  it('may be named like a property of a prototype', () => {
    const { queue } = createQueue();
    queue.add('__proto__', '__proto__', 0);
    queue.add('constructor', 'toString', 0);
    expect(drain(queue)).to.deep.equal(['__proto__/__proto__', 'constructor/toString']);
  });
});

describe('the time of the oldest change', () => {
  it('is kept while the key waits, whatever follows', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 5);
    queue.add('r', 't', 7);
    queue.add('r', 't', 3);
    expect(take(queue).sinceMs).to.equal(3);
  });

  it('is that of later changes once the key has a worker', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 5);
    const item = take(queue);
    queue.add('r', 't', 9);
    queue.add('r', 't', 8);
    queue.add('r', 't', 10);
    queue.done(item);
    expect(take(queue).sinceMs).to.equal(8);
  });

  it('is that of the failed attempt if the key is requeued', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 5);
    const item = take(queue);
    queue.add('r', 't', 9);
    queue.add(item.key, item.name, item.sinceMs);
    queue.done(item);
    expect(take(queue).sinceMs).to.equal(5);
  });

  it('is kept through a delay, also when a change overtakes it', () => {
    for (const overtaken of [false, true]) {
      const { queue, clock } = createQueue();
      queue.add('r', 't', 5);
      const item = take(queue);
      queue.addAfter(item, 1000);
      queue.done(item);
      if (overtaken) queue.add('r', 't', 500);
      else clock.advance(1000);
      expect(take(queue).sinceMs).to.equal(5);
      queue.close();
    }
  });
});

describe('reporters', () => {
  it('are served round-robin, each in the order of its own changes', () => {
    const { queue } = createQueue();
    for (const name of ['1', '2', '3']) queue.add('r', name, 0);
    for (const name of ['1', '2']) queue.add('s', name, 0);
    queue.add('t', '1', 0);
    expect(drain(queue)).to.deep.equal(['r/1', 's/1', 't/1', 'r/2', 's/2', 'r/3']);
  });

  it('wait for at most one key of each other reporter, behind a flood of 100,000', () => {
    const { queue } = createQueue();
    for (let index = 0; index < 100_000; index += 1) queue.add('flood', `t${index}`, 0);
    const running = Array.from({ length: 64 }, () => take(queue));
    for (let other = 0; other < 20; other += 1) {
      queue.add(`quiet-${other}`, 'now', 0);
      const before: string[] = [];
      for (let item = take(queue); item.key === 'flood'; item = take(queue)) before.push(item.name);
      expect(before.length, `keys before that of reporter ${other}`).to.be.at.most(1);
    }
    for (const item of running) queue.done(item);
    expect(queue.depth).to.be.above(99_000);
  });

  it('get their turn again when their key changes, while the flood continues', () => {
    const { queue } = createQueue();
    for (let index = 0; index < 1000; index += 1) queue.add('flood', `t${index}`, 0);
    let added = 1000;
    let turns = 0;
    for (let taken = 0; taken < 1000; taken += 1) {
      queue.add('quiet', 'now', 0);
      for (let time = 0; time < 3; time += 1) queue.add('flood', `t${(added += 1)}`, 0);
      const item = take(queue);
      if (item.key === 'quiet') turns += 1;
      queue.done(item);
    }
    expect(turns).to.be.within(499, 501);
  });

  it('are all processed, each key once, for any mixture', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), fc.nat(5))), (added) => {
        const { queue } = createQueue();
        for (const [key, name] of added) queue.add(`r${key}`, `t${name}`, 0);
        const wanted = new Set(added.map(([key, name]) => `r${key}/t${name}`));
        expect(queue.depth).to.equal(wanted.size);
        const taken = drain(queue);
        expect(taken.toSorted()).to.deep.equal([...wanted].toSorted());
      }),
    );
  });
});

describe('a delay', () => {
  it('ends at its time with a notification', () => {
    const { queue, clock } = createQueue();
    let ready = 0;
    queue.addEventHandler({ onReady: () => (ready += 1) });
    queue.addAfter({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 }, 1000);
    clock.advance(999);
    expect([queue.take(), ready, queue.delayedCount]).to.deep.equal([undefined, 0, 1]);
    clock.advance(1);
    expect([ready, queue.delayedCount, queue.depth]).to.deep.equal([1, 0, 1]);
    expect(take(queue)).to.deep.equal({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 });
    expect(clock.pendingTimersMs).to.deep.equal([]);
  });

  it('is overtaken by a change, and does not occur again', () => {
    const { queue, clock } = createQueue();
    queue.addAfter({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 }, 1000);
    queue.add('r', 't', 10);
    expect(drain(queue)).to.deep.equal(['r/t']);
    expect(queue.delayedCount, 'nothing is delayed').to.equal(0);
    clock.advance(2000);
    expect(queue.take()).to.equal(undefined);
    expect(clock.pendingTimersMs).to.deep.equal([]);
  });

  it('causes another reconcile if it ends while the key has a worker', () => {
    const { queue, clock } = createQueue();
    queue.add('r', 't', 0);
    const item = take(queue);
    queue.addAfter(item, 10);
    clock.advance(10);
    expect(queue.take()).to.equal(undefined);
    queue.done(item);
    expect(drain(queue)).to.deep.equal(['r/t']);
  });

  it('ends at the earlier time, whichever was set first', () => {
    for (const [first, second] of [
      [100, 1000],
      [1000, 100],
    ] as const) {
      const { queue, clock } = createQueue();
      queue.addAfter({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 }, first);
      queue.addAfter({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 }, second);
      clock.advance(100);
      expect(drain(queue)).to.deep.equal(['r/t']);
      clock.advance(5000);
      expect(queue.take()).to.equal(undefined);
    }
  });

  it('is not set for a key that is already waiting', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 0);
    queue.addAfter({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 }, 100);
    expect(queue.delayedCount).to.equal(0);
  });

  it('ends in the order of time with one timer for 10,000 keys', () => {
    const { queue, clock } = createQueue();
    const taken: string[] = [];
    queue.addEventHandler({ onReady: () => taken.push(...drain(queue)) });
    const delays = Array.from({ length: 10_000 }, (_, index) => (index * 7919) % 10_007);
    for (const [index, delayMs] of delays.entries()) {
      queue.addAfter({ key: 'r', name: `t${index}`, priority: 'normal', sinceMs: 0 }, delayMs);
      expect(clock.pendingTimersMs).to.have.length(1);
    }
    clock.advance(10_007);
    const times = taken.map((name) => delays[Number(name.slice(3))]);
    expect(times).to.deep.equal(delays.toSorted((a, b) => a - b));
  });

  it('ends neither early nor late, and once per key', () => {
    const anySet = fc.array(fc.tuple(fc.nat(4), fc.nat(1000)), { maxLength: 30 });
    fc.assert(
      fc.property(anySet, (set) => {
        const { queue, clock } = createQueue();
        const came: [string, number][] = [];
        queue.addEventHandler({
          onReady: () =>
            came.push(...drain(queue).map((name): [string, number] => [name, clock.monotonicMs()])),
        });
        const wanted = new Map<string, number>();
        for (const [name, delayMs] of set) {
          queue.addAfter({ key: 'r', name: `t${name}`, priority: 'normal', sinceMs: 0 }, delayMs);
          wanted.set(`r/t${name}`, Math.min(delayMs, wanted.get(`r/t${name}`) ?? delayMs));
        }
        clock.advance(1000);
        expect(came).to.have.deep.members([...wanted]);
      }),
    );
  });

  it('leaves no timer when the queue is closed, even if it is set afterwards', () => {
    const { queue, clock } = createQueue();
    queue.addAfter({ key: 'r', name: 't', priority: 'normal', sinceMs: 0 }, 1000);
    queue.close();
    expect(clock.pendingTimersMs).to.deep.equal([]);
    queue.addAfter({ key: 'r', name: 'u', priority: 'normal', sinceMs: 0 }, 1000);
    expect(clock.pendingTimersMs).to.deep.equal([]);
    queue.add('r', 'v', 0);
    expect(drain(queue)).to.deep.equal(['r/v']);
  });
});

describe('failures of a key', () => {
  it('are counted consecutively per key until it succeeds', () => {
    const { queue } = createQueue();
    queue.add('r', 't', 0);
    const item = take(queue);
    expect([queue.recordFailure(item), queue.recordFailure(item), queue.recordFailure(item)]).to.deep.equal([
      1, 2, 3,
    ]);
    expect(queue.recordFailure({ ...item, name: 'u' })).to.equal(1);
    expect(queue.recordFailure({ ...item, key: 's' })).to.equal(1);
    queue.done(item);
    expect(queue.recordFailure(item), 'also after the worker has completed it').to.equal(4);
    queue.forgetFailures(item);
    expect(queue.recordFailure(item)).to.equal(1);
  });
});

describe('the memory of the workqueue', () => {
  it('contains nothing of processed reporters, even of 50,000', () => {
    const { queue, clock } = createQueue();
    const serve = (from: number, to: number): void => {
      for (let index = from; index < to; index += 1) {
        queue.add(`reporter-${index}`, 't', 0);
        const item = take(queue);
        queue.recordFailure(item);
        queue.addAfter(item, 10);
        queue.done(item);
        clock.advance(10);
        const again = take(queue);
        queue.forgetFailures(again);
        queue.done(again);
      }
    };
    serve(0, 5000);
    const before = heapBytes();
    serve(5000, 55_000);
    expect(heapBytes() - before).to.be.below(4_000_000);
    expect(queue.idle).to.equal(true);
  });

  it('does not grow with 200,000 changes that each overtake a long delay', () => {
    const { queue } = createQueue();
    const change = (times: number): void => {
      for (let time = 0; time < times; time += 1) {
        queue.add('r', 't', 0);
        const item = take(queue);
        queue.addAfter(item, 300_000);
        queue.done(item);
      }
    };
    change(5000);
    const before = heapBytes();
    change(200_000);
    expect(heapBytes() - before).to.be.below(4_000_000);
    expect(queue.delayedCount).to.equal(1);
    queue.close();
  });

  it('has a constant cost per key, with 600,000 keys of one reporter', () => {
    // Linear cost takes less than a second; a search from the front for each key would exceed the timeout.
    const { queue } = createQueue();
    for (let index = 0; index < 600_000; index += 1) queue.add('r', `t${index}`, 0);
    for (let index = 0; index < 600_000; index += 1) {
      const item = take(queue);
      if (item.name !== `t${index}`) expect.fail(`${item.name} came in place of t${index}`);
      queue.done(item);
    }
    expect(queue.idle).to.equal(true);
  });

  it('does not grow when the same 100,000 keys are requeued repeatedly', () => {
    const { queue } = createQueue();
    for (let index = 0; index < 100_000; index += 1) queue.add('r', `t${index}`, 0);
    for (let time = 0; time < 200_000; time += 1) {
      const item = take(queue);
      queue.add(item.key, item.name, item.sinceMs);
      queue.done(item);
    }
    expect(queue.depth).to.equal(100_000);
    expect(new Set(drain(queue)).size).to.equal(100_000);
  });
});

describe('an item of high priority', () => {
  it('is taken before all items of normal priority, in order of arrival among its own', () => {
    const { queue } = createQueue();
    queue.add('a', '', 0);
    queue.add('b', '', 0);
    queue.add('c', '', 0, 'high');
    queue.add('d', '', 0, 'high');
    expect(drain(queue)).to.deep.equal(['c/', 'd/', 'a/', 'b/']);
  });

  it('overtakes the others when its priority is raised while it waits, and is taken once', () => {
    const { queue } = createQueue();
    for (const key of ['a', 'b', 'c']) queue.add(key, '', 0);
    queue.add('c', '', 0, 'high');
    expect(queue.depth).to.equal(3);
    expect(drain(queue)).to.deep.equal(['c/', 'a/', 'b/']);
    expect(queue.idle).to.equal(true);
  });

  it('keeps its priority when it changes during its reconciliation, and through a delay', () => {
    const { queue, clock } = createQueue();
    queue.add('b', '', 0, 'high');
    const item = take(queue);
    queue.add('a', '', 0);
    queue.add('b', '', 0, 'high');
    queue.done(item);
    const again = take(queue);
    expect(again.key).to.equal('b');
    queue.addAfter(again, 10);
    queue.done(again);
    clock.advance(10);
    expect(drain(queue)).to.deep.equal(['b/', 'a/']);
  });
});

describe('a priority that is raised', () => {
  /** Adds `a` and `b` at normal priority, then brings `b` into a state in which its priority is raised. */
  const raises: Record<string, (queue: Workqueue) => void> = {
    'while the item is held': (queue) => {
      const item = take(queue);
      queue.backOff(item, 10);
      queue.done(item);
      queue.add('b', '', 0, 'high');
    },
    'while the item is reconciled, before a backoff': (queue) => {
      const item = take(queue);
      queue.add('b', '', 0, 'high');
      queue.backOff(item, 10);
      queue.done(item);
    },
    'while the item is reconciled, after a backoff': (queue) => {
      const item = take(queue);
      queue.backOff(item, 10);
      queue.add('b', '', 0, 'high');
      queue.done(item);
    },
    'while the item is reconciled, before a shorter delay': (queue) => {
      const item = take(queue);
      queue.add('b', '', 0, 'high');
      queue.addAfter(item, 10);
      queue.done(item);
    },
  };
  for (const [situation, raise] of Object.entries(raises)) {
    it(`is kept until the item is taken: ${situation}`, () => {
      const { queue, clock } = createQueue();
      queue.add('b', '', 0);
      raise(queue);
      queue.add('a', '', 0);
      clock.advance(10);
      const { key, priority } = take(queue);
      expect({ key, priority }).to.deep.equal({ key: 'b', priority: 'high' });
      queue.close();
    });
  }

  it('does not belong to a delay that an item of normal priority overtakes', () => {
    const { queue } = createQueue();
    queue.add('b', '', 0, 'high');
    const item = take(queue);
    queue.addAfter(item, 1000);
    queue.done(item);
    queue.add('a', '', 0);
    queue.add('b', '', 0);
    expect(drain(queue)).to.deep.equal(['a/', 'b/']);
  });

  it('ends when the item is taken', () => {
    const { queue } = createQueue();
    queue.add('b', '', 0);
    const first = take(queue);
    queue.add('b', '', 0, 'high');
    queue.done(first);
    const second = take(queue);
    expect(second.priority).to.equal('high');
    queue.add('a', '', 0);
    queue.add('b', '', 0);
    queue.done(second);
    expect(drain(queue)).to.deep.equal(['a/', 'b/']);
  });
});

describe('a backoff', () => {
  it('is not cut short by changes, before or after the end of the reconciliation', () => {
    const { queue, clock } = createQueue();
    queue.add('r', '', 0);
    const item = take(queue);
    queue.add('r', '', 1);
    queue.backOff(item, 1000);
    queue.done(item);
    queue.add('r', '', 2);
    expect(queue.take()).to.equal(undefined);
    expect([queue.pending('r'), queue.idle]).to.deep.equal([1, true]);
    clock.advance(999);
    expect(queue.take()).to.equal(undefined);
    clock.advance(1);
    expect(drain(queue)).to.deep.equal(['r/']);
  });

  it('ends with its failures when the reporter is forgotten', () => {
    const { queue } = createQueue();
    queue.add('r', '', 0);
    const item = take(queue);
    queue.recordFailure(item);
    queue.backOff(item, 1000);
    queue.done(item);
    queue.forget('r');
    expect(queue.delayedCount).to.equal(0);
    queue.add('r', '', 0);
    expect(queue.recordFailure(take(queue))).to.equal(1);
    queue.close();
  });
});

describe('the readiness event', () => {
  it('is emitted on a later tick, once for all items added until then', async () => {
    const { queue } = createQueue();
    let ready = 0;
    queue.addEventHandler({ onReady: () => (ready += 1) });
    for (let index = 0; index < 10; index += 1) queue.add('r', `t${index}`, 0);
    await Promise.resolve();
    expect(ready).to.equal(0);
    await flushEventLoop();
    expect(ready).to.equal(1);
  });
});
