/** Checks of one fault: the state before, the expected state after, and the time to converge. */
import { stat } from 'node:fs/promises';
import { listWritesSince } from '../../support/audit-log.ts';
import { eventually } from '../../support/eventually.ts';
import {
  listTunnelObjects,
  measureMatch,
  type ObservedTunnelObject,
} from '../../support/expected-objects.ts';
import { conditionText, type RunningReplica } from '../../support/replicas.ts';
import type { FaultFixture } from './fault-fixture.ts';
import type { Metric } from './scenario.ts';

/** Longer than any recovery, also on a busy machine. */
export const DEADLINE_MS = 120_000;
/** Node prints these lines to stderr when its inspector is enabled; any other line is a crash. */
const NODE_DEBUGGER_OUTPUT = /^(Debugger (listening|attached|ending)|For help, see|Waiting for the debugger)/;

type ObjectsByKey = ReadonlyMap<string, ObservedTunnelObject>;

/** A state to compare with. */
export interface Snapshot {
  readonly objects: ObjectsByKey;
  readonly auditBytes: number;
  readonly disconnects: number;
  readonly acks: number;
  readonly lists: number;
}

export interface ConvergenceResult {
  readonly objects: ObjectsByKey;
  /** Milliseconds since the call of `waitForConvergence`. */
  readonly durationMs: number;
  /** Number of objects that were replaced although their tunnels stayed up. */
  readonly replaced: number;
}

/** Bounds of the effects of a fault. */
export interface RecoveryBounds {
  /** Maximum seconds until the objects match. */
  readonly converged: number;
  /** Maximum seconds until, in addition, the reporters are in sync. */
  readonly inSync?: number;
  /** Maximum number of successful object writes since the snapshot. */
  readonly writes?: number;
  /** Whether the writes of two replicas to objects of one reporter must not alternate. */
  readonly singleWriter?: boolean;
}

export async function snapshot(fixture: FaultFixture): Promise<Snapshot> {
  const objects = await listTunnelObjects(fixture.controlPlane.request, fixture.namespace);
  const { size } = await stat(fixture.controlPlane.auditLogPath ?? '');
  return { objects: byKey(objects), auditBytes: size, lists: countLists(fixture), ...streamCounts(fixture) };
}

/** Returns a snapshot without objects that are deleted by a fault and rightly come back as new ones. */
export function withoutObjects(before: Snapshot, keys: Iterable<string>): Snapshot {
  const objects = new Map(before.objects);
  for (const key of keys) objects.delete(key);
  return { ...before, objects };
}

/** Waits until the objects match the fleets' tunnels. @throws Error with the first difference at the deadline */
export async function waitForConvergence(
  fixture: FaultFixture,
  before: Snapshot | undefined,
  deadlineMs = DEADLINE_MS,
): Promise<ConvergenceResult> {
  const { request } = fixture.controlPlane;
  const matched = await measureMatch(fixture, request, fixture.namespace, deadlineMs);
  const objects = byKey(matched.objects);
  const replaced = [...objects].filter(([key, { metadata }]) => {
    const previous = before?.objects.get(key)?.metadata;
    return (
      previous !== undefined &&
      (previous.uid !== metadata.uid || previous.creationTimestamp !== metadata.creationTimestamp)
    );
  });
  return { objects, durationMs: matched.durationMs, replaced: replaced.length };
}

/** Waits until the system has recovered, and returns the metrics that have a bound. */
export async function measureRecovery(
  fixture: FaultFixture,
  before: Snapshot,
  { converged, inSync, writes, singleWriter = false }: RecoveryBounds,
): Promise<Metric[]> {
  const after = await waitForConvergence(fixture, before);
  const servedMs = await waitUntilServed(fixture);
  const metrics = commonMetrics(fixture, after, converged);
  if (inSync !== undefined) {
    const value = (after.durationMs + servedMs) / 1000;
    metrics.push({ name: 'reporters in sync', value, unit: 's', atMost: inSync });
  }
  if (writes !== undefined)
    metrics.push({ name: 'object writes', value: await countObjectWrites(fixture, before), atMost: writes });
  if (singleWriter) metrics.push(await interleavingMetric(fixture, before, after));
  return metrics;
}

/** Counts the successful object writes of operators since a snapshot: all, or those with a verb. */
export async function countObjectWrites(
  fixture: FaultFixture,
  before: Snapshot,
  verb?: 'create' | 'delete',
): Promise<number> {
  const writes = await listOperatorWrites(fixture, before);
  return writes.filter(
    (write) => write.resource.split('/')[0] === 'reversetunnels' && write.verb === (verb ?? write.verb),
  ).length;
}

export async function listOperatorWrites(
  { controlPlane, namespace }: FaultFixture,
  { auditBytes }: Snapshot,
): ReturnType<typeof listWritesSince> {
  const writes = await listWritesSince(controlPlane.auditLogPath ?? '', namespace, auditBytes);
  return writes.filter(({ account }) => account.startsWith('replica-'));
}

