import { expect } from 'chai';
import { generateSchedule, type Schedule } from '../faults/sim/schedule.ts';
import { WEBHOOK_MUTATIONS } from '../faults/sim/webhook.ts';
import { formatFailure, runOnce, runSeeds } from '../faults/sim/run-seeds.ts';

/** A few of the seeds of `npm run test:faults`; about 20 ms each. */
const SEEDS = 250;

/** Shrunk schedules that failed once, each with the cause. */
const REGRESSIONS: readonly (Schedule & { readonly cause: string })[] = [
  {
    cause:
      'an object that was lost by a restore of etcd was not recreated, because its watch continued from an earlier version',
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
    cause:
      'etcd was restored five times, finally to a history whose Leases and objects had the current versions, which was not detected',
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
  {
    cause:
      'a replica that was stopped while etcd was restored continued from events of the former history, and kept objects that no longer exist',
    seed: 6987,
    replicas: 3,
    reporters: 1,
    tunnels: 3,
    faults: [
      { atMs: 7746, kind: 'replica-stop', pick: 15, variant: 66, durationMs: 54_657 },
      { atMs: 10_123, kind: 'tunnel-storm', pick: 27, variant: 22, durationMs: 1165 },
      { atMs: 15_214, kind: 'kubectl-holds-object', pick: 27, variant: 3, durationMs: 16_250 },
      { atMs: 27_169, kind: 'etcd-restored', pick: 50, variant: 13, durationMs: 32_699 },
      { atMs: 34_371, kind: 'tunnel-down', pick: 58, variant: 33, durationMs: 3158 },
    ],
  },
  {
    cause: 'slices that were deleted with the namespace were not created again',
    seed: 2111,
    replicas: 1,
    reporters: 3,
    tunnels: 5,
    representations: [{ atMs: 0, representation: 'slices' }],
    faults: [{ atMs: 108_617, kind: 'namespace-deleted', pick: 60, variant: 10, durationMs: 8100 }],
  },
  {
    cause:
      'a creation time in the future was written, because the wall clock of the replica was set forward between two responses',
    seed: 2672,
    replicas: 1,
    reporters: 1,
    tunnels: 1,
    faults: [
      { atMs: 24_500, kind: 'tunnel-up', pick: 0, variant: 1, durationMs: 0 },
      { atMs: 24_700, kind: 'replica-wall-jump', pick: 0, variant: 99, durationMs: 0 },
    ],
  },
];

describe('simulation of the whole operator in fake time', () => {
  it('converges after any faults and deletes no object of a reporter that is served', async function () {
    this.timeout(600_000);
    const { failures, seeds, requests } = await runSeeds(1, SEEDS, { maxFailures: 2 });
    expect(failures.map((failure) => formatFailure(failure)).join('\n\n')).to.equal('');
    expect(seeds).to.equal(SEEDS);
    expect(requests, 'requests, to show that something happened').to.be.greaterThan(20 * SEEDS);
  });

  for (const { cause, ...course } of REGRESSIONS) {
    it(`no longer: ${cause}`, async () => {
      expect((await runOnce(course)).violations).to.deep.equal([]);
    });
  }

  for (let variant = 0; variant < WEBHOOK_MUTATIONS; variant += 1) {
    it(`converges after a webhook has rewritten objects (${variant})`, async () => {
      const faults = [
        { atMs: 1000, kind: 'api-rewrites', pick: 0, variant, durationMs: 60_000 },
        { atMs: 9000, kind: 'tunnel-up', pick: 0, variant: 1, durationMs: 0 },
        { atMs: 15_000, kind: 'tunnel-retenant', pick: 1, variant: 2, durationMs: 1 },
        { atMs: 20_000, kind: 'kubectl-edits-object', pick: 1, variant, durationMs: 0 },
        { atMs: 30_000, kind: 'replica-crash', pick: 0, variant: 0, durationMs: 5000 },
      ] as const;
      const { violations, requests } = await runOnce({
        seed: 1,
        replicas: 2,
        reporters: 2,
        tunnels: 4,
        faults,
      });
      expect(violations).to.deep.equal([]);
      expect(requests, 'no loop').to.be.lessThan(1000);
    });
  }

  it('gives the same result for the same seed', async () => {
    const traceOf = async (): Promise<string[]> => {
      const lines: string[] = [];
      await runOnce(generateSchedule(7), { trace: (line) => lines.push(line) });
      return lines;
    };
    const first = await traceOf();
    expect(first.length).to.be.greaterThan(20);
    expect(await traceOf()).to.deep.equal(first);
  });
});
