/** The judge of one fault: what there was before, what has to be after, and how long it took. */
import { open, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { conditionText, type RunningReplica } from '../../support/replicas.ts';
import {
  countTunnelObjects,
  compareWithExpected,
  listTunnelObjects,
  type ObservedTunnelObject,
} from '../../support/expected-objects.ts';
import type { Metric } from './metric.ts';
import type { FaultFixture } from './fault-fixture.ts';

const POLL_INTERVAL_MS = 200;
/** Node says these on stderr of a process that it may be looked into; anything else is a crash. */
const NODE_DEBUGGER_OUTPUT = /^(Debugger (listening|attached|ending)|For help, see|Waiting for the debugger)/;

/** A moment to compare with. */
export interface Snapshot {
  /** Of each row, by place: uid and creationTimestamp. */
  readonly objects: ReadonlyMap<string, string>;
  /** Of each row, by its name: its reporter. */
  readonly reporterOf: ReadonlyMap<string, string>;
  /** Bytes of the audit log. */
  readonly auditBytes: number;
  readonly disconnects: number;
  readonly acks: number;
}

/** What came of it. */
export interface ConvergenceResult {
  readonly objects: readonly ObservedTunnelObject[];
  /** From the call of `converged` on, ms. */
  readonly durationMs: number;
  /** Rows of tunnels that were held throughout, that are not the same object as before. */
  readonly replaced: number;
}

/** The rows as they are, to be compared later. */
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
 * Waits until the rows are what the fleets hold. A row of `before` whose tunnel is still held must be the same object.
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
      difference = `${count} rows for ${size} tunnels`;
      if (count === size || tookMs > deadlineMs) {
        const rows = await listTunnelObjects(request, fixture.namespace);
        const comparison = compareWithExpected(fixture, rows);
        if (comparison.missing + comparison.extra + comparison.mismatched === 0) {
          return { objects: rows, durationMs: tookMs, replaced: countReplaced(before, rows) };
        }
        difference = JSON.stringify(comparison);
      }
    } catch (error) {
      // The API server may still be on its way up.
      difference = (error as Error).message;
    }
    if (tookMs > deadlineMs)
      throw new Error(`rows are not the truth after ${seconds(deadlineMs)} s: ${difference}`);
    await delay(POLL_INTERVAL_MS);
  }
}

/** Writes by operators since then, that were carried out: rows by verb, `status` of rows, and of reporters' objects. */
export interface WriteCounts {
  readonly create: number;
  readonly patch: number;
  readonly delete: number;
  readonly status: number;
  readonly reporters: number;
}

/** Counts them by kind, from the audit log. */
export async function writesSince(fixture: FaultFixture, before: Snapshot): Promise<WriteCounts> {
  const counts = { create: 0, patch: 0, delete: 0, status: 0, reporters: 0 };
  for await (const { verb, resource, subresource } of operatorWrites(fixture, before)) {
    if (resource === 'reversetunnelreporters') counts.reporters += 1;
    else if (subresource === 'status') counts.status += 1;
    else counts[verb] += 1;
  }
  return counts;
}

/** Reporters of whose rows a replica wrote one after another replica had: two owners at a time. */
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

/** Writes by operators that were carried out, in the order of the audit log. */
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

/** All writes to rows. */
export function objectWriteCount(writes: WriteCounts): number {
  return writes.create + writes.patch + writes.delete + writes.status;
}

/** Waits until everything that the fleets hold is a row and every reporter is in sync, before anything is done to them. */
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

/** Waits until all reporters are connected, in sync and owned by a replica that runs; gives how long it took, ms. */
export async function waitUntilServed(fixture: FaultFixture, deadlineMs: number): Promise<number> {
  const startedMs = performance.now();
  await fixture.replicas.waitUntilServed(fixture.reporterCount(), deadlineMs);
  return performance.now() - startedMs;
}

/** Waits until all reporters are connected to a replica that runs and owns them; their rows may still be written. */
export async function waitUntilOwned(fixture: FaultFixture, deadlineMs: number): Promise<void> {
  const untilMs = performance.now() + deadlineMs;
  for (;;) {
    const owners = new Set(fixture.replicas.running.map(({ process: operator }) => operator.replica));
    const observed = await fixture.replicas.reporters();
    const unowned = observed.filter(
      ({ status }) =>
        !owners.has(status.owner?.replica ?? '') || !conditionText(status, 'Connected').startsWith('True'),
    );
    if (unowned.length === 0 && observed.length === fixture.reporterCount()) return;
    if (performance.now() > untilMs) throw new Error(`${unowned.length} reporters are not served`);
    await delay(100);
  }
}

/** Replicas that have ended by themselves, said something on stderr, or found a fault of their own. */
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

/** Streams that ended, and ACKs, over all reporters of the first fleet. */
export function streamCounts(fixture: FaultFixture): { readonly disconnects: number; readonly acks: number } {
  const { disconnects, acks } = fixture.fleet.statistics();
  return { disconnects: Object.values(disconnects).reduce((sum, times) => sum + times, 0), acks };
}

/** What every fault is judged by: the truth in time, the same objects, and nobody crashed. */
export function commonMetrics(
  fixture: FaultFixture,
  after: ConvergenceResult,
  atMostSeconds: number,
): Metric[] {
  return [
    { name: 'converged', value: after.durationMs / 1000, unit: 's', atMost: atMostSeconds },
    { name: 'surviving rows replaced', value: after.replaced, atMost: 0 },
    { name: 'crashes', value: countCrashes(fixture.replicas.running), atMost: 0 },
  ];
}

/** Where a row belongs: reporter and tunnel. */
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

/** An API server that is killed may leave half a line. */
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
