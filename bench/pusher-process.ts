/** Raw reporters in a separate process, so that encoding large reports does not delay measurements. */
import { setTimeout as delay } from 'node:timers/promises';
import { serveParent } from './child.ts';
import { openRawReporter, reportedTunnels, type ReportAck, type RawReporter } from './raw-reporter.ts';

export interface PusherCalls {
  /** Opens a stream if the reporter has none, and sends a full push of `tunnels` tunnels, which are always the same. */
  push(request: {
    readonly address: string;
    readonly id: string;
    readonly tunnels: number;
  }): Promise<ReportAck>;
  /**
   * Sends `count` deltas with one tunnel each, waiting `gapMs` after each ACK. They add or remove the tunnels with serial
   * numbers from `from`, or (`same`) report existing tunnels without a change.
   */
  deltas(request: {
    readonly address: string;
    readonly id: string;
    readonly kind: 'add' | 'remove' | 'same';
    readonly from: number;
    readonly count: number;
    readonly gapMs: number;
  }): Promise<void>;
}

/** Eight digits, which occur in both names of a tunnel, so that 100,000 tunnels have a realistic size of 6.8 MB. */
const BASE_SERIAL = 10_000_000;

interface OpenReporter {
  readonly reporter: RawReporter;
  readonly tunnels: ReturnType<typeof reportedTunnels>;
}

const open = new Map<string, OpenReporter>();

function keyOf({ address, id }: { readonly address: string; readonly id: string }): string {
  return `${address} ${id}`;
}

const calls: PusherCalls = {
  async push({ address, id, tunnels: count }) {
    const key = keyOf({ address, id });
    const known = open.get(key);
    const { reporter, tunnels } = known ?? {
      reporter: await openRawReporter(address, id),
      tunnels: reportedTunnels(BASE_SERIAL, count),
    };
    open.set(key, { reporter, tunnels });
    return await reporter.send({ fullPush: true, added: tunnels });
  },
  async deltas({ kind, from, count, gapMs, ...where }) {
    const known = open.get(keyOf(where));
    if (known === undefined) throw new Error(`${where.id} has no stream; push first`);
    const { reporter, tunnels } = known;
    const chosen = kind === 'same' ? tunnels.slice(0, count) : reportedTunnels(from, count);
    for (const tunnel of chosen) {
      await reporter.send(kind === 'remove' ? { removedNames: [tunnel.name] } : { added: [tunnel] });
      if (gapMs > 0) await delay(gapMs);
    }
  },
};

serveParent<PusherCalls>(calls);
