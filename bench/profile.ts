/** A CPU profile of the operator while it takes a cold full push and writes its rows. */
import { writeFile } from 'node:fs/promises';
import { startChild } from './child.ts';
import type { FleetCalls } from './fleet-process.ts';
import { openInspector } from './inspector.ts';
import { startOperator } from './operator.ts';
import { openRowWatch } from './row-watch.ts';
import type { Bench } from './scenario.ts';
import { openWorld } from './world.ts';

const LIMIT_MS = 200_000;
/** Often enough to tell functions apart that take 1 % of 2 s. */
const SAMPLING_MICROS = 250;
const SHOWN = 20;
const ROOT = new URL('..', import.meta.url).href;

/** What of V8's profile is read here: https://chromedevtools.github.io/devtools-protocol/v8/Profiler/#type-Profile */
interface CpuProfile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  }[];
  /** The node of each sample, and the microseconds since the one before. */
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/**
 * Writes the profile to `file`, for the DevTools or an editor to open.
 *
 * @returns the functions that took most time themselves, as a table
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
  return topTable(profile, sizes.cold);
}

function topTable({ nodes, samples, timeDeltas }: CpuProfile, rows: number): string {
  const nameOf = new Map(nodes.map(({ id, callFrame }) => [id, placeOf(callFrame)]));
  const selfMs = new Map<string, number>();
  let busyMs = 0;
  for (const [index, id] of samples.entries()) {
    const name = nameOf.get(id) ?? '';
    if (name === '(idle)') continue;
    const ms = (timeDeltas[index] ?? 0) / 1000;
    busyMs += ms;
    selfMs.set(name, (selfMs.get(name) ?? 0) + ms);
  }
  const top = [...selfMs].toSorted(([, a], [, b]) => b - a).slice(0, SHOWN);
  const lines = top.map(
    ([name, ms]) =>
      `${ms.toFixed(0).padStart(7)} ms  ${((100 * ms) / busyMs).toFixed(1).padStart(5)} %  ${name}`,
  );
  const perRow = (busyMs / rows).toFixed(3);
  return `${busyMs.toFixed(0)} ms busy on the main thread for ${rows} rows, ${perRow} ms each; by function, without callees:\n${lines.join('\n')}`;
}

/** The same function called from many places is one. */
function placeOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  if (url === '') return functionName;
  const name = functionName === '' ? '(anonymous)' : functionName;
  return `${name}  ${url.replace(ROOT, '')}:${lineNumber + 1}`;
}
