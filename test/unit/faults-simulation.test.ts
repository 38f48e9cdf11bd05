import { expect } from 'chai';
import { courseOf, type Course } from '../faults/sim/course.ts';
import { failureText, playOnce, runSeeds } from '../faults/sim/run.ts';

/** A share of what `npm run test:faults` plays; some 20 ms each. */
const SEEDS = 250;

/** Courses that came out wrong once, cut down, each with what was wrong. */
const MENDED: readonly (Course & { readonly wrong: string })[] = [
  {
    wrong:
      'a row that a restored etcd had lost was not made again, as its watch went on from a version of before',
    seed: 34,
    replicas: 1,
    reporters: 1,
    tunnels: 0,
    steps: [
      { atMs: 40_600, do: 'tunnel-up', pick: 70, other: 12, forMs: 33_700 },
      { atMs: 88_100, do: 'etcd-restored', pick: 81, other: 25, forMs: 1800 },
    ],
  },
];

describe('the operator as a whole, in fake time', () => {
  it('comes right after any faults, and deletes no row of a reporter that is served', async function () {
    this.timeout(180_000);
    const { failures, seeds, requests } = await runSeeds(1, SEEDS, { mostFailures: 2 });
    expect(failures.map(failureText).join('\n\n')).to.equal('');
    expect(seeds).to.equal(SEEDS);
    expect(requests, 'requests, so that something happened').to.be.greaterThan(20 * SEEDS);
  });

  for (const { wrong, ...course } of MENDED) {
    it(`no longer: ${wrong}`, async () => {
      expect((await playOnce(course)).wrongs).to.deep.equal([]);
    });
  }

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
