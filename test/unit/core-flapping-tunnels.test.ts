import { expect } from 'chai';
import * as fc from 'fast-check';

import type { ReportChange } from '../../src/core/apply-report.ts';
import { FlappingTunnels } from '../../src/core/flapping-tunnels.ts';
import { Ledger } from '../../src/core/ledger.ts';
import type { Report } from '../../src/core/report.ts';
import { delta, fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

const KEY = 'reporter';
const SECOND = 1000;
const MINUTE = 60_000;

/** Records single drops of a tunnel at these times. */
function dropped(timesMs: readonly number[], name = 'node-1'): FlappingTunnels {
  const flapping = new FlappingTunnels();
  for (const timeMs of timesMs) flapping.record(KEY, new Map([[name, 1]]), timeMs);
  return flapping;
}

/** Returns `count` times, `stepMs` apart, from 0 on. */
const every = (stepMs: number, count: number): number[] =>
  Array.from({ length: count }, (_, index) => index * stepMs);

describe('a tunnel', () => {
  const table: readonly [what: string, timesMs: readonly number[], atMs: number, flaps: boolean][] = [
    ['six drops', every(SECOND, 6), 5 * SECOND, false],
    ['seven drops', every(SECOND, 7), 6 * SECOND, true],
    ['seven drops within 10 minutes', every(99 * SECOND, 7), 594 * SECOND, true],
    ['seven drops within more than 10 minutes', every(100 * SECOND, 7), 600 * SECOND, false],
    ['seven drops, 10 minutes after the first', every(SECOND, 7), 10 * MINUTE, false],
    ['many drops, the seventh last of which is recent', every(SECOND, 100), 11 * MINUTE, true],
    ['many drops, 10 minutes after the seventh last', every(SECOND, 100), 93 * SECOND + 10 * MINUTE, false],
  ];
  for (const [what, timesMs, atMs, flaps] of table) {
    it(`${flaps ? 'flaps' : 'does not flap'} with ${what}`, () => {
      const flapping = dropped(timesMs);
      expect(flapping.isFlapping(KEY, 'node-1', atMs)).to.equal(flaps);
      expect(flapping.hasFlapping(KEY, atMs)).to.equal(flaps);
      expect(flapping.summary(KEY, atMs)?.tunnels).to.equal(flaps ? 1 : undefined);
      expect(flapping.count(atMs)).to.equal(flaps ? 1 : 0);
    });
  }

  it('flaps with seven drops that one report contains', () => {
    const flapping = new FlappingTunnels();
    expect(flapping.record(KEY, new Map([['node-1', 7]]), 0)).to.equal(true);
    expect(flapping.record(KEY, new Map([['node-2', 7]]), 0), 'it is not the first').to.equal(false);
  });
});

describe('the drops in a report', () => {
  const T1 = tunnel('node-1');
  const LATER = tunnel('node-1', { createdAt: '2026-11-23T06:00:00Z' });
  const table: readonly [what: string, before: Report, report: Report, drops: number][] = [
    ['a removal', fullPush(T1), delta([], ['node-1']), 1],
    ['a removal that is repeated', fullPush(T1), delta([], ['node-1', 'node-1']), 1],
    ['a removal of an unknown tunnel', fullPush(), delta([], ['node-1']), 0],
    ['a tunnel that dropped and returned', fullPush(T1), delta([LATER], ['node-1']), 1],
    ['a tunnel that returned and dropped', fullPush(), delta([T1], ['node-1']), 1],
    ['an unchanged tunnel that dropped and returned', fullPush(T1), delta([T1], ['node-1']), 1],
    ['a tunnel that dropped and returned twice', fullPush(T1), delta([T1, LATER], ['node-1', 'node-1']), 2],
    ['a tunnel that dropped three times', fullPush(T1), delta([T1, T1], ['node-1', 'node-1', 'node-1']), 3],
    ['another createdAt without a removal', fullPush(T1), delta([LATER]), 1],
    ['the same tunnel without a removal', fullPush(T1), delta([T1]), 0],
    ['a new tunnel', fullPush(), delta([T1]), 0],
    ['a full push that lacks a tunnel', fullPush(T1), fullPush(), 1],
    ['a full push with another createdAt', fullPush(T1), fullPush(LATER), 1],
    ['the same full push', fullPush(T1), fullPush(T1), 0],
    ['a first full push', delta([]), fullPush(T1), 0],
  ];
  for (const [what, before, report, drops] of table) {
    it(`are ${drops} for ${what}`, () => {
      const ledger = new Ledger();
      const noObjects = { size: 0, tunnel: () => undefined, tunnels: () => [] };
      ledger.apply(RESPONDER, before, noObjects);
      const change = ledger.apply(RESPONDER, report, noObjects) as ReportChange;
      expect(change.drops?.get('node-1') ?? 0).to.equal(drops);
      if (drops === 0) expect(change.drops).to.equal(undefined);
    });
  }
});

/** Returns the largest number of the times that lie within a second, wherever it starts. The times must be sorted. */
function mostInAnySecond(timesMs: readonly number[]): number {
  let most = 0;
  let first = 0;
  for (const [index, timeMs] of timesMs.entries()) {
    while ((timesMs[first] ?? timeMs) <= timeMs - SECOND) first += 1;
    most = Math.max(most, index - first + 1);
  }
  return most;
}

describe('the writes of a flapping tunnel', () => {
  it('are not limited before it flaps', () => {
    const flapping = dropped(every(SECOND, 6));
    for (const timeMs of every(SECOND, 6)) {
      expect(flapping.writeDelayMs(KEY, 'node-1', timeMs)).to.equal(0);
      flapping.startWrite(KEY, 'node-1', timeMs)(timeMs);
    }
    expect(flapping.writeDelayMs(KEY, 'unknown', 0)).to.equal(0);
  });

  it('have 30 s between them, counted from the last one before', () => {
    const flapping = dropped(every(SECOND, 6));
    flapping.startWrite(KEY, 'node-1', 5 * SECOND)(5 * SECOND);
    flapping.record(KEY, new Map([['node-1', 1]]), 6 * SECOND);
    expect(flapping.writeDelayMs(KEY, 'node-1', 6 * SECOND)).to.equal(29 * SECOND);
    expect(flapping.writeDelayMs(KEY, 'node-1', 34 * SECOND)).to.equal(SECOND);
    expect(flapping.writeDelayMs(KEY, 'node-1', 35 * SECOND)).to.equal(0);
    flapping.startWrite(KEY, 'node-1', 35 * SECOND)(35 * SECOND);
    expect(flapping.writeDelayMs(KEY, 'node-1', 35 * SECOND)).to.equal(30 * SECOND);
  });

  it('are not limited after it has stopped flapping', () => {
    const flapping = dropped(every(SECOND, 7));
    flapping.startWrite(KEY, 'node-1', 10 * MINUTE - 1)(10 * MINUTE - 1);
    expect(flapping.writeDelayMs(KEY, 'node-1', 10 * MINUTE)).to.equal(0);
  });

  it('are at most 40 in any second, for any number of tunnels that flap at the same time', () => {
    for (const count of [100, 2000]) {
      const flapping = new FlappingTunnels();
      const names = Array.from({ length: count }, (_, index) => `node-${index}`);
      flapping.record(KEY, new Map(names.map((name) => [name, 7])), 0);
      const writesMs: number[] = [];
      const writes = new Map<string, number[]>();
      for (let nowMs = 0; nowMs < 2 * MINUTE; nowMs += 250) {
        flapping.record(KEY, new Map(names.map((name) => [name, 1])), nowMs);
        for (const name of names) {
          if (flapping.writeDelayMs(KEY, name, nowMs) > 0) continue;
          flapping.startWrite(KEY, name, nowMs)(nowMs);
          writesMs.push(nowMs);
          writes.set(name, [...(writes.get(name) ?? []), nowMs]);
        }
      }
      expect(mostInAnySecond(writesMs), String(count)).to.be.at.most(36);
      expect(writes.size, 'each tunnel is written').to.equal(count);
      for (const times of writes.values())
        for (const [index, atMs] of times.slice(1).entries())
          expect(atMs - (times[index] ?? 0)).to.be.at.least(30 * SECOND);
    }
  });

  it('are at most 40 in any second also if slots are used late', () => {
    const flapping = new FlappingTunnels();
    const names = Array.from({ length: 1000 }, (_, index) => `node-${index}`);
    flapping.record(KEY, new Map(names.map((name) => [name, 7])), 0);
    for (const name of names) flapping.writeDelayMs(KEY, name, 0);
    let written = 0;
    // The process was blocked for most of a second.
    for (const nowMs of [990, 1990])
      for (const name of names) {
        if (flapping.writeDelayMs(KEY, name, nowMs) > 0) continue;
        flapping.startWrite(KEY, name, nowMs)(nowMs);
        if (nowMs === 1990) written += 1;
      }
    expect(written).to.be.within(30, 36);
    for (const name of names) {
      if (flapping.writeDelayMs(KEY, name, 2500) > 0) continue;
      flapping.startWrite(KEY, name, 2500)(2500);
      written += 1;
    }
    expect(written).to.be.at.most(40);
  });

  it('are handled by the API server at most 36 times in any second, however late they are sent and answered', () => {
    const steps = fc.array(
      fc.record({
        // Between two checks; sometimes the process is blocked.
        passedMs: fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 500, max: 1500 })),
        latencyMs: fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 3000 })),
        /** When the API server handles the write, as a part of the latency. */
        handled: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      { minLength: 100, maxLength: 200 },
    );
    fc.assert(
      fc.property(steps, (drawn) => {
        const flapping = new FlappingTunnels();
        const reporters = Array.from({ length: 300 }, (_, index) => `r-${index}`);
        for (const key of reporters) flapping.record(key, new Map([['node-1', 7]]), 0);
        const handledMs: number[] = [];
        const answers: { readonly atMs: number; readonly answered: (atMs: number) => void }[] = [];
        let nowMs = 0;
        const send = (step: (typeof drawn)[number], answered: (atMs: number) => void): void => {
          handledMs.push(nowMs + step.latencyMs * step.handled);
          answers.push({ atMs: nowMs + step.latencyMs, answered });
        };
        for (const step of drawn) {
          nowMs += step.passedMs;
          answers.sort((a, b) => a.atMs - b.atMs);
          while ((answers[0]?.atMs ?? nowMs + 1) <= nowMs) answers.shift()?.answered(nowMs);
          for (const key of reporters) {
            if (flapping.writeDelayMs(key, 'node-1', nowMs) === 0)
              send(step, flapping.startWrite(key, 'node-1', nowMs));
            if (flapping.statusDelayMs(key, nowMs) === 0) send(step, flapping.startStatusWrite(key, nowMs));
          }
        }
        expect(handledMs.length).to.be.greaterThan(0);
        expect(mostInAnySecond(handledMs.toSorted((a, b) => a - b))).to.be.at.most(36);
      }),
      { numRuns: 100 },
    );
  });

  it('do not catch up on slots that were missed', () => {
    const flapping = new FlappingTunnels();
    const names = Array.from({ length: 1000 }, (_, index) => `node-${index}`);
    flapping.record(KEY, new Map(names.map((name) => [name, 7])), 0);
    for (const name of names) flapping.writeDelayMs(KEY, name, 0);
    // Nothing could be written for a minute.
    const ready = names.filter((name) => flapping.writeDelayMs(KEY, name, MINUTE) === 0);
    expect(ready.length).to.be.at.most(2);
  });

  it('share their limit with the counts of reporters', () => {
    const flapping = new FlappingTunnels();
    for (let reporter = 0; reporter < 1000; reporter += 1)
      flapping.record(`r-${reporter}`, new Map([['node-1', 7]]), 0);
    const delays = Array.from({ length: 1000 }, (_, reporter) => [
      flapping.writeDelayMs(`r-${reporter}`, 'node-1', 0),
      flapping.statusDelayMs(`r-${reporter}`, 0),
    ]).flat();
    for (const second of every(SECOND, 50))
      expect(delays.filter((delayMs) => delayMs >= second && delayMs < second + SECOND).length).to.be.at.most(
        36,
      );
    expect(flapping.statusDelayMs('stable', 0)).to.equal(0);
  });
});

