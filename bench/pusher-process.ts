/** Raw reporters in a process of their own: what they send is big, and encoding it must not delay what is measured. */
import { setTimeout as delay } from 'node:timers/promises';
import { serveParent } from './child.ts';
import { openRawReporter, reportedTunnels, type ReportAck, type RawReporter } from './raw-reporter.ts';

export interface PusherCalls {
  /** Opens a reporter's stream and pushes so many tunnels whole; on a stream that is open, the same ones again. */
  push(what: { readonly address: string; readonly id: string; readonly tunnels: number }): Promise<ReportAck>;
  /**
   * Sends `count` deltas with one tunnel each, the next one `gapMs` after the ACK of the one before: tunnels of serial
   * numbers from `from` are added, or removed, or (`same`) held ones are reported again as they are.
   */
  deltas(what: {
    readonly address: string;
    readonly id: string;
    readonly kind: 'add' | 'remove' | 'same';
    readonly from: number;
    readonly count: number;
    readonly gapMs: number;
  }): Promise<void>;
}

/** Eight digits in each of the two names of a tunnel: 100,000 of them make 6.8 MB, as Envoy's node ids may well. */
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
    if (known === undefined) throw new Error(`${where.id} has no stream: push first`);
    const { reporter, tunnels } = known;
    const chosen = kind === 'same' ? tunnels.slice(0, count) : reportedTunnels(from, count);
    for (const tunnel of chosen) {
      await reporter.send(kind === 'remove' ? { removedNames: [tunnel.name] } : { added: [tunnel] });
      if (gapMs > 0) await delay(gapMs);
    }
  },
};

serveParent<PusherCalls>(calls);
