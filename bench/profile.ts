/** A CPU profile of the operator during the first full push and the creation of its objects. */
import { writeFile } from 'node:fs/promises';
import { startChild } from './child.ts';
import type { FleetCalls } from './fleet-process.ts';
import { openInspector } from './inspector.ts';
import { startOperator } from './operator.ts';
import { profileTable, type CpuProfile } from './profile-table.ts';
import { openObjectWatch } from './object-watch.ts';
import type { BenchContext } from './scenario.ts';
import { openBenchCluster } from './cluster.ts';

const TIMEOUT_MS = 200_000;
/**
 * Resolves functions that take 1 % of 2 s. A quarter of it would double the CPU of the main thread, and keep a thread of
 * the profiler busy for as long as the push takes.
 */
const SAMPLING_MICROS = 1000;
const ROOT = new URL('..', import.meta.url).href;

/**
 * Writes the profile to `file`, in the format that DevTools and editors open.
 *
 * @returns the table of `profileTable`
 */
export async function profileInitialSync(file: string, { scale, progress }: BenchContext): Promise<string> {
  await using cleanup = new AsyncDisposableStack();
  progress('starting');
  const cluster = cleanup.use(await openBenchCluster({ audit: false }));
  const access = await cluster.access('mirror');
  const watch = cleanup.use(await openObjectWatch(cluster, access.namespace));
  const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  const operator = cleanup.use(await startOperator({ access, nodeFlags: ['--inspect=127.0.0.1:0'] }));
  await operator.ready();
  const inspector = await openInspector(operator.inspectorUrl ?? '');
  cleanup.defer(() => inspector.close());
  await inspector.post('Profiler.enable');
  await inspector.post('Profiler.setSamplingInterval', { interval: SAMPLING_MICROS });
  await inspector.post('Profiler.start');
  progress(`a full push of ${scale.initialSyncTunnels} tunnels`);
  const options = { address: operator.grpcAddress, reporters: 1, tunnels: scale.initialSyncTunnels };
  await Promise.all([
    watch.waitForNth('ADDED', scale.initialSyncTunnels, TIMEOUT_MS),
    fleet.ask('start', options),
  ]);
  const { profile } = (await inspector.post('Profiler.stop')) as { profile: CpuProfile };
  await writeFile(file, JSON.stringify(profile));
  return profileTable(profile, ROOT, scale.initialSyncTunnels);
}
