/** Counts what was written to rows, by the API server's own audit log: whoever did it, and whatever they say of it. */
import { createReadStream } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const CHUNK_BYTES = 1024 * 1024;
const POLL_INTERVAL_MS = 25;
/** Longer than the API server lets any write take. */
const COMPLETION_TIMEOUT_MS = 90_000;

/** Row writes that the API server saw, by verb. */
export interface TunnelWriteCounts {
  readonly create: number;
  readonly patch: number;
  readonly delete: number;
  readonly status: number;
  /** Attempts that were refused or conflicted; not in the counts above. */
  readonly failed: number;
}

interface AuditEvent {
  readonly auditID: string;
  readonly stage: 'RequestReceived' | 'ResponseStarted' | 'ResponseComplete' | 'Panic';
  readonly verb: string;
  readonly user: { readonly username: string };
  readonly requestReceivedTimestamp: string;
  readonly objectRef?: {
    readonly resource: string;
    readonly name?: string;
    readonly namespace?: string;
    readonly subresource?: string;
    readonly apiGroup?: string;
  };
  readonly requestURI: string;
  readonly responseStatus?: { readonly code: number };
}

/** Writes to rows of a namespace by ServiceAccounts; those of the administrator (a person with kubectl) do not count. */
export async function countTunnelWrites(auditLogPath: string, namespace: string): Promise<TunnelWriteCounts> {
  const counts = { create: 0, patch: 0, delete: 0, status: 0, failed: 0 };
  for (const event of await readCompletedEvents(auditLogPath, `"namespace":"${namespace}"`)) {
    const { objectRef, verb } = event;
    if (event.stage !== 'ResponseComplete' || objectRef?.resource !== 'reversetunnels') continue;
    if (objectRef.namespace !== namespace || !event.user.username.startsWith('system:serviceaccount:'))
      continue;
    if (verb !== 'create' && verb !== 'patch' && verb !== 'delete' && verb !== 'update') continue;
    if ((event.responseStatus?.code ?? 0) >= 300) counts.failed += 1;
    else if (objectRef.subresource === 'status') counts.status += 1;
    else counts[verb === 'update' ? 'patch' : verb] += 1;
  }
  return counts;
}

/** What was written between two counts. */
export function writesBetween(before: TunnelWriteCounts, after: TunnelWriteCounts): TunnelWriteCounts {
  return {
    create: after.create - before.create,
    patch: after.patch - before.patch,
    delete: after.delete - before.delete,
    status: after.status - before.status,
    failed: after.failed - before.failed,
  };
}

/** One write by a ServiceAccount that was carried out. */
export interface Write {
  /** When the API server received it, ms since 1970. */
  readonly atMs: number;
  readonly verb: string;
  /** As in `reversetunnels` or `reversetunnelreporters/status`. */
  readonly resource: string;
  readonly name: string;
  /** Name of the ServiceAccount. */
  readonly account: string;
}

/** Every write to the namespace's rows, reporters and Leases by ServiceAccounts, in the order of the log. */
export async function listWrites(auditLogPath: string, namespace: string): Promise<Write[]> {
  const writes: Write[] = [];
  for (const event of await readCompletedEvents(auditLogPath, `"namespace":"${namespace}"`)) {
    const { objectRef, verb, stage, user, responseStatus } = event;
    if (stage !== 'ResponseComplete' || objectRef?.namespace !== namespace) continue;
    if (!['create', 'patch', 'delete'].includes(verb) || (responseStatus?.code ?? 0) >= 300) continue;
    const account = /^system:serviceaccount:[^:]+:(.+)$/.exec(user.username)?.[1];
    if (account === undefined) continue;
    const subresource = objectRef.subresource === undefined ? '' : `/${objectRef.subresource}`;
    writes.push({
      atMs: Date.parse(event.requestReceivedTimestamp),
      verb,
      resource: `${objectRef.resource}${subresource}`,
      name: objectRef.name ?? '',
      account,
    });
  }
  return writes;
}

/** One call by a ServiceAccount. */
export interface Call {
  /** As RBAC names them: `create tokenreviews.authentication.k8s.io`, `patch reversetunnels/status.reverse-tunnel.io`; or `get /path`. */
  readonly permission: string;
  readonly code: number;
}

/** Every call by the ServiceAccounts of the namespace, whatever it was for. A watch is there once it is open. */
export async function listCalls(auditLogPath: string, namespace: string): Promise<Call[]> {
  const calls: Call[] = [];
  for (const event of await readCompletedEvents(
    auditLogPath,
    `"username":"system:serviceaccount:${namespace}:`,
  )) {
    const { objectRef, verb, requestURI, responseStatus, stage } = event;
    if (stage === 'RequestReceived') continue;
    const subresource = objectRef?.subresource === undefined ? '' : `/${objectRef.subresource}`;
    const what =
      objectRef === undefined
        ? requestURI
        : `${objectRef.resource}${subresource}.${objectRef.apiGroup ?? ''}`;
    calls.push({ permission: `${verb} ${what}`, code: responseStatus?.code ?? 0 });
  }
  return calls;
}

/**
 * Events whose line has the text, in the order of the log. A row shows before the API server has logged that it is made: what
 * was begun when this is called is waited for, so that all that could be seen by then is there.
 */
async function readCompletedEvents(auditLogPath: string, text: string): Promise<AuditEvent[]> {
  const untilMs = performance.now() + COMPLETION_TIMEOUT_MS;
  let pendingIds: Set<string> | undefined;
  for (;;) {
    const events = await readEvents(auditLogPath, text);
    pendingIds ??= new Set(
      events.filter(({ stage }) => stage === 'RequestReceived').map(({ auditID }) => auditID),
    );
    for (const { stage, auditID } of events) {
      if (stage === 'ResponseComplete' || stage === 'Panic') pendingIds.delete(auditID);
    }
    if (pendingIds.size === 0) return events;
    if (performance.now() > untilMs)
      throw new Error(
        `${pendingIds.size} writes were begun and not completed within ${COMPLETION_TIMEOUT_MS} ms`,
      );
    await delay(POLL_INTERVAL_MS);
  }
}

/** Looks for the text in bytes, as most of a log is other tests' and making lines of that takes seconds. */
async function readEvents(auditLogPath: string, text: string): Promise<AuditEvent[]> {
  const events: AuditEvent[] = [];
  let remainder: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(auditLogPath, { highWaterMark: CHUNK_BYTES })) {
    const bytes = Buffer.concat([remainder, chunk as Buffer]);
    // A line that is not whole yet is for the next chunk, or the next time.
    const end = bytes.lastIndexOf('\n') + 1;
    const lines = bytes.subarray(0, end);
    for (let at = lines.indexOf(text); at !== -1;) {
      const to = lines.indexOf('\n', at);
      const line = lines.toString('utf8', lines.lastIndexOf('\n', at) + 1, to);
      events.push(JSON.parse(line) as AuditEvent);
      at = lines.indexOf(text, to);
    }
    remainder = bytes.subarray(end);
  }
  return events;
}