describe('the memory of flapping tunnels', () => {
  const drops = (from: number, to: number): Map<string, number> =>
    new Map(Array.from({ length: to - from }, (_, index) => [`node-${from + index}`, 1]));

  it('is bounded, and tunnels that are tracked already stay tracked', () => {
    const flapping = new FlappingTunnels();
    for (let round = 0; round < 10; round += 1) flapping.record(KEY, drops(0, 100_000), round * SECOND);
    expect(flapping.trackedCount).to.equal(20_000);
    expect(flapping.count(10 * SECOND)).to.equal(20_000);
    expect(flapping.isFlapping(KEY, 'node-19999', 10 * SECOND)).to.equal(true);
  });

  it('is freed after 10 minutes without a drop, long before the bound is reached', () => {
    const flapping = new FlappingTunnels();
    for (let minute = 0; minute < 60; minute += 1)
      flapping.record(KEY, drops(100 * minute, 100 * minute + 100), minute * MINUTE);
    expect(flapping.trackedCount).to.equal(1000);
    expect(flapping.count(2 * 60 * MINUTE)).to.equal(0);
    expect(flapping.trackedCount, 'as nothing more goes down').to.equal(0);
  });

  it('is freed for others after 10 minutes without a drop, and with the reporter', () => {
    const flapping = new FlappingTunnels();
    flapping.record(KEY, drops(0, 20_000), 0);
    flapping.record('other', new Map([['node-1', 7]]), 10 * MINUTE);
    expect(flapping.isFlapping('other', 'node-1', 10 * MINUTE)).to.equal(true);
    expect(flapping.trackedCount).to.equal(1);
    flapping.forget('other');
    expect([flapping.trackedCount, flapping.count(10 * MINUTE)]).to.deep.equal([0, 0]);
  });
});

describe('the summary of flapping tunnels', () => {
  it('names the five that have gone down most often', () => {
    const flapping = new FlappingTunnels();
    const counts = [7, 30, 8, 40, 50, 10, 60].map((count, index) => [`node-${index}`, count] as const);
    flapping.record(KEY, new Map([...counts, ['calm', 6]]), 0);
    expect(flapping.summary(KEY, 0)).to.deep.equal({
      tunnels: 7,
      worst: ['node-1', 'node-3', 'node-4', 'node-5', 'node-6'],
    });
  });

  it('changes when the first tunnel stops flapping', () => {
    const flapping = dropped(every(SECOND, 7));
    expect(flapping.nextEndMs(KEY, 10 * SECOND)).to.equal(10 * MINUTE);
    expect(flapping.nextEndMs(KEY, 10 * MINUTE)).to.equal(undefined);
    expect(flapping.nextEndMs('other', 0)).to.equal(undefined);
  });
});
