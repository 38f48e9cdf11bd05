import { expect } from 'chai';
import { formatFailure, runSeeds } from '../faults/sim/run-seeds.ts';

/** A few of the seeds of `npm run test:faults`. A file of its own, so that it runs next to the simulation with objects. */
const SEEDS = 100;

describe('simulation of the whole operator in fake time, with slices', () => {
  it('converges with tunnels in slices, also if they are migrated, and hides no tunnel that is up', async function () {
    this.timeout(600_000);
    const { failures, seeds } = await runSeeds(1, SEEDS, { maxFailures: 2, representation: 'slices' });
    expect(failures.map((failure) => formatFailure(failure)).join('\n\n')).to.equal('');
    expect(seeds).to.equal(SEEDS);
  });
});
