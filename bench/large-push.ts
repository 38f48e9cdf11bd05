import { startChild, type Child } from './child.ts';
import { startOperator, type Operator } from './operator.ts';
import type { PusherCalls } from './pusher-process.ts';
import { openRawReporter, type ReportAck, type RawReporter } from './raw-reporter.ts';
import { waitForObjectCount, measureMemory } from './resident.ts';
import type { BenchContext, Measurement } from './scenario.ts';
import { openBenchCluster, type Access, type BenchCluster } from './cluster.ts';
import type { Metric } from './metric.ts';

/** One reporter that pushes 100,000 tunnels at once to a fresh operator, and what is looked at while and after it does. */

/** Heartbeats before the push, so that neither side answers for the first time in it. */
const WARM_UP_HEARTBEATS = 50;
/** What the push leaves to do (keys queued, garbage) may hold up others after its ACK, too. */
const AFTER_ACK_MS = 1000;

export const LARGE_REPORTER = 'large';

export interface LargePushFixture {
  readonly world: BenchCluster;
  readonly access: Access;
  readonly operator: Operator;
  readonly pusher: Child<PusherCalls>;
  /** The first push, done once whoever asks; with the longest that another stream waited for an ACK meanwhile. */
  pushOnce(bench: BenchContext): Promise<PushResult>;
  /** The first push, and all of its rows written. */
  waitUntilWritten(bench: BenchContext): Promise<void>;
}

export interface PushResult {
  readonly ack: ReportAck;
  readonly maxOtherAckMs: number;
}

export async function openLargePushFixture(
  context: BenchContext,
  cleanup: AsyncDisposableStack,
): Promise<LargePushFixture> {
  context.progress('starting');
  const cluster = cleanup.use(await openBenchCluster({ audit: false }));
  const access = await cluster.access('mirror');
  const pusher = cleanup.use(startChild<PusherCalls>(new URL('./pusher-process.ts', import.meta.url)));
  const operator = cleanup.use(await startOperator({ access }));
  await operator.ready();
  const heartbeatReporter = await openRawReporter(operator.grpcAddress, 'pulse');
  cleanup.defer(() => heartbeatReporter.close());
  let first: Promise<PushResult> | undefined;
  let written: Promise<void> | undefined;
  const tunnels = context.scale.largePushTunnels;
  const fixture: LargePushFixture = {
    world: cluster,
    access,
    operator,
    pusher,
    pushOnce({ progress }) {
      progress(`a full push of ${tunnels} tunnels`);
      first ??= pushWithHeartbeats(heartbeatReporter, () =>
        pusher.ask('push', { address: operator.grpcAddress, id: LARGE_REPORTER, tunnels }),
      );
      return first;
    },
    async waitUntilWritten(current) {
      await fixture.pushOnce(current);
      written ??= waitForObjectCount(cluster, access.namespace, tunnels, current.progress);
      await written;
    },
  };
  return fixture;
}

/** Pushes while another stream sends one heartbeat after the other, each as soon as the one before is ACKed. */
async function pushWithHeartbeats(
  heartbeatReporter: RawReporter,
  push: () => Promise<ReportAck>,
): Promise<PushResult> {
  await heartbeatReporter.send({ fullPush: true });
  for (let i = 0; i < WARM_UP_HEARTBEATS; i += 1) await heartbeatReporter.send({});
  const heartbeats: ReportAck[] = [];
  let untilMs = Number.POSITIVE_INFINITY;
  async function sendHeartbeats(): Promise<void> {
    for (
      let last = await heartbeatReporter.send({});
      last.sentMs < untilMs;
      last = await heartbeatReporter.send({})
    )
      heartbeats.push(last);
  }
  async function pushAndExtend(): Promise<ReportAck> {
    const acked = await push();
    untilMs = acked.ackedMs + AFTER_ACK_MS;
    return acked;
  }
  const [acked] = await Promise.all([pushAndExtend(), sendHeartbeats()]);
  const meanwhile = heartbeats.filter(({ ackedMs }) => ackedMs > acked.sentMs);
  return { ack: acked, maxOtherAckMs: Math.max(...meanwhile.map(({ sentMs, ackedMs }) => ackedMs - sentMs)) };
}

/** A full push of 100,000 tunnels: how long until it is ACKed, how long others wait, and what it leaves in memory. */

export const largePush: Measurement<LargePushFixture> = {
  name: 'push',
  description: "one full push of 100,000 tunnels ACKed, and another stream's worst ACK meanwhile",
  async measure(fixture, context): Promise<Metric[]> {
    const { ack, maxOtherAckMs } = await fixture.pushOnce(context);
    const name = `a full push of ${context.scale.largePushTunnels} tunnels`;
    return [
      {
        name: `${name}: ACKed`,
        unit: 's',
        value: (ack.ackedMs - ack.sentMs) / 1000,
        target: { atMost: 0.5 },
      },
      {
        name: `${name}: another stream's worst ACK`,
        unit: 'ms',
        value: maxOtherAckMs,
        target: { atMost: 100 },
      },
      { name: `${name}: size`, unit: 'MB', value: ack.bytes / 1e6 },
    ];
  },
};

export const largeMemory: Measurement<LargePushFixture> = {
  name: 'memory-large',
  description: 'resident memory with 100,000 rows of one full push, and after the same push came again',
  async measure(fixture, context): Promise<Metric[]> {
    const { largePushTunnels } = context.scale;
    await fixture.waitUntilWritten(context);
    const metrics = await measureMemory(fixture.operator, largePushTunnels, context, { atMost: 280 });
    context.progress('the same full push again');
    const { sentMs, ackedMs } = await fixture.pusher.ask('push', {
      address: fixture.operator.grpcAddress,
      id: LARGE_REPORTER,
      tunnels: largePushTunnels,
    });
    metrics.push({
      name: `an identical full push of ${largePushTunnels} tunnels: ACKed`,
      unit: 's',
      value: (ackedMs - sentMs) / 1000,
    });
    metrics.push(
      ...(await measureMemory(fixture.operator, largePushTunnels, context, undefined, ', pushed twice')),
    );
    return metrics;
  },
};