/** Counts reporters whose objects were written by one replica after another had taken over: two owners at a time. */
export async function interleavingMetric(
  fixture: FaultFixture,
  before: Snapshot,
  after: ConvergenceResult,
): Promise<Metric> {
  const objects = [...before.objects.values(), ...after.objects.values()];
  const reporterOf = new Map(objects.map(({ metadata, spec }) => [metadata.name, reporterOfSpec(spec)]));
  const writers = new Map<string, string[]>();
  const mixed = new Set<string>();
  for (const { resource, name, account } of await listOperatorWrites(fixture, before)) {
    const reporter = reporterOf.get(name);
    if (resource.split('/')[0] !== 'reversetunnels' || reporter === undefined) continue;
    const known = writers.get(reporter) ?? [];
    writers.set(reporter, known);
    if (known.at(-1) === account) continue;
    if (known.includes(account)) mixed.add(reporter);
    known.push(account);
  }
  return { name: 'reporters with interleaving writers', value: mixed.size, atMost: 0 };
}

/** Waits until every tunnel has an object and every reporter is in sync, before the first fault. */
export async function waitForInitialSync(fixture: FaultFixture, deadlineMs: number): Promise<void> {
  await fixture.fleet.settled();
  // The interval that a reporter receives with its first ACK applies from its second report on, which follows after
  // Envoy's own 5 s.
  await waitUntil('second reports', () => {
    const { delta, heartbeat } = fixture.fleet.statistics().reports;
    return delta + heartbeat >= fixture.fleet.reporters.length;
  });
  await waitForConvergence(fixture, undefined, deadlineMs);
  await waitUntilServed(fixture, deadlineMs);
}

/** Waits until all reporters are connected, in sync and owned by a running replica. Returns the time in ms. */
export async function waitUntilServed(fixture: FaultFixture, deadlineMs = DEADLINE_MS): Promise<number> {
  const startedMs = performance.now();
  await fixture.replicas.waitUntilServed(fixture.reporterCount(), deadlineMs);
  return performance.now() - startedMs;
}

/** Waits until all reporters are connected to a running replica that owns them; their objects may still be pending. */
export async function waitUntilOwned(fixture: FaultFixture): Promise<void> {
  const isOwned = async (): Promise<boolean> => {
    const owners = new Set(fixture.replicas.running.map(({ process: operator }) => operator.replica));
    const observed = await fixture.replicas.reporters();
    const owned = observed.filter(
      ({ status }) =>
        owners.has(status.owner?.replica ?? '') && conditionText(status, 'Connected').startsWith('True'),
    );
    return owned.length === observed.length && observed.length === fixture.reporterCount();
  };
  await waitUntil('every reporter is connected and owned', isOwned, 100);
}

/** Waits for a condition that is checked with calls. Returns the time in ms. */
export async function waitUntil(
  what: string,
  predicate: () => boolean | Promise<boolean>,
  intervalMs = 200,
): Promise<number> {
  const startedMs = performance.now();
  await eventually(what, predicate, DEADLINE_MS, intervalMs);
  return performance.now() - startedMs;
}

/** Counts replicas that exited, printed to stderr, or logged an internal error. */
export function countCrashes(replicas: readonly RunningReplica[]): number {
  return replicas.filter(({ process: operator }) => {
    const hasUnexpectedOutput = operator.stderr
      .split('\n')
      .some((line) => line !== '' && !NODE_DEBUGGER_OUTPUT.test(line));
    const hasInternalError = operator.log.some(({ msg }) => msg.startsWith('unexpected error'));
    return hasUnexpectedOutput || hasInternalError || !isRunning(operator.pid);
  }).length;
}

export function countLists({ replicas }: FaultFixture): number {
  const lines = replicas.running.flatMap(({ process: operator }) => operator.log);
  return lines.filter(
    ({ msg, resource }) => msg === 'listed all objects' && String(resource).startsWith('reversetunnels.'),
  ).length;
}

/** Returns the ended streams and the ACKs of the first fleet. */
export function streamCounts({ fleet }: FaultFixture): {
  readonly disconnects: number;
  readonly acks: number;
} {
  const { disconnects, acks } = fleet.statistics();
  return { disconnects: Object.values(disconnects).reduce((sum, times) => sum + times, 0), acks };
}

/** Returns the metrics of every fault: convergence in time, unchanged objects, and no crash. */
export function commonMetrics(
  fixture: FaultFixture,
  after: ConvergenceResult,
  atMostSeconds: number,
): Metric[] {
  return [
    { name: 'converged', value: after.durationMs / 1000, unit: 's', atMost: atMostSeconds },
    { name: 'surviving objects replaced', value: after.replaced, atMost: 0 },
    { name: 'crashes', value: countCrashes(fixture.replicas.running), atMost: 0 },
  ];
}

export function tunnelKeyOf({ spec }: ObservedTunnelObject): string {
  return JSON.stringify([reporterOfSpec(spec), spec.tunnelName]);
}

function reporterOfSpec({ reporter }: ObservedTunnelObject['spec']): string {
  return JSON.stringify([reporter.cluster, reporter.id]);
}

function byKey(objects: readonly ObservedTunnelObject[]): Map<string, ObservedTunnelObject> {
  return new Map(objects.map((object) => [tunnelKeyOf(object), object]));
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
