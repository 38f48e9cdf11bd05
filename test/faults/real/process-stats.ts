/** What one operator holds, looked at from outside: by the kernel, by its own /metrics, and by V8's inspector. */
import { readdirSync, readlinkSync } from 'node:fs';
import { openInspector, type Inspector } from '../../../bench/inspector.ts';
import { memoryMiB } from '../../../bench/process-usage.ts';
import type { OperatorProcess } from '../../support/operator-process.ts';

/** Have to stand on Node's command line for `openProbe`. */
export const PROBE_NODE_FLAGS = ['--inspect=127.0.0.1:0'];
const MIB = 1024 * 1024;

/** One look at an operator. */
export interface ProcessStats {
  /** In use after a collection that was forced, MiB. */
  readonly heapMiB: number;
  readonly residentMiB: number;
  /** Open files, sockets among them. */
  readonly descriptors: number;
  readonly sockets: number;
  /** Timers that keep the process alive. */
  readonly timers: number;
  /** The longest and the usual delay of the event loop since the last look, ms. */
  readonly loopMaxMs: number;
  readonly loopP99Ms: number;
  /** Reporters with an open stream here. */
  readonly streams: number;
  /** Rows in its cache. */
  readonly objects: number;
}

/** An open way to look. */
export interface Probe {
  sample(): Promise<ProcessStats>;
  close(): void;
}

/** @param operator started with `PROBE_NODE_FLAGS` */
export async function openProbe(operator: OperatorProcess): Promise<Probe> {
  const url = /ws:\/\/\S+/.exec(operator.stderr)?.[0];
  if (url === undefined) throw new Error(`no inspector: ${operator.stderr}`);
  const inspector = await openInspector(url);
  return {
    async sample() {
      // Scraped first: a collection that is forced holds up the event loop, and is not the operator's doing.
      const metrics = await (await fetch(`http://${operator.httpAddress}/metrics`)).text();
      const metric = (series: string): number =>
        Number(new RegExp(`^${series} (\\S+)$`, 'm').exec(metrics)?.[1] ?? Number.NaN);
      const timers = await timerCount(inspector);
      // What the first collection finalizes the second one frees.
      for (let i = 0; i < 2; i += 1) await inspector.post('HeapProfiler.collectGarbage');
      const { usedSize } = (await inspector.post('Runtime.getHeapUsage')) as { usedSize: number };
      // The collection's own delay is not to be seen at the next look.
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
      // Closed in between.
    }
  }
  return open;
}
