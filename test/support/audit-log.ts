/** Counts what was written to rows, by the API server's own audit log: whoever did it, and whatever they say of it. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';

export interface RowWrites {
  readonly create: number;
  readonly patch: number;
  readonly delete: number;
  readonly status: number;
  /** Attempts that were refused or conflicted; not in the counts above. */
  readonly failed: number;
}

interface AuditEvent {
  readonly stage: string;
  readonly verb: string;
  readonly user: { readonly username: string };
  readonly objectRef?: {
    readonly resource: string;
    readonly namespace?: string;
    readonly subresource?: string;
  };
  readonly responseStatus?: { readonly code: number };
}

/** Writes to rows of a namespace by ServiceAccounts; those of the administrator (a person with kubectl) do not count. */
export async function rowWrites(auditLogPath: string, namespace: string): Promise<RowWrites> {
  const counts = { create: 0, patch: 0, delete: 0, status: 0, failed: 0 };
  for await (const line of createInterface({ input: createReadStream(auditLogPath) })) {
    if (!line.includes(`"namespace":"${namespace}"`)) continue;
    const event = JSON.parse(line) as AuditEvent;
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
export function since(before: RowWrites, after: RowWrites): RowWrites {
  return {
    create: after.create - before.create,
    patch: after.patch - before.patch,
    delete: after.delete - before.delete,
    status: after.status - before.status,
    failed: after.failed - before.failed,
  };
}
