import { expect } from 'chai';
import * as fc from 'fast-check';
import { createChurn, type Churn } from '../../src/simulate/churn.ts';
import { seededRandom } from '../../src/simulate/random.ts';

/**
 * Creates churn that records its changes.
 *
 * @param maxDrops after this many drops there is nothing left to drop
 */
function recordChurn(seed: number, maxDrops = Number.POSITIVE_INFINITY): { churn: Churn; changes: string[] } {
  const changes: string[] = [];
  let dropsLeft = maxDrops;
  const churn = createChurn(
    { churnPerSecond: 3, flapsPerSecond: 2, downtimeMs: 700 },
    {
      replaceOne: (random) => void changes.push(`replace ${random.below(1000)}`),
      dropOne(random) {
        if (dropsLeft-- <= 0) return undefined;
        const tunnel = random.below(1000);
        changes.push(`drop ${tunnel}`);
        return () => void changes.push(`return ${tunnel}`);
      },
    },
    seededRandom(seed),
  );
  return { churn, changes };
}

describe('churn', () => {
  it('makes the same changes in the same order, however irregularly its time advances', () => {
    const reference = recordChurn(1);
    reference.churn.advance(60_000);
    expect(reference.changes.length).to.be.greaterThan(300);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 5000 }), { size: 'max', maxLength: 100 }), (steps) => {
        const { churn, changes } = recordChurn(1);
        let elapsedMs = 0;
        for (const stepMs of steps) {
          churn.advance(Math.min(stepMs, 60_000 - elapsedMs));
          elapsedMs = Math.min(60_000, elapsedMs + stepMs);
        }
        churn.advance(60_000 - elapsedMs);
        expect(changes).to.deep.equal(reference.changes);
      }),
      { numRuns: 50 },
    );
  });

  it('keeps its rates exactly over hours', () => {
    const { churn, changes } = recordChurn(1);
    churn.advance(2 * 3_600_000);
    expect(changes.filter((change) => change.startsWith('replace'))).to.have.length(3 * 7200);
    expect(changes.filter((change) => change.startsWith('drop'))).to.have.length(2 * 7200);
  });

  it('restores half of the flapping tunnels immediately and the others after the downtime', () => {
    const { churn, changes } = recordChurn(1);
    churn.advance(600_000);
    churn.restoreDropped();
    const flaps = changes.filter((change) => !change.startsWith('replace'));
    const dropped = flaps.filter((change) => change.startsWith('drop')).map((change) => change.slice(5));
    const returned = flaps.filter((change) => change.startsWith('return')).map((change) => change.slice(7));
    expect(returned).to.have.members(dropped);
    const immediate = changes.filter(
      (change, i) => change.startsWith('drop') && changes[i + 1] === change.replace('drop', 'return'),
    );
    expect(immediate.length / dropped.length).to.be.within(0.4, 0.6);
  });

  it('continues when there is nothing to drop', () => {
    const { churn, changes } = recordChurn(1, 1);
    churn.advance(10_000);
    expect(changes.filter((change) => change.startsWith('drop'))).to.have.length(1);
    expect(changes.filter((change) => change.startsWith('replace'))).to.have.length(30);
  });

  it('draws values with equal frequency, and the same sequence for the same seed', () => {
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
