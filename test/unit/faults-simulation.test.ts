import { expect } from 'chai';
import { courseOf } from '../faults/sim/course.ts';
import { failureText, playOnce, runSeeds } from '../faults/sim/run.ts';

/** A share of what `npm run test:faults` plays; some 20 ms each. */
const SEEDS = 250;

describe('the operator as a whole, in fake time', () => {
  it('comes right after any faults, and deletes no row of a reporter that is served', async function () {
    this.timeout(180_000);
    const { failures, seeds, requests } = await runSeeds(1, SEEDS, { mostFailures: 2 });
    expect(failures.map(failureText).join('\n\n')).to.equal('');
    expect(seeds).to.equal(SEEDS);
    expect(requests, 'requests, so that something happened').to.be.greaterThan(20 * SEEDS);
  });

  it('does the same with the same seed', async () => {
    const play = async (): Promise<string[]> => {
      const lines: string[] = [];
      await playOnce(courseOf(7), (line) => lines.push(line));
      return lines;
    };
    const first = await play();
    expect(first.length).to.be.greaterThan(20);
    expect(await play()).to.deep.equal(first);
  });
});
