import { expect } from 'chai';
import { generateSchedule, type Schedule } from '../faults/sim/schedule.ts';
import { formatFailure, runOnce, runSeeds } from '../faults/sim/run-seeds.ts';

/** A share of what `npm run test:faults` plays; some 20 ms each. */
const SEEDS = 250;

/** Courses that came out wrong once, cut down, each with what was wrong. */
const REGRESSIONS: readonly (Schedule & { readonly wrong: string })[] = [
  {
    wrong:
      'a row that a restored etcd had lost was not made again, as its watch went on from a version of before',
    seed: 34,
    replicas: 1,
    reporters: 1,
    tunnels: 0,
    faults: [
      { atMs: 40_600, kind: 'tunnel-up', pick: 70, variant: 12, durationMs: 33_700 },
      { atMs: 88_100, kind: 'etcd-restored', pick: 81, variant: 25, durationMs: 1800 },
    ],
  },
  {
    wrong:
      'etcd was restored five times, at last to a history whose Leases and objects have the versions of the present one, and nobody noticed',
    seed: 9442,
    replicas: 3,
    reporters: 2,
    tunnels: 0,
    faults: [
      { atMs: 9313, kind: 'stream-stall', pick: 82, variant: 82, durationMs: 19_873 },
      { atMs: 9408, kind: 'stream-stall', pick: 87, variant: 69, durationMs: 27_842 },
      { atMs: 31_388, kind: 'kubectl-takes-name', pick: 72, variant: 32, durationMs: 7025 },
      { atMs: 36_604, kind: 'etcd-restored', pick: 69, variant: 66, durationMs: 450 },
      { atMs: 65_011, kind: 'tunnel-up', pick: 38, variant: 67, durationMs: 14_884 },
      { atMs: 69_790, kind: 'etcd-restored', pick: 81, variant: 56, durationMs: 24_912 },
      { atMs: 73_072, kind: 'stream-stall', pick: 75, variant: 26, durationMs: 19_197 },
      { atMs: 81_473, kind: 'etcd-restored', pick: 62, variant: 19, durationMs: 1490 },
      { atMs: 92_577, kind: 'etcd-restored', pick: 8, variant: 78, durationMs: 88_113 },
      { atMs: 100_026, kind: 'etcd-restored', pick: 42, variant: 49, durationMs: 12_384 },
      { atMs: 106_217, kind: 'etcd-restored', pick: 3, variant: 23, durationMs: 887 },
    ],
  },
];

describe('the operator as a whole, in fake time', () => {
  it('comes right after any faults, and deletes no row of a reporter that is served', async function () {
    this.timeout(180_000);
    const { failures, seeds, requests } = await runSeeds(1, SEEDS, { maxFailures: 2 });
    expect(failures.map((failure) => formatFailure(failure)).join('\n\n')).to.equal('');
    expect(seeds).to.equal(SEEDS);
    expect(requests, 'requests, so that something happened').to.be.greaterThan(20 * SEEDS);
  });

  for (const { wrong, ...course } of REGRESSIONS) {
    it(`no longer: ${wrong}`, async () => {
      expect((await runOnce(course)).violations).to.deep.equal([]);
    });
  }

  it('does the same with the same seed', async () => {
    const play = async (): Promise<string[]> => {
      const lines: string[] = [];
      await runOnce(generateSchedule(7), { trace: (line) => lines.push(line) });
      return lines;
    };
    const first = await play();
    expect(first.length).to.be.greaterThan(20);
    expect(await play()).to.deep.equal(first);
  });
});
