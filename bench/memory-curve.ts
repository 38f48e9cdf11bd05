/** The memory of the operator over time, with 10,000 objects that change permanently. */
import { setTimeout as delay } from 'node:timers/promises';
import { estimateGrowth } from '../test/faults/real/growth.ts';
import { startChild } from './child.ts';
import { openBenchCluster } from './cluster.ts';
import type { FleetCalls } from './fleet-process.ts';
import { lineChart } from './line-chart.ts';
import { startOperator } from './operator.ts';
import { anonymousMiB, memoryMiB } from './process-usage.ts';
import type { BenchContext } from './scenario.ts';
import { waitForObjectCount } from './resident.ts';

const REPORTERS = 100;
/** The rate of replaced tunnels, and that of reconnected tunnels, for the whole fleet. */
const CHANGES_PER_SECOND = 5;
const SAMPLE_INTERVAL_MS = 5000;
/** Caches fill and code is compiled until then, so the growth is that of the rest. */
const WARM_UP_SHARE = 0.25;
const MINUTE_MS = 60_000;

/** One measurement of the curve. */
export interface MemorySample {
  readonly minutes: number;
  /** VmRSS, in MiB: includes the program files of Node, which processes share. */
  readonly residentMiB: number;
  /** In MiB; a pod is charged for this, and for the files that no other pod has read. */
  readonly anonymousMiB: number;
  /** In MiB: the part of the anonymous memory in which native code, such as TLS, allocates with glibc. */
  readonly glibcMiB: number;
}

type Part = 'residentMiB' | 'anonymousMiB' | 'glibcMiB';

export interface MemoryCurve {
  readonly samples: readonly MemorySample[];
  /** MiB per hour after the warm-up, with its standard error. */
  readonly growth: Readonly<Record<Part, { perHour: number; error: number }>>;
  readonly svg: string;
}

/**
 * Creates 10,000 objects of 100 reporters (a tenth with `--quick`), replaces 5 tunnels and reconnects 5 tunnels per
 * second for the given time, and samples the memory every 5 s.
 */
export async function measureMemoryCurve(
  minutes: number,
  { scale, progress }: BenchContext,
): Promise<MemoryCurve> {
  await using cleanup = new AsyncDisposableStack();
  progress('starting');
  const cluster = cleanup.use(await openBenchCluster({ audit: false }));
  const access = await cluster.access('mirror');
  const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  const operator = cleanup.use(await startOperator({ access }));
  await operator.ready();
  const objects = scale.initialSyncTunnels;
  const options = { reporters: REPORTERS, tunnels: objects / REPORTERS, rampUpMs: SAMPLE_INTERVAL_MS };
  await fleet.ask('start', { address: operator.grpcAddress, ...options });
  await waitForObjectCount(cluster, access.namespace, objects, progress);

  const samples: MemorySample[] = [];
  const startMs = performance.now();
  for (let nextMs = startMs; nextMs <= startMs + minutes * MINUTE_MS; nextMs += SAMPLE_INTERVAL_MS) {
    await delay(Math.max(0, nextMs - performance.now()));
    const { pid } = operator;
    const { all, brk } = anonymousMiB(pid);
    samples.push({
      minutes: (performance.now() - startMs) / MINUTE_MS,
      residentMiB: memoryMiB(pid).resident,
      anonymousMiB: all,
      glibcMiB: brk,
    });
    progress(`${samples.at(-1)?.minutes.toFixed(1)} of ${minutes} minutes`);
    const changes = (CHANGES_PER_SECOND * SAMPLE_INTERVAL_MS) / 1000;
    await fleet.ask('change', { added: changes, removed: changes, flapped: changes });
  }
  const warm = samples.filter((sample) => sample.minutes >= WARM_UP_SHARE * minutes);
  const growthIn = (key: Part) =>
    estimateGrowth(warm.map((sample) => ({ hours: sample.minutes / 60, value: sample[key], load: 1 })));
  const line = (name: string, color: string, key: Part) => ({
    name,
    color,
    points: samples.map((sample) => ({ x: sample.minutes, y: sample[key] })),
  });
  return {
    samples,
    growth: {
      residentMiB: growthIn('residentMiB'),
      anonymousMiB: growthIn('anonymousMiB'),
      glibcMiB: growthIn('glibcMiB'),
    },
    svg: lineChart({
      title: `Memory for ${minutes} minutes with ${objects} objects, of which 10 per second change`,
      xLabel: 'minutes',
      yLabel: 'MiB',
      lines: [
        line('RSS', '#1f6feb', 'residentMiB'),
        line('anonymous memory', '#bf5b04', 'anonymousMiB'),
        line('of it, glibc', '#1a7f37', 'glibcMiB'),
      ],
    }),
  };
}
