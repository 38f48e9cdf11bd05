/** A CPU profile of the operator during the first full push and the creation of its objects. */
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { SourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';
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
  const located = locateSources(profile);
  await writeFile(file, JSON.stringify(located));
  return profileTable(located, ROOT, scale.initialSyncTunnels);
}

/** Replaces the positions in bundles by those in the sources, as far as the source maps know them. */
function locateSources(profile: CpuProfile): CpuProfile {
  const maps = new Map<string, SourceMap | undefined>();
  function mapOf(url: string): SourceMap | undefined {
    const path = url.startsWith('file:') ? `${fileURLToPath(url)}.map` : '';
    if (!maps.has(url)) {
      const hasMap = path !== '' && existsSync(path);
      maps.set(url, hasMap ? new SourceMap(JSON.parse(readFileSync(path, 'utf8'))) : undefined);
    }
    return maps.get(url);
  }
  const nodes = profile.nodes.map((node) => {
    const { url, lineNumber, columnNumber } = node.callFrame;
    const entry = mapOf(url)?.findEntry(lineNumber, columnNumber);
    if (entry === undefined || !('originalSource' in entry)) return node;
    const { originalSource, originalLine } = entry;
    const source = new URL(originalSource, url).href;
    return { ...node, callFrame: { ...node.callFrame, url: source, lineNumber: originalLine } };
  });
  return { ...profile, nodes };
}
