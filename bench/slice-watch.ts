/** A watch on the slices of a namespace: how many tunnels are visible, and since when each tracked one is. */
import { setTimeout as delay } from 'node:timers/promises';
import type { SliceObject } from '../src/core/slice-object.ts';
import type { BenchCluster } from './cluster.ts';
import { machineMs } from './machine.ts';
import { openObjectWatch } from './object-watch.ts';

export interface SliceWatch extends AsyncDisposable {
  /** Number of entries of all slices. */
  readonly tunnels: number;
  readonly slices: number;
  /** Number of events since the watch was opened: one per write. */
  readonly events: number;
  /** From now on, records when each tunnel that was not visible before appears. Parsing costs CPU of this process. */
  trackNewTunnels(): ReadonlyMap<string, number>;
  /** Resolves with the machine time of the event with which exactly `count` tunnels were visible. */
  waitForTunnels(count: number, limitMs: number, onProgress: (tunnels: number) => void): Promise<number>;
}

const POLL_INTERVAL_MS = 250;
/** Only in `metadata`, where the namespace follows the name. */
const NAME = /"name":"([^"]+)","namespace":/;
const TUNNEL_COUNT = /"tunnelCount":(\d+)/;

/** Opens the watch; the namespace must not contain slices yet. */
export async function openSliceWatch(cluster: BenchCluster, namespace: string): Promise<SliceWatch> {
  const counts = new Map<string, number>();
  let tunnels = 0;
  let events = 0;
  let lastEventMs = 0;
  let firstSeen: Map<string, number> | undefined;
  const watch = await openObjectWatch(cluster, namespace, 'reversetunnelslices');

  watch.onEvent = (type, line, seenMs) => {
    const name = NAME.exec(line)?.[1] ?? '';
    const count = type === 'DELETED' ? 0 : Number(TUNNEL_COUNT.exec(line)?.[1]);
    tunnels += count - (counts.get(name) ?? 0);
    if (type === 'DELETED') counts.delete(name);
    else counts.set(name, count);
    events += 1;
    lastEventMs = seenMs;
    if (firstSeen === undefined || type === 'DELETED') return;
    const { object } = JSON.parse(line) as { object: SliceObject };
    for (const entry of object.spec.tunnels ?? [])
      if (!firstSeen.has(entry.name)) firstSeen.set(entry.name, seenMs);
  };

  return {
    get tunnels() {
      return tunnels;
    },
    get slices() {
      return counts.size;
    },
    get events() {
      return events;
    },
    trackNewTunnels: () => (firstSeen = new Map()),
    async waitForTunnels(count, limitMs, onProgress) {
      const untilMs = machineMs() + limitMs;
      for (;;) {
        if (tunnels === count) return lastEventMs;
        if (machineMs() > untilMs)
          throw new Error(`${tunnels} of ${count} tunnels visible after ${limitMs / 1000} s`);
        onProgress(tunnels);
        await delay(POLL_INTERVAL_MS);
      }
    },
    [Symbol.asyncDispose]: () => watch[Symbol.asyncDispose](),
  };
}
