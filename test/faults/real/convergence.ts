/** Checks of one fault: the state before, the expected state after, and the time to converge. */
import { open, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { conditionText, type RunningReplica } from '../../support/replicas.ts';
import {
  countTunnelObjects,
  compareWithExpected,
  listTunnelObjects,
  type ObservedTunnelObject,
} from '../../support/expected-objects.ts';
import type { Metric } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';

const POLL_INTERVAL_MS = 200;
/** Node prints these lines to stderr when its inspector is enabled; any other line is a crash. */
const NODE_DEBUGGER_OUTPUT = /^(Debugger (listening|attached|ending)|For help, see|Waiting for the debugger)/;

/** A state to compare with. */
export interface Snapshot {
  /** UID and creationTimestamp of each object, by its key. */
  readonly objects: ReadonlyMap<string, string>;
  /** The reporter of each object, by the object's name. */
  readonly reporterOf: ReadonlyMap<string, string>;
  /** Size of the audit log. */
  readonly auditBytes: number;
  readonly disconnects: number;
  readonly acks: number;
}

/** The result of a convergence. */
export interface ConvergenceResult {
  readonly objects: readonly ObservedTunnelObject[];
  /** Milliseconds since the call of `waitForConvergence`. */
  readonly durationMs: number;
  /** Number of objects that were replaced although their tunnels stayed up. */
  readonly replaced: number;
}

/** Takes a snapshot of the objects. */
export async function snapshot(fixture: FaultFixture): Promise<Snapshot> {
  const rows = await listTunnelObjects(fixture.controlPlane.request, fixture.namespace);
  const { size } = await stat(fixture.controlPlane.auditLogPath ?? '');
  return {
    objects: identitiesByKey(rows),
    reporterOf: reportersOf(rows),
    auditBytes: size,
    ...streamCounts(fixture),
  };
}

/**
 * Waits until the objects match the fleets' tunnels. Objects of `before` whose tunnel is still up must be
 * unchanged.
 *
 * @throws Error with the first difference at the deadline
 */
export async function waitForConvergence(
  fixture: FaultFixture,
  before: Snapshot,
  deadlineMs: number,
): Promise<ConvergenceResult> {
  const { request } = fixture.controlPlane;
  const startedMs = performance.now();
  for (;;) {
    const tookMs = performance.now() - startedMs;
    let difference = '';
    try {
      let size = 0;
      for (const tunnels of fixture.expectedTunnels().values()) size += tunnels.size;
      const count = await countTunnelObjects(request, fixture.namespace);
      difference = `${count} objects for ${size} tunnels`;
      if (count === size || tookMs > deadlineMs) {
        const rows = await listTunnelObjects(request, fixture.namespace);
        const comparison = compareWithExpected(fixture, rows);
        if (comparison.missing + comparison.extra + comparison.mismatched === 0) {
          return { objects: rows, durationMs: tookMs, replaced: countReplaced(before, rows) };
        }
        difference = JSON.stringify(comparison);
      }
    } catch (error) {
      // The API server may still be starting.
      difference = (error as Error).message;
    }
    if (tookMs > deadlineMs)
      throw new Error(`objects do not match after ${seconds(deadlineMs)} s: ${difference}`);
    await delay(POLL_INTERVAL_MS);
  }
}

/** Successful writes by operators: writes of objects by verb, `status` of objects, and writes of reporter objects. */
export interface WriteCounts {
  readonly create: number;
  readonly patch: number;
  readonly delete: number;
  readonly status: number;
  readonly reporters: number;
}

/** Counts the writes since a snapshot, from the audit log. */
export async function writesSince(fixture: FaultFixture, before: Snapshot): Promise<WriteCounts> {
  const counts = { create: 0, patch: 0, delete: 0, status: 0, reporters: 0 };
  for await (const { verb, resource, subresource } of operatorWrites(fixture, before)) {
    if (resource === 'reversetunnelreporters') counts.reporters += 1;
    else if (subresource === 'status') counts.status += 1;
    else counts[verb] += 1;
  }
  return counts;
}

/** Counts reporters whose objects were written by one replica after another had taken over: two owners at a time. */
export async function countInterleavedWriters(
  fixture: FaultFixture,
  before: Snapshot,
  after: ConvergenceResult,
): Promise<number> {
  const reporterOf = new Map([...before.reporterOf, ...reportersOf(after.objects)]);
  const writers = new Map<string, string[]>();
  const mixed = new Set<string>();
  for await (const { resource, name, account } of operatorWrites(fixture, before)) {
    const reporter = reporterOf.get(name);
    if (resource !== 'reversetunnels' || reporter === undefined) continue;
    const known = writers.get(reporter) ?? [];
    writers.set(reporter, known);
    if (known.at(-1) === account) continue;
    if (known.includes(account)) mixed.add(reporter);
    known.push(account);
  }
  return mixed.size;
}

interface OperatorWrite {
  readonly verb: 'create' | 'patch' | 'delete';
  readonly resource: 'reversetunnels' | 'reversetunnelreporters';
  readonly subresource: string | undefined;
  readonly name: string;
  readonly account: string;
}

/** Iterates over the successful writes of operators in the order of the audit log. */
async function* operatorWrites(
  fixture: FaultFixture,
  { auditBytes }: Snapshot,
): AsyncGenerator<OperatorWrite> {
  const audit = await open(fixture.controlPlane.auditLogPath ?? '');
  try {
    for await (const line of audit.readLines({ start: auditBytes })) {
      if (!line.includes(`"namespace":"${fixture.namespace}"`)) continue;
      const event = parseLine(line);
      if (event?.stage !== 'ResponseComplete') continue;
      const { verb, objectRef, user, responseStatus } = event;
      if (verb !== 'create' && verb !== 'patch' && verb !== 'delete') continue;
      const account = /^system:serviceaccount:default:(replica-.+)$/.exec(user.username)?.[1];
      if (account === undefined || (responseStatus?.code ?? 500) >= 300) continue;
      const resource = objectRef?.resource;
      if (resource !== 'reversetunnels' && resource !== 'reversetunnelreporters') continue;
      yield { verb, resource, subresource: objectRef?.subresource, name: objectRef?.name ?? '', account };
    }
  } finally {
    await audit.close();
  }
}

/** Returns the number of object writes. */
export function objectWriteCount(writes: WriteCounts): number {
  return writes.create + writes.patch + writes.delete + writes.status;
}

/** Waits until every tunnel has an object and every reporter is in sync, before the first fault. */
export async function waitForInitialSync(fixture: FaultFixture, deadlineMs: number): Promise<void> {
  await fixture.fleet.settled();
  await waitForConvergence(fixture, EMPTY_SNAPSHOT, deadlineMs);
  await waitUntilServed(fixture, deadlineMs);
}

const EMPTY_SNAPSHOT: Snapshot = {
  objects: new Map(),
  reporterOf: new Map(),
  auditBytes: 0,
  disconnects: 0,
  acks: 0,
};

/**
 * Waits until all reporters are connected, in sync and owned by a running replica. Returns the time in
 * milliseconds.
 */
export async function waitUntilServed(fixture: FaultFixture, deadlineMs: number): Promise<number> {
  const startedMs = performance.now();
  await fixture.replicas.waitUntilServed(fixture.reporterCount(), deadlineMs);
  return performance.now() - startedMs;
}

/**
 * Waits until all reporters are connected to a running replica that owns them; their objects may still be pending.
 */
export async function waitUntilOwned(fixture: FaultFixture, deadlineMs: number): Promise<void> {
  const isOwned = async (): Promise<boolean> => {
    const owners = new Set(fixture.replicas.running.map(({ process: operator }) => operator.replica));
    const observed = await fixture.replicas.reporters();
    const owned = observed.filter(
      ({ status }) =>
        owners.has(status.owner?.replica ?? '') && conditionText(status, 'Connected').startsWith('True'),
    );
    return owned.length === observed.length && observed.length === fixture.reporterCount();
  };
  await eventually('every reporter is connected and owned', isOwned, deadlineMs, 100);
}

/** Counts replicas that exited, printed to stderr, or logged an internal error. */
export function countCrashes(replicas: readonly RunningReplica[]): number {
  let count = 0;
  for (const { process: operator } of replicas) {
    const hasUnexpectedOutput = operator.stderr
      .split('\n')
      .some((line) => line !== '' && !NODE_DEBUGGER_OUTPUT.test(line));
    const hasInternalError = operator.log.some(({ msg }) => msg.startsWith('unexpected error'));
    if (hasUnexpectedOutput || hasInternalError || !isRunning(operator.pid)) count += 1;
  }
  return count;
}

/** Returns the ended streams and the ACKs of the first fleet. */
export function streamCounts(fixture: FaultFixture): { readonly disconnects: number; readonly acks: number } {
  const { disconnects, acks } = fixture.fleet.statistics();
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

/** Returns the key of an object: reporter and tunnel. */
export function tunnelKeyOf({ spec }: ObservedTunnelObject): string {
  return JSON.stringify([spec.reporter.cluster, spec.reporter.id, spec.tunnelName]);
}

function identitiesByKey(objects: readonly ObservedTunnelObject[]): Map<string, string> {
  return new Map(
    objects.map((object) => [
      tunnelKeyOf(object),
      `${object.metadata.uid} ${object.metadata.creationTimestamp}`,
    ]),
  );
}

function reportersOf(objects: readonly ObservedTunnelObject[]): Map<string, string> {
  return new Map(
    objects.map(({ metadata, spec }) => [
      metadata.name,
      JSON.stringify([spec.reporter.cluster, spec.reporter.id]),
    ]),
  );
}

function countReplaced(before: Snapshot, objects: readonly ObservedTunnelObject[]): number {
  let replaced = 0;
  for (const [key, identity] of identitiesByKey(objects)) {
    const previous = before.objects.get(key);
    if (previous !== undefined && previous !== identity) replaced += 1;
  }
  return replaced;
}

interface AuditLine {
  readonly stage: string;
  readonly verb: string;
  readonly user: { readonly username: string };
  readonly objectRef?: { readonly resource: string; readonly name?: string; readonly subresource?: string };
  readonly responseStatus?: { readonly code: number };
}

/** A killed API server may leave a partial line. */
function parseLine(line: string): AuditLine | undefined {
  try {
    return JSON.parse(line) as AuditLine;
  } catch {
    return undefined;
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}
