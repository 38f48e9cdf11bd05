import { expect } from 'chai';
import * as fc from 'fast-check';
import { createChurn, type Churn } from '../../src/simulate/churn.ts';
import { seededRandom } from '../../src/simulate/random.ts';

/** Churn that writes down what it does. */
function recorded(seed: number, left = Number.POSITIVE_INFINITY): { churn: Churn; done: string[] } {
  const done: string[] = [];
  let rest = left;
  const churn = createChurn(
    { churnPerSecond: 3, flapsPerSecond: 2, downtimeMs: 700 },
    {
      replaceOne: (random) => void done.push(`replace ${random.below(1000)}`),
      dropOne(random) {
        if (rest-- <= 0) return undefined;
        const which = random.below(1000);
        done.push(`drop ${which}`);
        return () => void done.push(`return ${which}`);
      },
    },
    seededRandom(seed),
  );
  return { churn, done };
}

describe('churn', () => {
  it('does the same things in the same order, however late or early it is told that time passes', () => {
    const whole = recorded(1);
    whole.churn.advance(60_000);
    expect(whole.done.length).to.be.greaterThan(300);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { size: 'max', maxLength: 100 }), (steps) => {
        const { churn, done } = recorded(1);
        let passedMs = 0;
        for (const stepMs of steps) {
          churn.advance(Math.min(stepMs, 60_000 - passedMs));
          passedMs = Math.min(60_000, passedMs + stepMs);
        }
        churn.advance(60_000 - passedMs);
        expect(done).to.deep.equal(whole.done);
      }),
      { numRuns: 50 },
    );
  });

  it('keeps its rates over hours', () => {
    const { churn, done } = recorded(1);
    churn.advance(2 * 3_600_000);
    expect(done.filter((what) => what.startsWith('replace'))).to.have.length(3 * 7200);
    expect(done.filter((what) => what.startsWith('drop'))).to.have.length(2 * 7200);
  });

  it('brings every second flapping tunnel back at once, and the others when they were away long enough', () => {
    const { churn, done } = recorded(1);
    churn.advance(600_000);
    churn.restoreDropped();
    const flaps = done.filter((what) => !what.startsWith('replace'));
    const dropped = flaps.filter((what) => what.startsWith('drop')).map((what) => what.slice(5));
    const returned = flaps.filter((what) => what.startsWith('return')).map((what) => what.slice(7));
    expect(returned).to.have.members(dropped);
    const atOnce = done.filter(
      (what, i) => what.startsWith('drop') && done[i + 1] === what.replace('drop', 'return'),
    );
    expect(atOnce.length / dropped.length).to.be.within(0.4, 0.6);
  });

  it('goes on when there is nothing to drop', () => {
    const { churn, done } = recorded(1, 1);
    churn.advance(10_000);
    expect(done.filter((what) => what.startsWith('drop'))).to.have.length(1);
    expect(done.filter((what) => what.startsWith('replace'))).to.have.length(30);
  });

  it('gives each value of a range about as often, and the same series for a seed', () => {
    const random = seededRandom(7);
    const counts = Array.from({ length: 10 }, () => 0);
    for (let i = 0; i < 100_000; i += 1) {
      const value = random.below(10);
      counts[value] = (counts[value] ?? Number.NaN) + 1;
    }
    for (const count of counts) expect(count).to.be.within(9500, 10_500);
    const [a, b] = [seededRandom(7), seededRandom(7)];
    for (let i = 0; i < 100; i += 1) expect(a.below(2 ** 32)).to.equal(b.below(2 ** 32));
  });
});
