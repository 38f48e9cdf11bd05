/** Writes and calls as recorded by the API server's audit log, independent of what the clients report. */
import { createReadStream } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

const CHUNK_BYTES = 1024 * 1024;
const POLL_INTERVAL_MS = 25;
/** Longer than the API server's timeout of any write. */
const COMPLETION_TIMEOUT_MS = 90_000;

/** Object writes by verb. Rejected and conflicting attempts (`failed`) are not included in the other counts. */
export type TunnelWriteCounts = Record<'create' | 'patch' | 'delete' | 'status' | 'failed', number>;

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

/**
 * Counts the object writes of a namespace by ServiceAccounts; those of the administrator (a user with kubectl) are
 * not counted.
 *
 * @param resource plural of the kind that is counted
 */
export async function countTunnelWrites(
  auditLogPath: string,
  namespace: string,
  resource: 'reversetunnels' | 'reversetunnelslices' = 'reversetunnels',
): Promise<TunnelWriteCounts> {
  const counts = { create: 0, patch: 0, delete: 0, status: 0, failed: 0 };
  for (const event of await readCompletedEvents(auditLogPath, `"namespace":"${namespace}"`)) {
    const { objectRef, verb } = event;
    if (event.stage !== 'ResponseComplete' || objectRef?.resource !== resource) continue;
    if (objectRef.namespace !== namespace || !event.user.username.startsWith('system:serviceaccount:'))
      continue;
    if (verb !== 'create' && verb !== 'patch' && verb !== 'delete' && verb !== 'update') continue;
    if ((event.responseStatus?.code ?? 0) >= 300) counts.failed += 1;
    else if (objectRef.subresource === 'status') counts.status += 1;
    else counts[verb === 'update' ? 'patch' : verb] += 1;
  }
  return counts;
}

export function writesBetween(before: TunnelWriteCounts, after: TunnelWriteCounts): TunnelWriteCounts {
  const counts = { ...after };
  for (const verb of ['create', 'patch', 'delete', 'status', 'failed'] as const) counts[verb] -= before[verb];
  return counts;
}

export interface Write {
  /** When the API server received the write, ms since 1970. */
  readonly atMs: number;
  readonly verb: string;
  /** For example `reversetunnels` or `reversetunnelreporters/status`. */
  readonly resource: string;
  readonly name: string;
  readonly account: string;
}

/**
 * Lists the successful writes to objects, reporter objects and Leases of a namespace by ServiceAccounts, in the
 * order of the log.
 */
export async function listWrites(auditLogPath: string, namespace: string): Promise<Write[]> {
  return writesOf(await readCompletedEvents(auditLogPath, `"namespace":"${namespace}"`), namespace);
}

/**
 * Lists writes like `listWrites`, starting at a position in the log, without waiting for pending requests: a killed API
 * server never completes them.
 */
export async function listWritesSince(
  auditLogPath: string,
  namespace: string,
  fromByte: number,
): Promise<Write[]> {
  return writesOf(await readEvents(auditLogPath, `"namespace":"${namespace}"`, fromByte), namespace);
}

function writesOf(events: readonly AuditEvent[], namespace: string): Write[] {
  const writes: Write[] = [];
  for (const event of events) {
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

export interface Call {
  /**
   * In RBAC terms: `create tokenreviews.authentication.k8s.io`, `patch reversetunnels/status.reverse-tunnel.io`; or
   * `get /path`.
   */
  readonly permission: string;
  readonly code: number;
}

/** Lists all calls by the ServiceAccounts of a namespace. A watch is included once it is open. */
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
 * Returns the events whose line contains a text, in the order of the log. An object is visible before the API
 * server has logged that its creation is complete, so this waits for the completion of everything that had been
 * started at the time of the call.
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
        `${pendingIds.size} writes were started and not completed within ${COMPLETION_TIMEOUT_MS} ms`,
      );
    await delay(POLL_INTERVAL_MS);
  }
}

/** Searches bytes, because most of the log belongs to other tests and decoding all lines would take seconds. */
async function readEvents(auditLogPath: string, text: string, start = 0): Promise<AuditEvent[]> {
  const events: AuditEvent[] = [];
  let remainder: Buffer = Buffer.alloc(0);
  for await (const chunk of createReadStream(auditLogPath, { start, highWaterMark: CHUNK_BYTES })) {
    const bytes = Buffer.concat([remainder, chunk as Buffer]);
    // An incomplete line is kept for the next chunk or the next call.
    const end = bytes.lastIndexOf('\n') + 1;
    const lines = bytes.subarray(0, end);
    for (let at = lines.indexOf(text); at !== -1;) {
      const to = lines.indexOf('\n', at);
      const line = lines.toString('utf8', lines.lastIndexOf('\n', at) + 1, to);
      events.push(...parseEvent(line));
      at = lines.indexOf(text, to);
    }
    remainder = bytes.subarray(end);
  }
  return events;
}

/** Returns nothing for a partial line, which a killed API server may leave. */
function parseEvent(line: string): AuditEvent[] {
  try {
    return [JSON.parse(line) as AuditEvent];
  } catch {
    return [];
  }
}
