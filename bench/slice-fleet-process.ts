/**
 * Reporters with up to 1,000,000 tunnels together, in a separate process. Only the serial numbers of the tunnels are in
 * memory; reports are generated when they are sent.
 */
import { setImmediate as nextTick, setTimeout as delay } from 'node:timers/promises';
import type { ReportedTunnel } from '../src/grpc/report-message.ts';
import { FLEET_DEFAULTS } from '../src/simulate/fleet.ts';
import { seededRandom } from '../src/simulate/random.ts';
import { initiator } from '../src/simulate/tunnel-registry.ts';
import { serveParent } from './child.ts';
import { openRawReporter, type RawReporter, type ReportAck } from './raw-reporter.ts';

/** Full pushes of all reporters. Times are machine times. */
export interface PushTimes {
  readonly firstSentMs: number;
  readonly lastAckedMs: number;
  readonly bytes: number;
}

/** A tunnel that the churn added, and when its report was sent. */
export type SentTunnel = readonly [name: string, sentMs: number];

export interface SliceFleetCalls {
  /** Opens a stream per reporter, and sends the full push of each. */
  start(request: {
    readonly address: string;
    readonly reporters: number;
    /** Number of tunnels of each reporter. */
    readonly tunnels: number;
  }): Promise<PushTimes>;
  /** Ends all streams, and sends the same tunnels on new streams. */
  reconnect(request: { readonly address: string }): Promise<PushTimes>;
  /**
   * Replaces tunnels at random: each reporter reports once per second, half of its changes are removals and half are
   * added tunnels. Resolves when everything is ACKed.
   */
  churn(request: { readonly changesPerSecond: number; readonly seconds: number }): Promise<{
    readonly added: readonly SentTunnel[];
    readonly changes: number;
  }>;
}

/** Eight digits, which occur in both names of a tunnel, so that 10,000 tunnels have a realistic size of 0.7 MB. */
const BASE_SERIAL = 10_000_000;
const REPORT_INTERVAL_MS = 1000;
const RANDOM_SEED = 1;
const MAX_ATTEMPTS = 20;
const RETRY_MS = 500;

interface SliceReporter {
  readonly id: string;
  readonly serials: number[];
  stream: RawReporter | undefined;
}

const reporters: SliceReporter[] = [];
const createdAtSeconds = Math.floor(Date.now() / 1000);
let nextSerial = BASE_SERIAL;

function reported(serial: number): ReportedTunnel {
  const identity = initiator(serial, FLEET_DEFAULTS);
  return { name: identity.nodeID, ...identity, createdAt: { seconds: createdAtSeconds, nanos: 123_456_000 } };
}

/** Opens a stream and sends the full push; repeated, as Envoy does, if the stream ends before the ACK. */
async function pushOne(address: string, reporter: SliceReporter): Promise<ReportAck> {
  reporter.stream?.close();
  for (let attempt = 1; ; attempt += 1) {
    try {
      reporter.stream = await openRawReporter(address, reporter.id);
      return await reporter.stream.send({ fullPush: true, added: reporter.serials.map(reported) });
    } catch (error) {
      if (attempt === MAX_ATTEMPTS) throw error;
      await delay(RETRY_MS);
    }
  }
}

/**
 * Sends the full pushes of all reporters, without waiting for the ACKs. Each push is on its way before the next one is
 * encoded, because a stream without a report times out.
 */
async function pushAll(address: string): Promise<PushTimes> {
  const acks: Promise<ReportAck>[] = [];
  for (const reporter of reporters) {
    acks.push(pushOne(address, reporter));
    await nextTick();
  }
  const answered = await Promise.all(acks);
  return {
    firstSentMs: Math.min(...answered.map(({ sentMs }) => sentMs)),
    lastAckedMs: Math.max(...answered.map(({ ackedMs }) => ackedMs)),
    bytes: answered.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}

const calls: SliceFleetCalls = {
  async start({ address, reporters: count, tunnels }) {
    for (let index = 0; index < count; index += 1) {
      const serials = Array.from({ length: tunnels }, (_, offset) => nextSerial + offset);
      nextSerial += tunnels;
      reporters.push({ id: `responder-${index}`, serials, stream: undefined });
    }
    return await pushAll(address);
  },
  reconnect: ({ address }) => pushAll(address),
  async churn({ changesPerSecond, seconds }) {
    const random = seededRandom(RANDOM_SEED);
    const added: SentTunnel[] = [];
    const acks: Promise<void>[] = [];
    const rounds = Math.round((seconds * 1000) / REPORT_INTERVAL_MS);
    const perRound = (changesPerSecond * REPORT_INTERVAL_MS) / 1000 / 2;
    let changes = 0;
    const startedMs = performance.now();
    for (let round = 0; round < rounds; round += 1) {
      for (const [index, reporter] of reporters.entries()) {
        const dueMs = startedMs + (round + index / reporters.length) * REPORT_INTERVAL_MS;
        await delay(Math.max(0, dueMs - performance.now()));
        const count =
          Math.floor(((index + 1) * perRound) / reporters.length) -
          Math.floor((index * perRound) / reporters.length);
        const removedNames: string[] = [];
        const arrivals: ReportedTunnel[] = [];
        for (let change = 0; change < count; change += 1) {
          const at = random.below(reporter.serials.length);
          removedNames.push(reported(reporter.serials[at] ?? 0).name);
          reporter.serials[at] = nextSerial;
          arrivals.push(reported(nextSerial));
          nextSerial += 1;
        }
        changes += 2 * count;
        const { stream } = reporter;
        if (stream === undefined) throw new Error(`${reporter.id} has no stream`);
        acks.push(
          stream.send({ added: arrivals, removedNames }).then(({ sentMs }) => {
            for (const { name } of arrivals) added.push([name, sentMs]);
          }),
        );
      }
    }
    await Promise.all(acks);
    return { added, changes };
  },
};

serveParent<SliceFleetCalls>(calls);
