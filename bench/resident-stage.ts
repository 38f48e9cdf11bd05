/** An operator with 500 reporters that stay connected, and their rows, which several measurements look at. */
import { poll } from '../test/support/operator-process.ts';
import { startChild, type Child } from './child.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import type { Bench } from './scenario.ts';
import { openWorld, type Access, type World } from './world.ts';

const LIMIT_MS = 20 * 60_000;
const COUNT_EVERY_MS = 500;
/** Reporters start one after the other over a report interval, as Envoys that were not started all at once. */
const START_OVER_MS = 5000;

export interface ResidentStage {
  readonly world: World;
  readonly access: Access;
  readonly fleet: Child<FleetCalls>;
  /** Replaced by a restart. Its report interval is the default, 5 s. */
  operator: Operator;
  /** Brings every reporter to so many tunnels, and waits for all rows; returns how many there are. Never shrinks. */
  growTo(tunnelsEach: number, bench: Bench): Promise<number>;
}

export async function openResidentStage(bench: Bench, undo: AsyncDisposableStack): Promise<ResidentStage> {
  bench.progress('starting');
  const reporters = bench.sizes.residentReporters;
  const world = undo.use(await openWorld({ audit: true }));
  const access = await world.access('mirror');
  const fleet = undo.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  let held: number | undefined;
  const stage: ResidentStage = {
    world,
    access,
    fleet,
    operator: await startOperator({ access }),
    async growTo(tunnelsEach, { progress }) {
      const rows = reporters * tunnelsEach;
      if (held === undefined) {
        await fleet.ask('start', {
          address: stage.operator.grpcAddress,
          reporters,
          tunnels: tunnelsEach,
          startOverMs: START_OVER_MS,
          // Short, so that a restart measures the operator and not Envoy's patience of 5 s.
          connectRetryIntervalMs: 500,
        });
      } else if (tunnelsEach > held) {
        await fleet.ask('grow', tunnelsEach - held);
      }
      held = tunnelsEach;
      await fleet.ask('settled', null);
      await untilRows(world, access.namespace, rows, progress);
      return rows;
    },
  };
  undo.defer(() => stage.operator[Symbol.asyncDispose]());
  await stage.operator.ready();
  return stage;
}

/** Waits for exactly so many rows, telling how far it has come. */
export async function untilRows(
  world: World,
  namespace: string,
  rows: number,
  progress: (doing: string) => void,
): Promise<void> {
  let lookedMs = Number.NEGATIVE_INFINITY;
  await poll(LIMIT_MS, async () => {
    // A count is a list of the API server's cache: too dear to ask for at each turn.
    if (performance.now() - lookedMs < COUNT_EVERY_MS) return undefined;
    lookedMs = performance.now();
    const now = await world.countRows(namespace);
    progress(`${now} of ${rows} rows`);
    return now === rows ? true : undefined;
  });
}
