/** One reporter that pushes 100,000 tunnels at once to a fresh operator, and what is looked at while and after it does. */
import { startChild, type Child } from './child.ts';
import { startOperator, type Operator } from './operator.ts';
import type { PusherCalls } from './pusher-process.ts';
import { openRawReporter, type Acked, type RawReporter } from './raw-reporter.ts';
import { untilRows } from './resident-stage.ts';
import type { Bench } from './scenario.ts';
import { openWorld, type Access, type World } from './world.ts';

/** Heartbeats before the push, so that neither side answers for the first time in it. */
const WARM_UP_PULSES = 50;
/** What the push leaves to do (keys queued, garbage) may hold up others after its ACK, too. */
const AFTER_ACK_MS = 1000;

export const LARGE_REPORTER = 'large';

export interface LargeStage {
  readonly world: World;
  readonly access: Access;
  readonly operator: Operator;
  readonly pusher: Child<PusherCalls>;
  /** The first push, done once whoever asks; with the longest that another stream waited for an ACK meanwhile. */
  pushed(bench: Bench): Promise<Pushed>;
  /** The first push, and all of its rows written. */
  written(bench: Bench): Promise<void>;
}

export interface Pushed {
  readonly acked: Acked;
  readonly worstAckMs: number;
}

export async function openLargeStage(bench: Bench, undo: AsyncDisposableStack): Promise<LargeStage> {
  bench.progress('starting');
  const world = undo.use(await openWorld({ audit: false }));
  const access = await world.access('mirror');
  const pusher = undo.use(startChild<PusherCalls>(new URL('./pusher-process.ts', import.meta.url)));
  const operator = undo.use(await startOperator({ access }));
  await operator.ready();
  const pulse = await openRawReporter(operator.grpcAddress, 'pulse');
  undo.defer(() => pulse.close());
  let first: Promise<Pushed> | undefined;
  let written: Promise<void> | undefined;
  const tunnels = bench.sizes.large;
  const stage: LargeStage = {
    world,
    access,
    operator,
    pusher,
    pushed({ progress }) {
      progress(`a full push of ${tunnels} tunnels`);
      first ??= pushBesides(pulse, () =>
        pusher.ask('push', { address: operator.grpcAddress, id: LARGE_REPORTER, tunnels }),
      );
      return first;
    },
    async written(now) {
      await stage.pushed(now);
      written ??= untilRows(world, access.namespace, tunnels, now.progress);
      await written;
    },
  };
  return stage;
}

/** Pushes while another stream sends one heartbeat after the other, each as soon as the one before is ACKed. */
async function pushBesides(pulse: RawReporter, push: () => Promise<Acked>): Promise<Pushed> {
  await pulse.send({ fullPush: true });
  for (let i = 0; i < WARM_UP_PULSES; i += 1) await pulse.send({});
  const beats: Acked[] = [];
  let untilMs = Number.POSITIVE_INFINITY;
  async function beat(): Promise<void> {
    for (let last = await pulse.send({}); last.sentMs < untilMs; last = await pulse.send({}))
      beats.push(last);
  }
  async function pushed(): Promise<Acked> {
    const acked = await push();
    untilMs = acked.ackedMs + AFTER_ACK_MS;
    return acked;
  }
  const [acked] = await Promise.all([pushed(), beat()]);
  const meanwhile = beats.filter(({ ackedMs }) => ackedMs > acked.sentMs);
  return { acked, worstAckMs: Math.max(...meanwhile.map(({ sentMs, ackedMs }) => ackedMs - sentMs)) };
}
