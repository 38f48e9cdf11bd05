/** A fleet of simulated reporters in the network of the node, and what it leaves in the API. */
import { createInterface } from 'node:readline';
import { killGroup, waitForExit } from '../../control-plane/process-supervisor.ts';
import { eventually } from '../support/eventually.ts';
import { approach } from './approach.ts';
import type { ClusterTools } from './cluster-tools.ts';
import { doctor, NAMESPACE } from './installation.ts';
import { operatorPods } from './pods.ts';

/** Longer than several report intervals of the fleet. */
const SETTLE_TIMEOUT_MS = 120_000;
/** Pods that end, start and become ready, on a busy machine. */
const RECOVERY_TIMEOUT_MS = 300_000;
const POLL_MS = 500;
const OBJECTS = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${NAMESPACE}`;

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
  /** Starts to record disconnects of reporters, as they see them; the result ends the recording. */
  readonly record: () => DisconnectRecord;
  /** Ends the fleet and waits until its processes have ended. */
  readonly stop: () => Promise<void>;
}

/** Disconnects since the start of a recording. */
export interface DisconnectRecord {
  /** Whether every reporter has a stream that was ACKed. */
  readonly allConnected: () => boolean;
  /** The number of reporters that were disconnected, and the longest time until one was connected again. */
  readonly result: () => { disconnected: number; longestS: number };
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
    ...[process.execPath, 'test/cluster/fleet-process.ts', '--address', `${address}:18000`],
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
  const connected = new Set<string>();
  let onConnected: ((id: string, afterMs: number) => void) | undefined;
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [id = '', state, afterMs] = line.split(' ');
      if (state === 'disconnected') connected.delete(id);
      else {
        connected.add(id);
        onConnected?.(id, Number(afterMs));
      }
    });
  }
  let output = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (output = (output + text).slice(-2000)));
  const record = (): DisconnectRecord => {
    const longestMs = new Map<string, number>();
    onConnected = (id, afterMs) => longestMs.set(id, Math.max(longestMs.get(id) ?? 0, afterMs));
    return {
      allConnected: () => connected.size === size.reporters,
      result() {
        onConnected = undefined;
        return { disconnected: longestMs.size, longestS: Math.max(0, ...longestMs.values()) / 1000 };
      },
    };
  };
  const stop = async (): Promise<void> => {
    killGroup(child);
    await waitForExit(child);
  };
  try {
    await approach({
      what: 'objects',
      target: size.reporters * size.tunnels,
      // Churn deletes the object of one tunnel and creates that of the next.
      tolerance: 2 * size.churn,
      read: async () => await countObjects(tools),
      check() {
        if (child.exitCode !== null) throw new Error(`the fleet has ended: ${output}`);
      },
      update: tools.update,
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return { size, record, stop };
}

/** Deletes the ReverseTunnels and ReverseTunnelReporters. Nothing may create others. */
export async function deleteObjects(tools: ClusterTools): Promise<void> {
  for (const plural of ['reversetunnelreporters', 'reversetunnels'])
    // The whole collection with one request, which ends after 60 s; the API server continues when it is repeated.
    await approach({
      what: plural,
      target: 0,
      async read() {
        const left = await count(tools, plural);
        if (left > 0) await tools.run(['kubectl', 'delete', '--raw', `${OBJECTS}/${plural}`]);
        return left;
      },
      update: tools.update,
    });
}

/** Returns the number of ReverseTunnels. */
export async function countObjects(tools: ClusterTools): Promise<number> {
  return await count(tools, 'reversetunnels');
}

/** Returns the number of objects without transferring them; 0 if the kind is not installed. */
async function count({ run }: ClusterTools, plural: string): Promise<number> {
  const { code, stdout, stderr } = await run(['kubectl', 'get', '--raw', `${OBJECTS}/${plural}?limit=1`]);
  if (code !== 0 && stderr.includes('(NotFound)')) return 0;
  if (code !== 0) throw new Error(`cannot count ${plural}: ${stderr.trim()}`);
  const { items, metadata } = JSON.parse(stdout) as {
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
  const record = fleet.record();
  const startedMs = performance.now();
  await action();
  let problems = '';
  await eventually(
    'the disruption is over',
    async () => {
      if (!(await isOver())) return false;
      const pods = await operatorPods(tools);
      if (pods.length !== 2 || !pods.every(({ ready }) => ready) || !record.allConnected()) return false;
      const result = await doctor(tools);
      ({ problems } = result);
      return result.ok;
    },
    RECOVERY_TIMEOUT_MS,
    POLL_MS,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}: ${problems}`);
  });
  const recoveredS = (performance.now() - startedMs) / 1000;
  const expected = fleet.size.reporters * fleet.size.tunnels;
  let after = await takeSnapshot(tools);
  // Reporters that reconnected together also report together: for a moment, there are the new objects of all of them,
  // and the old ones that are still to be deleted.
  await eventually(
    'objects of exactly the tunnels that are up',
    async () => {
      if (Math.abs(after.size - expected) <= 2 * fleet.size.churn) return true;
      after = await takeSnapshot(tools);
      return false;
    },
    SETTLE_TIMEOUT_MS,
    POLL_MS,
  ).catch(() => {
    throw new Error(`${after.size} objects after the disruption, ${expected} expected`);
  });
  const unchanged = [...before].filter(([name]) => after.has(name));
  const rewritten = unchanged.filter(([name, version]) => after.get(name) !== version).length;
  const { disconnected, longestS } = record.result();
  return {
    rewritten,
    note:
      `${unchanged.length} unchanged objects; ${disconnected} of ${fleet.size.reporters} reporters disconnected, ` +
      `at most ${longestS.toFixed(1)} s; healthy after ${recoveredS.toFixed(0)} s`,
  };
}
