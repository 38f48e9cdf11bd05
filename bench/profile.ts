/** A CPU profile of the operator while it takes a cold full push and writes its rows. */
import { writeFile } from 'node:fs/promises';
import { startChild } from './child.ts';
import type { FleetCalls } from './fleet-process.ts';
import { openInspector } from './inspector.ts';
import { startOperator } from './operator.ts';
import { profileTable, type CpuProfile } from './profile-table.ts';
import { openRowWatch } from './row-watch.ts';
import type { Bench } from './scenario.ts';
import { openWorld } from './world.ts';

const LIMIT_MS = 200_000;
/**
 * Often enough to tell functions apart that take 1 % of 2 s. Four times as often doubles the main thread's CPU, and
 * keeps another thread of the profiler busy for as long as the push itself takes.
 */
const SAMPLING_MICROS = 1000;
const ROOT = new URL('..', import.meta.url).href;

/**
 * Writes the profile to `file`, for the DevTools or an editor to open.
 *
 * @returns where the time went, as a table
 */
export async function profileColdPush(file: string, { sizes, progress }: Bench): Promise<string> {
  await using undo = new AsyncDisposableStack();
  progress('starting');
  const world = undo.use(await openWorld({ audit: false }));
  const access = await world.access('mirror');
  const watch = undo.use(await openRowWatch(world, access.namespace));
  const fleet = undo.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  const operator = undo.use(await startOperator({ access, nodeFlags: ['--inspect=127.0.0.1:0'] }));
  await operator.ready();
  const inspector = await openInspector(operator.inspectorUrl ?? '');
  undo.defer(() => inspector.close());
  await inspector.post('Profiler.enable');
  await inspector.post('Profiler.setSamplingInterval', { interval: SAMPLING_MICROS });
  await inspector.post('Profiler.start');
  progress(`a full push of ${sizes.cold} tunnels`);
  const options = { address: operator.grpcAddress, reporters: 1, tunnels: sizes.cold };
  await Promise.all([watch.nth('ADDED', sizes.cold, LIMIT_MS), fleet.ask('start', options)]);
  const { profile } = (await inspector.post('Profiler.stop')) as { profile: CpuProfile };
  await writeFile(file, JSON.stringify(profile));
  return profileTable(profile, ROOT, sizes.cold);
}
