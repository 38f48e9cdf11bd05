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
  {
    wrong:
      'etcd was restored five times, at last to a history whose Leases and objects have the versions of the present one, and nobody noticed',
    seed: 9442,
    replicas: 3,
    reporters: 2,
    tunnels: 0,
    steps: [
      { atMs: 9313, do: 'stream-stall', pick: 82, other: 82, forMs: 19_873 },
      { atMs: 9408, do: 'stream-stall', pick: 87, other: 69, forMs: 27_842 },
      { atMs: 31_388, do: 'hand-takes-name', pick: 72, other: 32, forMs: 7025 },
      { atMs: 36_604, do: 'etcd-restored', pick: 69, other: 66, forMs: 450 },
      { atMs: 65_011, do: 'tunnel-up', pick: 38, other: 67, forMs: 14_884 },
      { atMs: 69_790, do: 'etcd-restored', pick: 81, other: 56, forMs: 24_912 },
      { atMs: 73_072, do: 'stream-stall', pick: 75, other: 26, forMs: 19_197 },
      { atMs: 81_473, do: 'etcd-restored', pick: 62, other: 19, forMs: 1490 },
      { atMs: 92_577, do: 'etcd-restored', pick: 8, other: 78, forMs: 88_113 },
      { atMs: 100_026, do: 'etcd-restored', pick: 42, other: 49, forMs: 12_384 },
      { atMs: 106_217, do: 'etcd-restored', pick: 3, other: 23, forMs: 887 },
    ],
  },
];

describe('the operator as a whole, in fake time', () => {
  it('comes right after any faults, and deletes no row of a reporter that is served', async function () {
    this.timeout(180_000);
    const { failures, seeds, requests } = await runSeeds(1, SEEDS, { mostFailures: 2 });
    expect(failures.map((failure) => failureText(failure)).join('\n\n')).to.equal('');
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
      await playOnce(courseOf(7), { trace: (line) => lines.push(line) });
      return lines;
    };
    const first = await play();
    expect(first.length).to.be.greaterThan(20);
    expect(await play()).to.deep.equal(first);
  });
});
