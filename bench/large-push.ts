/** Measurements with one reporter that sends a full push of 100,000 tunnels to a new operator. */
import { startChild, type Child } from './child.ts';
import { startOperator, type Operator } from './operator.ts';
import type { PusherCalls } from './pusher-process.ts';
import { openRawReporter, type ReportAck, type RawReporter } from './raw-reporter.ts';
import { waitForObjectCount, measureMemory } from './resident.ts';
import type { BenchContext, Measurement } from './scenario.ts';
import { openBenchCluster, type Access, type BenchCluster } from './cluster.ts';
import type { Metric } from './metric.ts';

/** Heartbeats before the push, so that the code of both sides has been executed. */
const WARM_UP_HEARTBEATS = 50;
/** Measured after the ACK as well, because queued keys and garbage may delay other streams after it. */
const AFTER_ACK_MS = 1000;

export const LARGE_REPORTER = 'large';

export interface LargePushFixture {
  readonly cluster: BenchCluster;
  readonly access: Access;
  readonly operator: Operator;
  readonly pusher: Child<PusherCalls>;
  /** Sends the first push, once for all measurements, and measures the ACK latency of another stream meanwhile. */
  pushOnce(context: BenchContext): Promise<PushResult>;
  /** Sends the first push, and waits until all of its objects have been written. */
  waitUntilWritten(context: BenchContext): Promise<void>;
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
    cluster,
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

/** Pushes while another stream sends each heartbeat as soon as the previous one is ACKed. */
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
  const concurrent = heartbeats.filter(({ ackedMs }) => ackedMs > acked.sentMs);
  return {
    ack: acked,
    maxOtherAckMs: Math.max(...concurrent.map(({ sentMs, ackedMs }) => ackedMs - sentMs)),
  };
}

export const largePush: Measurement<LargePushFixture> = {
  name: 'push',
  description: 'one full push of 100,000 tunnels: time to its ACK, and maximum ACK latency of another stream',
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
        name: `${name}: maximum ACK latency of another stream`,
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
  description: 'resident memory with 100,000 objects of one full push, and after the same push again',
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
