/** What one delta costs an operator that holds 100,000 tunnels, over one that holds 1,000. */
import { setTimeout as delay } from 'node:timers/promises';
import { poll } from '../test/support/operator-process.ts';
import type { Figure } from './figure.ts';
import { LARGE_REPORTER, type LargeStage } from './large-stage.ts';
import { startOperator, type Operator } from './operator.ts';
import { cpuMs } from './process-usage.ts';
import { untilRows } from './resident-stage.ts';
import type { Bench, Measurement } from './scenario.ts';

/** Blocks of each kind: the two operators take turns, so that what slows the machine down slows both. */
const ROUNDS = 4;
/** Of deltas that change nothing. The large operator has run as much code before. */
const WARM_UP_BLOCKS = 20;
const LIMIT_MS = 60_000;
/** Between deltas that cost a write: as many a second as the API server takes without a queue. */
const WRITE_GAP_MS = 4;
/** Serials far from those of the push. */
const FIRST_SERIAL = 30_000_000;

interface Side {
  readonly operator: Operator;
  readonly id: string;
  /** Whole CPU of the operator while deltas of either kind came, ms. */
  unchangedMs: number;
  writtenMs: number;
}

/**
 * The whole operator's CPU, from bytes read to the row seen on its own watch: the fold alone would leave out the queue,
 * the cache, and garbage collection over all that is held. Two processes, since in one heap both would pay for it.
 */
export const deltaCost: Measurement<LargeStage> = {
  name: 'delta',
  about: 'CPU of one delta with 100,000 tunnels held over one with 1,000',
  async measure(stage, bench): Promise<Figure[]> {
    await stage.written(bench);
    await using undo = new AsyncDisposableStack();
    const { sizes } = bench;
    const { world, pusher } = stage;
    const access = await world.access('small');
    const smallOperator = undo.use(await startOperator({ access }));
    await smallOperator.ready();
    await pusher.ask('push', { address: smallOperator.grpcAddress, id: 'small', tunnels: sizes.small });
    await untilRows(world, access.namespace, sizes.small, bench.progress);

    const small: Side = { operator: smallOperator, id: 'small', unchangedMs: 0, writtenMs: 0 };
    const large: Side = { operator: stage.operator, id: LARGE_REPORTER, unchangedMs: 0, writtenMs: 0 };
    // Unmeasured: the large operator's code has been compiled while it wrote its rows, the small one's has not.
    bench.progress('warming up');
    for (let done = 0; done < WARM_UP_BLOCKS; done += 1) await unchangedBlock(stage, small, bench);
    for (const side of [small, large]) await block(stage, side, bench, 0);
    small.unchangedMs = small.writtenMs = large.unchangedMs = large.writtenMs = 0;
    for (let round = 1; round <= ROUNDS; round += 1) {
      bench.progress(`deltas, round ${round} of ${ROUNDS}`);
      for (const side of [small, large]) await block(stage, side, bench, round);
    }
    const unchanged = ROUNDS * sizes.small;
    const written = ROUNDS * 2 * sizes.deltas;
    return [
      ...figures(
        bench,
        'a delta that changes nothing',
        large.unchangedMs / unchanged,
        small.unchangedMs / unchanged,
      ),
      ...figures(bench, 'a delta that writes a row', large.writtenMs / written, small.writtenMs / written),
    ];
  },
};

async function unchangedBlock({ pusher }: LargeStage, side: Side, { sizes }: Bench): Promise<void> {
  const { operator, id } = side;
  const same = {
    address: operator.grpcAddress,
    id,
    kind: 'same',
    from: 0,
    count: sizes.small,
    gapMs: 0,
  } as const;
  side.unchangedMs += await cpuOf(operator, () => pusher.ask('deltas', same));
}

async function block(stage: LargeStage, side: Side, bench: Bench, round: number): Promise<void> {
  await unchangedBlock(stage, side, bench);
  const { pusher } = stage;
  const { sizes } = bench;
  const { operator, id } = side;
  const some = {
    address: operator.grpcAddress,
    id,
    from: FIRST_SERIAL + round * sizes.deltas,
    count: sizes.deltas,
    gapMs: WRITE_GAP_MS,
  };
  side.writtenMs += await cpuOf(operator, () => pusher.ask('deltas', { ...some, kind: 'add' }));
  side.writtenMs += await cpuOf(operator, () => pusher.ask('deltas', { ...some, kind: 'remove' }));
}

/** CPU of the operator until it has nothing to do any more, ms. */
async function cpuOf(operator: Operator, act: () => Promise<void>): Promise<number> {
  const beforeMs = cpuMs(operator.pid);
  await act();
  await delay(200);
  await poll(LIMIT_MS, async () => ((await operator.metric('workqueue_depth')) === 0 ? true : undefined));
  return cpuMs(operator.pid) - beforeMs;
}

function figures({ sizes }: Bench, what: string, largeMs: number, smallMs: number): Figure[] {
  return [
    {
      name: `${what}: CPU with ${sizes.large} tunnels over ${sizes.small}`,
      unit: '',
      value: largeMs / smallMs,
      target: { atMost: 1.5 },
    },
    { name: `${what}: CPU with ${sizes.large} tunnels`, unit: 'ms', value: largeMs },
    { name: `${what}: CPU with ${sizes.small} tunnels`, unit: 'ms', value: smallMs },
  ];
}
