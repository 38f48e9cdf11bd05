import { expect } from 'chai';
import * as fc from 'fast-check';

import { ReportBurst } from '../../src/controller/report-burst.ts';
import { createHarness } from '../support/controller-harness.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import { fullPush, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

describe('a burst of reports', () => {
  it('delays writes until 30 ms after the last report', () => {
    const burst = new ReportBurst();
    for (let atMs = 0; atMs <= 100; atMs += 20) burst.reportRead(100, atMs);
    expect([100, 120, 130].map((atMs) => burst.delayMs(atMs))).to.deep.equal([30, 10, 0]);
  });

  it('delays writes by at most 1 ms per change', () => {
    const burst = new ReportBurst();
    burst.reportRead(12, 0);
    expect([0, 10, 12].map((atMs) => burst.delayMs(atMs))).to.deep.equal([12, 2, 0]);
  });

  it('delays writes by at most 1 s, however long it lasts', () => {
    const burst = new ReportBurst();
    for (let atMs = 0; atMs <= 5000; atMs += 20) {
      burst.reportRead(1000, atMs);
      if (atMs >= 1000) expect(burst.delayMs(atMs)).to.equal(0);
      else expect(burst.delayMs(atMs)).to.be.greaterThan(0);
    }
  });

  it('does not begin with fewer than 8 changes, nor with heartbeats', () => {
    const burst = new ReportBurst();
    burst.reportRead(7, 0);
    expect(burst.delayMs(0)).to.equal(0);
    for (let atMs = 0; atMs < 1000; atMs += 1) burst.reportRead(0, atMs);
    expect(burst.delayMs(1000)).to.equal(0);
    burst.reportRead(7, 1000);
    expect(burst.delayMs(1000), 'after a pause').to.equal(0);
  });

  it('never delays a permanent trickle of changes, after its first moments', () => {
    const trickle = fc.array(
      fc.record({ gapMs: fc.integer({ min: 4, max: 29 }), changes: fc.integer({ min: 1, max: 3 }) }),
      {
        minLength: 100,
        maxLength: 300,
      },
    );
    fc.assert(
      fc.property(trickle, (reports) => {
        const burst = new ReportBurst();
        let nowMs = 0;
        for (const { gapMs, changes } of reports) {
          nowMs += gapMs;
          burst.reportRead(changes, nowMs);
          if (nowMs > 100) expect(burst.delayMs(nowMs)).to.equal(0);
        }
      }),
    );
  });
});

describe('the writes of a fleet that connects', () => {
  const tunnels = Array.from({ length: 10 }, (_, index) => tunnel(`node-${index}`));

  it('are sent after all reports have been read', async () => {
    const world = createHarness();
    await world.start();
    for (let index = 0; index < 100; index += 1) {
      world.report({ cluster: 'edge', id: `responder-${index}` }, fullPush(...tunnels));
      await flushEventLoop();
      world.clock.advance(5);
    }
    expect(world.api.calls).to.deep.equal([]);
    await world.advance(30);
    expect(world.api.stored.size).to.equal(1000);
  });

  it('are not sent once the workers are stopped', async () => {
    const world = createHarness();
    await world.start();
    world.report(RESPONDER, fullPush(...tunnels));
    await flushEventLoop();
    world.workers.stop();
    await world.advance(1000);
    expect(world.api.calls).to.deep.equal([]);
  });
});
