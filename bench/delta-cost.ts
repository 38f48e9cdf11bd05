/** The CPU cost of one delta for a reporter with 100,000 tunnels, compared to one with 1,000. */
import { setTimeout as delay } from 'node:timers/promises';
import { poll } from '../test/support/operator-process.ts';
import type { Metric } from './metric.ts';
import { LARGE_REPORTER, type LargePushFixture } from './large-push.ts';
import { startOperator, type Operator } from './operator.ts';
import { cpuMs } from './process-usage.ts';
import { waitForObjectCount } from './resident.ts';
import type { BenchContext, Measurement } from './scenario.ts';

/** Blocks of each kind: the two operators alternate, so that a slow machine affects both. */
const ROUNDS = 4;
/** Blocks of unchanged deltas. The large operator has already executed as much code during its push. */
const WARM_UP_BLOCK_COUNT = 20;
const TIMEOUT_MS = 60_000;
/** Between deltas that cause a write: a rate that the API server sustains without a queue. */
const WRITE_INTERVAL_MS = 4;
/** Outside the range of the serials of the push. */
const BASE_SERIAL = 30_000_000;

interface Side {
  readonly operator: Operator;
  readonly id: string;
  /** CPU time of the operator during deltas of each kind. */
  unchangedMs: number;
  writtenMs: number;
}

/**
 * Measures the CPU of the whole operator process, from reading the bytes to the watch event of the object: applying the
 * report alone would omit the queue, the cache, and garbage collection of all live objects. There are two operator
 * processes because garbage collection of a shared heap would affect both sides.
 */
export const deltaCost: Measurement<LargePushFixture> = {
  name: 'delta',
  description: 'CPU per delta of a reporter with 100,000 tunnels vs. one with 1,000',
  async measure(fixture, context): Promise<Metric[]> {
    await fixture.waitUntilWritten(context);
    await using cleanup = new AsyncDisposableStack();
    const { scale } = context;
    const { cluster, pusher } = fixture;
    const access = await cluster.access('small');
    const smallOperator = cleanup.use(await startOperator({ access }));
    await smallOperator.ready();
    await pusher.ask('push', {
      address: smallOperator.grpcAddress,
      id: 'small',
      tunnels: scale.smallPushTunnels,
    });
    await waitForObjectCount(cluster, access.namespace, scale.smallPushTunnels, context.progress);

    const small: Side = { operator: smallOperator, id: 'small', unchangedMs: 0, writtenMs: 0 };
    const large: Side = { operator: fixture.operator, id: LARGE_REPORTER, unchangedMs: 0, writtenMs: 0 };
    // Not measured: V8 compiled the code of the large operator while it wrote its objects.
    context.progress('warming up');
    for (let done = 0; done < WARM_UP_BLOCK_COUNT; done += 1)
      await runUnchangedBlock(fixture, small, context);
    for (const side of [small, large]) await runBlock(fixture, side, context, 0);
    small.unchangedMs = small.writtenMs = large.unchangedMs = large.writtenMs = 0;
    for (let round = 1; round <= ROUNDS; round += 1) {
      context.progress(`deltas, round ${round} of ${ROUNDS}`);
      for (const side of [small, large]) await runBlock(fixture, side, context, round);
    }
    const unchanged = ROUNDS * scale.smallPushTunnels;
    const written = ROUNDS * 2 * scale.deltasPerBlock;
    return [
      ...metrics(
        context,
        'a delta that changes nothing',
        large.unchangedMs / unchanged,
        small.unchangedMs / unchanged,
      ),
      ...metrics(
        context,
        'a delta that writes an object',
        large.writtenMs / written,
        small.writtenMs / written,
      ),
    ];
  },
};

async function runUnchangedBlock(
  { pusher }: LargePushFixture,
  side: Side,
  { scale }: BenchContext,
): Promise<void> {
  const { operator, id } = side;
  const deltas = {
    address: operator.grpcAddress,
    id,
    kind: 'same',
    from: 0,
    count: scale.smallPushTunnels,
    gapMs: 0,
  } as const;
  side.unchangedMs += await cpuOf(operator, () => pusher.ask('deltas', deltas));
}

async function runBlock(
  fixture: LargePushFixture,
  side: Side,
  context: BenchContext,
  round: number,
): Promise<void> {
  await runUnchangedBlock(fixture, side, context);
  const { pusher } = fixture;
  const { scale } = context;
  const { operator, id } = side;
  const deltas = {
    address: operator.grpcAddress,
    id,
    from: BASE_SERIAL + round * scale.deltasPerBlock,
    count: scale.deltasPerBlock,
    gapMs: WRITE_INTERVAL_MS,
  };
  side.writtenMs += await cpuOf(operator, () => pusher.ask('deltas', { ...deltas, kind: 'add' }));
  side.writtenMs += await cpuOf(operator, () => pusher.ask('deltas', { ...deltas, kind: 'remove' }));
}

/** Returns the CPU time of the operator, in ms, until its queue is empty. */
async function cpuOf(operator: Operator, act: () => Promise<void>): Promise<number> {
  const beforeMs = cpuMs(operator.pid);
  await act();
  await delay(200);
  await poll(TIMEOUT_MS, async () =>
    (await operator.metric('workqueue_depth{name="tunnels"}')) === 0 ? true : undefined,
  );
  return cpuMs(operator.pid) - beforeMs;
}

function metrics({ scale }: BenchContext, what: string, largeMs: number, smallMs: number): Metric[] {
  return [
    {
      name: `${what}: CPU with ${scale.largePushTunnels} tunnels vs. ${scale.smallPushTunnels}`,
      unit: '',
      value: largeMs / smallMs,
      target: { atMost: 1.5 },
    },
    { name: `${what}: CPU with ${scale.largePushTunnels} tunnels`, unit: 'ms', value: largeMs },
    { name: `${what}: CPU with ${scale.smallPushTunnels} tunnels`, unit: 'ms', value: smallMs },
  ];
}
