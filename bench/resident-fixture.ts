/** An operator with 500 reporters that stay connected, and their rows, which several measurements look at. */
import { poll } from '../test/support/operator-process.ts';
import { startChild, type Child } from './child.ts';
import type { FleetCalls } from './fleet-process.ts';
import { startOperator, type Operator } from './operator.ts';
import type { BenchContext } from './scenario.ts';
import { openBenchCluster, type Access, type BenchCluster } from './cluster.ts';

const TIMEOUT_MS = 20 * 60_000;
const COUNT_INTERVAL_MS = 500;
/** Reporters start one after the other over a report interval, as Envoys that were not started all at once. */
const START_SPREAD_MS = 5000;

export interface ResidentFixture {
  readonly world: BenchCluster;
  readonly access: Access;
  readonly fleet: Child<FleetCalls>;
  /** Replaced by a restart. Its report interval is the default, 5 s. */
  operator: Operator;
  /** Brings every reporter to so many tunnels, and waits for all rows; returns how many there are. Never shrinks. */
  growTo(tunnelsEach: number, bench: BenchContext): Promise<number>;
}

export async function openResidentFixture(
  context: BenchContext,
  cleanup: AsyncDisposableStack,
): Promise<ResidentFixture> {
  context.progress('starting');
  const reporters = context.scale.residentReporters;
  const cluster = cleanup.use(await openBenchCluster({ audit: true }));
  const access = await cluster.access('mirror');
  const fleet = cleanup.use(startChild<FleetCalls>(new URL('./fleet-process.ts', import.meta.url)));
  let currentTunnelsEach: number | undefined;
  const fixture: ResidentFixture = {
    world: cluster,
    access,
    fleet,
    operator: await startOperator({ access }),
    async growTo(tunnelsEach, { progress }) {
      const objects = reporters * tunnelsEach;
      if (currentTunnelsEach === undefined) {
        await fleet.ask('start', {
          address: fixture.operator.grpcAddress,
          reporters,
          tunnels: tunnelsEach,
          rampUpMs: START_SPREAD_MS,
          // Short, so that a restart measures the operator and not Envoy's patience of 5 s.
          connectRetryIntervalMs: 500,
        });
      } else if (tunnelsEach > currentTunnelsEach) {
        await fleet.ask('grow', tunnelsEach - currentTunnelsEach);
      }
      currentTunnelsEach = tunnelsEach;
      await fleet.ask('settled', null);
      await waitForObjectCount(cluster, access.namespace, objects, progress);
      return objects;
    },
  };
  cleanup.defer(() => fixture.operator[Symbol.asyncDispose]());
  await fixture.operator.ready();
  return fixture;
}

/** Waits for exactly so many rows, telling how far it has come. */
export async function waitForObjectCount(
  cluster: BenchCluster,
  namespace: string,
  objects: number,
  progress: (doing: string) => void,
): Promise<void> {
  let countedMs = Number.NEGATIVE_INFINITY;
  await poll(TIMEOUT_MS, async () => {
    // A count is a list of the API server's cache: too dear to ask for at each turn.
    if (performance.now() - countedMs < COUNT_INTERVAL_MS) return undefined;
    countedMs = performance.now();
    const count = await cluster.countObjects(namespace);
    progress(`${count} of ${objects} rows`);
    return count === objects ? true : undefined;
  });
}
