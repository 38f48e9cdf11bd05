/** A fleet of simulated reporters in the network of the node, and what it leaves in the API. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { killGroup, waitForExit } from '../../control-plane/process-supervisor.ts';
import { eventually } from '../support/eventually.ts';
import type { ClusterTools } from './cluster-tools.ts';
import { doctor, NAMESPACE } from './installation.ts';
import { operatorPods } from './pods.ts';

/** The first full push of the largest fleet takes about 4 minutes. */
const CONVERGENCE_TIMEOUT_MS = 600_000;
const POLL_MS = 500;

/** The size of a fleet. */
export interface FleetSize {
  readonly reporters: number;
  /** Per reporter. */
  readonly tunnels: number;
  /** Tunnels per second that are replaced by new ones. */
  readonly churn: number;
}

/** A running fleet. */
export interface Fleet {
  readonly size: FleetSize;
  /** Ends the fleet and waits until its processes have ended. */
  readonly stop: () => Promise<void>;
}

/** Starts a fleet that reports to the Service; resolves when every tunnel has an object. */
export async function startFleet(
  tools: ClusterTools,
  size: FleetSize,
  flags: readonly string[],
): Promise<Fleet> {
  const address = await tools.kubectl(
    'get',
    'service',
    '--namespace',
    NAMESPACE,
    NAMESPACE,
    '--output',
    'jsonpath={.spec.clusterIP}',
  );
  const child = tools.start([
    ...[process.execPath, 'src/main.ts', 'simulate', '--address', `${address}:18000`],
    ...[
      '--reporters',
      String(size.reporters),
      '--tunnels',
      String(size.tunnels),
      '--churn',
      String(size.churn),
      ...flags,
    ],
  ]);
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-2000)));
  const stop = async (): Promise<void> => {
    killGroup(child);
    await waitForExit(child);
  };
  try {
    await eventually(
      `${size.reporters * size.tunnels} objects`,
      async () => {
        if (child.exitCode !== null) throw new Error(`simulate has ended: ${output}`);
        // Churn deletes the object of one tunnel and creates that of the next.
        return (await countObjects(tools)) >= size.reporters * size.tunnels - 2 * size.churn;
      },
      CONVERGENCE_TIMEOUT_MS,
      POLL_MS,
    );
  } catch (error) {
    await stop();
    throw error;
  }
  return { size, stop };
}

/** Returns the number of ReverseTunnels without transferring them. */
export async function countObjects({ kubectl }: ClusterTools): Promise<number> {
  const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${NAMESPACE}/reversetunnels?limit=1`;
  const { items, metadata } = JSON.parse(await kubectl('get', '--raw', path)) as {
    items: readonly unknown[];
    metadata: { remainingItemCount?: number };
  };
  return items.length + (metadata.remainingItemCount ?? 0);
}

/** Identity and version of each ReverseTunnel, by name. */
export type Snapshot = ReadonlyMap<string, string>;

export async function takeSnapshot({ kubectl }: ClusterTools): Promise<Snapshot> {
  const template =
    'jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}/{.metadata.resourceVersion}{"\\n"}{end}';
  const text = await kubectl('get', 'reversetunnels', '--namespace', NAMESPACE, '--output', template);
  return new Map(
    text
      .trim()
      .split('\n')
      .map((line) => line.split(' ') as [string, string]),
  );
}

/** What a disruption did. */
export interface DisruptionResult {
  /** Objects whose tunnel stayed up, and that were written or replaced nevertheless. Must be 0. */
  readonly rewritten: number;
  readonly note: string;
}

/**
 * Disrupts the operator while a fleet reports, waits until everything is as before, and compares the objects of tunnels
 * that stayed up. The tunnels that churn replaces have new names.
 *
 * @param isOver when the disruption itself is over, such as a restarted container; then everything must converge
 */
export async function disrupt(
  tools: ClusterTools,
  fleet: Fleet,
  action: () => Promise<void>,
  isOver: () => Promise<boolean>,
): Promise<DisruptionResult> {
  const before = await takeSnapshot(tools);
  const observer = observeReporters(tools);
  try {
    await observer.started;
    const startedMs = performance.now();
    await action();
    let problem = '';
    await eventually(
      'the disruption is over',
      async () => {
        if (!(await isOver())) return false;
        const pods = await operatorPods(tools);
        if (pods.length !== 2 || !pods.every(({ ready }) => ready) || !observer.allConnected()) return false;
        const { ok, output } = await doctor(tools);
        problem = output;
        return ok;
      },
      180_000,
      POLL_MS,
    ).catch((error: unknown) => {
      throw new Error(
        `${String(error)}: ${problem
          .split('\n')
          .filter((line) => !line.startsWith('ok'))
          .join(' | ')
          .slice(0, 600)}`,
      );
    });
    const recoveredS = (performance.now() - startedMs) / 1000;
    const after = await takeSnapshot(tools);
    const unchanged = [...before].filter(([name]) => after.has(name));
    const rewritten = unchanged.filter(([name, version]) => after.get(name) !== version).length;
    const expected = fleet.size.reporters * fleet.size.tunnels;
    if (Math.abs(after.size - expected) > 2 * fleet.size.churn) {
      throw new Error(`${after.size} objects after the disruption, ${expected} expected`);
    }
    const { disconnected, longestS } = observer.result();
    return {
      rewritten,
      note:
        `${unchanged.length} unchanged objects; ${disconnected} of ${fleet.size.reporters} reporters disconnected, ` +
        `at most ${longestS.toFixed(1)} s; healthy after ${recoveredS.toFixed(0)} s`,
    };
  } finally {
    await observer.stop();
  }
}

interface Observer {
  readonly started: Promise<void>;
  readonly allConnected: () => boolean;
  readonly result: () => { disconnected: number; longestS: number };
  readonly stop: () => Promise<void>;
}

/** Watches the condition Connected of all reporters. */
function observeReporters(tools: ClusterTools): Observer {
  const template = 'jsonpath={.metadata.name} {.status.conditions[?(@.type=="Connected")].status}{"\\n"}';
  const child: ChildProcess = tools.start([
    'kubectl',
    'get',
    'reversetunnelreporters',
    '--namespace',
    NAMESPACE,
    '--watch',
    '--output',
    template,
  ]);
  const sinceMs = new Map<string, number>();
  const longestMs = new Map<string, number>();
  const { promise: started, resolve } = Promise.withResolvers<void>();
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [name = '', status] = line.split(' ');
      resolve();
      if (status !== 'True') {
        if (!sinceMs.has(name)) sinceMs.set(name, performance.now());
        return;
      }
      const since = sinceMs.get(name);
      if (since === undefined) return;
      sinceMs.delete(name);
      longestMs.set(name, Math.max(longestMs.get(name) ?? 0, performance.now() - since));
    });
  }
  return {
    started,
    allConnected: () => sinceMs.size === 0,
    result: () => ({ disconnected: longestMs.size, longestS: Math.max(0, ...longestMs.values()) / 1000 }),
    async stop() {
      killGroup(child);
      await waitForExit(child);
    },
  };
}
