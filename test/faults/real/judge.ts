/** The judge of one fault: what there was before, what has to be after, and how long it took. */
import { open, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { condition, type RunningReplica } from '../../support/replicas.ts';
import { countRows, judge, listRows, type RowSeen } from '../../support/truth.ts';
import type { Figure } from './figure.ts';
import type { Stage } from './stage.ts';

const POLL_MS = 200;
/** Node says these on stderr of a process that it may be looked into; anything else is a crash. */
const NODE_SAYS = /^(Debugger (listening|attached|ending)|For help, see|Waiting for the debugger)/;

/** A moment to compare with. */
export interface Before {
  /** Of each row, by place: uid and creationTimestamp. */
  readonly rows: ReadonlyMap<string, string>;
  /** Of each row, by its name: its reporter. */
  readonly reporterOf: ReadonlyMap<string, string>;
  /** Bytes of the audit log. */
  readonly auditBytes: number;
  readonly disconnects: number;
  readonly acks: number;
}

/** What came of it. */
export interface After {
  readonly rows: readonly RowSeen[];
  /** From the call of `converged` on, ms. */
  readonly tookMs: number;
  /** Rows of tunnels that were held throughout, that are not the same object as before. */
  readonly replaced: number;
}

/** The rows as they are, to be compared later. */
export async function photograph(stage: Stage): Promise<Before> {
  const rows = await listRows(stage.controlPlane.request, stage.namespace);
  const { size } = await stat(stage.controlPlane.auditLogPath ?? '');
  return { rows: objectsOf(rows), reporterOf: reportersOf(rows), auditBytes: size, ...streamCounts(stage) };
}

/**
 * Waits until the rows are what the fleets hold. A row of `before` whose tunnel is still held must be the same object.
 *
 * @throws Error with the first difference at the deadline
 */
export async function converged(stage: Stage, before: Before, deadlineMs: number): Promise<After> {
  const { request } = stage.controlPlane;
  const startedMs = performance.now();
  for (;;) {
    const tookMs = performance.now() - startedMs;
    let wrong = '';
    try {
      let size = 0;
      for (const tunnels of stage.truth().values()) size += tunnels.size;
      const count = await countRows(request, stage.namespace);
      wrong = `${count} rows for ${size} tunnels`;
      if (count === size || tookMs > deadlineMs) {
        const rows = await listRows(request, stage.namespace);
        const verdict = judge(stage, rows);
        if (verdict.missing + verdict.extra + verdict.wrong === 0) {
          return { rows, tookMs, replaced: replacedRows(before, rows) };
        }
        wrong = JSON.stringify(verdict);
      }
    } catch (error) {
      // The API server may still be on its way up.
      wrong = (error as Error).message;
    }
    if (tookMs > deadlineMs)
      throw new Error(`rows are not the truth after ${seconds(deadlineMs)} s: ${wrong}`);
    await delay(POLL_MS);
  }
}

/** Writes by operators since then, that were carried out: rows by verb, `status` of rows, and of reporters' objects. */
export interface Writes {
  readonly create: number;
  readonly patch: number;
  readonly delete: number;
  readonly status: number;
  readonly reporters: number;
}

/** Counts them by kind, from the audit log. */
export async function writesSince(stage: Stage, before: Before): Promise<Writes> {
  const counts = { create: 0, patch: 0, delete: 0, status: 0, reporters: 0 };
  for await (const { verb, resource, subresource } of operatorWrites(stage, before)) {
    if (resource === 'reversetunnelreporters') counts.reporters += 1;
    else if (subresource === 'status') counts.status += 1;
    else counts[verb] += 1;
  }
  return counts;
}

/** Reporters of whose rows a replica wrote one after another replica had: two owners at a time. */
export async function interleaved(stage: Stage, before: Before, after: After): Promise<number> {
  const reporterOf = new Map([...before.reporterOf, ...reportersOf(after.rows)]);
  const writers = new Map<string, string[]>();
  const mixed = new Set<string>();
  for await (const { resource, name, account } of operatorWrites(stage, before)) {
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
async function* operatorWrites(stage: Stage, { auditBytes }: Before): AsyncGenerator<OperatorWrite> {
  const audit = await open(stage.controlPlane.auditLogPath ?? '');
  try {
    for await (const line of audit.readLines({ start: auditBytes })) {
      if (!line.includes(`"namespace":"${stage.namespace}"`)) continue;
      const event = parsed(line);
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
export function rowWritesOf(writes: Writes): number {
  return writes.create + writes.patch + writes.delete + writes.status;
}

/** Waits until everything that the fleets hold is a row and every reporter is in sync, before anything is done to them. */
export async function allThere(stage: Stage, deadlineMs: number): Promise<void> {
  await stage.fleet.settled();
  await converged(stage, NOTHING, deadlineMs);
  await served(stage, deadlineMs);
}

const NOTHING: Before = { rows: new Map(), reporterOf: new Map(), auditBytes: 0, disconnects: 0, acks: 0 };

/** Waits until all reporters are connected, in sync and owned by a replica that runs; gives how long it took, ms. */
export async function served(stage: Stage, deadlineMs: number): Promise<number> {
  const startedMs = performance.now();
  await stage.replicas.served(stage.reporterCount(), deadlineMs);
  return performance.now() - startedMs;
}

/** Waits until all reporters are connected to a replica that runs and owns them; their rows may still be written. */
export async function owned(stage: Stage, deadlineMs: number): Promise<void> {
  const untilMs = performance.now() + deadlineMs;
  for (;;) {
    const owners = new Set(stage.replicas.running.map(({ process: operator }) => operator.replica));
    const shown = await stage.replicas.reporters();
    const left = shown.filter(
      ({ status }) =>
        !owners.has(status.owner?.replica ?? '') || !condition(status, 'Connected').startsWith('True'),
    );
    if (left.length === 0 && shown.length === stage.reporterCount()) return;
    if (performance.now() > untilMs) throw new Error(`${left.length} reporters are not served`);
    await delay(100);
  }
}

/** Replicas that have ended by themselves, said something on stderr, or found a fault of their own. */
export function crashes(replicas: readonly RunningReplica[]): number {
  let count = 0;
  for (const { process: operator } of replicas) {
    const strange = operator.stderr.split('\n').some((line) => line !== '' && !NODE_SAYS.test(line));
    const own = operator.log.some(({ msg }) => msg.startsWith('unexpected error'));
    if (strange || own || !runs(operator.pid)) count += 1;
  }
  return count;
}

/** Streams that ended, and ACKs, over all reporters of the first fleet. */
export function streamCounts(stage: Stage): { readonly disconnects: number; readonly acks: number } {
  const { disconnects, acks } = stage.fleet.statistics();
  return { disconnects: Object.values(disconnects).reduce((sum, times) => sum + times, 0), acks };
}

/** What every fault is judged by: the truth in time, the same objects, and nobody crashed. */
export function common(stage: Stage, after: After, atMostSeconds: number): Figure[] {
  return [
    { what: 'converged', value: after.tookMs / 1000, unit: 's', atMost: atMostSeconds },
    { what: 'surviving rows replaced', value: after.replaced, atMost: 0 },
    { what: 'crashes', value: crashes(stage.replicas.running), atMost: 0 },
  ];
}

/** Where a row belongs: reporter and tunnel. */
export function placeOf({ spec }: RowSeen): string {
  return JSON.stringify([spec.reporter.cluster, spec.reporter.id, spec.tunnelName]);
}

function objectsOf(rows: readonly RowSeen[]): Map<string, string> {
  return new Map(rows.map((row) => [placeOf(row), `${row.metadata.uid} ${row.metadata.creationTimestamp}`]));
}

function reportersOf(rows: readonly RowSeen[]): Map<string, string> {
  return new Map(
    rows.map(({ metadata, spec }) => [
      metadata.name,
      JSON.stringify([spec.reporter.cluster, spec.reporter.id]),
    ]),
  );
}

function replacedRows(before: Before, rows: readonly RowSeen[]): number {
  let replaced = 0;
  for (const [place, object] of objectsOf(rows)) {
    const was = before.rows.get(place);
    if (was !== undefined && was !== object) replaced += 1;
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
function parsed(line: string): AuditLine | undefined {
  try {
    return JSON.parse(line) as AuditLine;
  } catch {
    return undefined;
  }
}

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

function seconds(ms: number): number {
  return Math.round(ms / 1000);
}
