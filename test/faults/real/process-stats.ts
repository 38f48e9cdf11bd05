/** Resource usage of an operator, as seen by the kernel, by its own /metrics, and by V8's inspector. */
import { readdirSync, readlinkSync } from 'node:fs';
import { openInspector, type Inspector } from '../../../bench/inspector.ts';
import { memoryMiB } from '../../../bench/process-usage.ts';
import type { OperatorProcess } from '../../support/operator-process.ts';

export const PROBE_NODE_FLAGS = ['--inspect=127.0.0.1:0'];
const MIB = 1024 * 1024;

export interface ProcessStats {
  /** Used heap after a forced garbage collection, MiB. */
  readonly heapMiB: number;
  readonly residentMiB: number;
  /** Open file descriptors, including sockets. */
  readonly descriptors: number;
  readonly sockets: number;
  /** Timers that keep the process alive. */
  readonly timers: number;
  /** Maximum and 99th percentile of the event loop delay since the last sample, ms. */
  readonly loopMaxMs: number;
  readonly loopP99Ms: number;
  /** Reporters with an open stream to this replica. */
  readonly streams: number;
  /** Objects in its cache. */
  readonly objects: number;
}

export interface Probe {
  sample(): Promise<ProcessStats>;
  close(): void;
}

/** Connects to the inspector. @param operator must have been started with `PROBE_NODE_FLAGS` */
export async function openProbe(operator: OperatorProcess): Promise<Probe> {
  const url = /ws:\/\/\S+/.exec(operator.stderr)?.[0];
  if (url === undefined) throw new Error(`no inspector: ${operator.stderr}`);
  const inspector = await openInspector(url);
  return {
    async sample() {
      // Scraped first, because the forced garbage collection delays the event loop.
      const metrics = await (await fetch(`http://${operator.httpAddress}/metrics`)).text();
      const metric = (series: string): number =>
        Number(new RegExp(`^${series} (\\S+)$`, 'm').exec(metrics)?.[1] ?? Number.NaN);
      const timers = await timerCount(inspector);
      // The second collection frees what the first one has finalized.
      for (let i = 0; i < 2; i += 1) await inspector.post('HeapProfiler.collectGarbage');
      const { usedSize } = (await inspector.post('Runtime.getHeapUsage')) as { usedSize: number };
      // Resets the event loop delay, so that the next sample does not include the collection.
      await (await fetch(`http://${operator.httpAddress}/metrics`)).text();
      const open = descriptorsOf(operator.pid);
      return {
        heapMiB: usedSize / MIB,
        residentMiB: memoryMiB(operator.pid).resident,
        descriptors: open.length,
        sockets: open.filter((target) => target.startsWith('socket:')).length,
        timers,
        loopMaxMs: metric('nodejs_eventloop_lag_max_seconds') * 1000,
        loopP99Ms: metric('nodejs_eventloop_lag_p99_seconds') * 1000,
        streams: metric('reverse_tunnel_reporters_connected'),
        objects: metric('reverse_tunnel_objects'),
      };
    },
    close: () => inspector.close(),
  };
}

async function timerCount(inspector: Inspector): Promise<number> {
  const expression = "process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length";
  const answer = await inspector.post('Runtime.evaluate', { expression, returnByValue: true });
  return (answer as { result: { value: number } }).result.value;
}

function descriptorsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  const open: string[] = [];
  for (const name of readdirSync(folder)) {
    try {
      open.push(readlinkSync(`${folder}/${name}`));
    } catch {
      // Closed meanwhile.
    }
  }
  return open;
}
