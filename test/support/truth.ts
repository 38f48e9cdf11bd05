/**
 * The judge: are the rows in the API what the fleet holds? It reads rows by plain HTTPS as the administrator, and
 * compares with the fleet's own registry, so it shares nothing with the operator that it judges.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { AdminRequest } from '../../control-plane/service-account.ts';
import type { Fleet } from '../../src/simulate/fleet.ts';

const PAGE = 5000;
const POLL_MS = 200;

/** A row, as the API server shows it. */
export interface RowSeen {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly creationTimestamp: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  readonly spec: {
    readonly tunnelName: string;
    readonly tenantID: string;
    readonly clusterID: string;
    readonly nodeID: string;
    readonly createdAt?: string;
    readonly reporter: { readonly id: string; readonly cluster: string };
  };
  readonly status: {
    readonly state: string;
    readonly conditions: readonly { readonly type: string; readonly status: string }[];
  };
}

/** Every row of a namespace. */
export async function listRows(request: AdminRequest, namespace: string): Promise<RowSeen[]> {
  const rows: RowSeen[] = [];
  let token = '';
  do {
    const query = `limit=${PAGE}${token === '' ? '' : `&continue=${encodeURIComponent(token)}`}`;
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels?${query}`;
    const { status, body } = await request('GET', path);
    if (status !== 200) throw new Error(`listing rows: ${status} ${JSON.stringify(body)}`);
    const page = body as { items: RowSeen[]; metadata: { continue?: string } };
    rows.push(...page.items);
    token = page.metadata.continue ?? '';
  } while (token !== '');
  return rows;
}

/** The number of rows of a namespace, without reading them. */
export async function countRows(request: AdminRequest, namespace: string): Promise<number> {
  const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels?limit=1`;
  const { status, body } = await request('GET', path);
  if (status !== 200) throw new Error(`counting rows: ${status} ${JSON.stringify(body)}`);
  const page = body as { items: unknown[]; metadata: { remainingItemCount?: number } };
  return page.items.length + (page.metadata.remainingItemCount ?? 0);
}

function truthSize(fleet: Pick<Fleet, 'truth'>): number {
  let size = 0;
  for (const tunnels of fleet.truth().values()) size += tunnels.size;
  return size;
}

/** How rows and truth differ; all three are 0 when they are equal. */
export interface Verdict {
  readonly tunnels: number;
  readonly rows: number;
  /** Tunnels without a row. */
  readonly missing: number;
  /** Rows without a tunnel, and second rows of one. */
  readonly extra: number;
  /** Rows that say something else of their tunnel, or are not Connected and Ready. */
  readonly wrong: number;
  /** The first difference, for a person. */
  readonly first: string | undefined;
}

/** Compares rows with what a fleet holds. */
export function judge(fleet: Pick<Fleet, 'truth'>, rows: readonly RowSeen[]): Verdict {
  const expected = new Map<string, string>();
  for (const [reporter, tunnels] of fleet.truth()) {
    for (const [name, { tenantID, clusterID, nodeID, createdAt }] of tunnels) {
      const micros = String(createdAt.nanos / 1000).padStart(6, '0');
      expected.set(
        JSON.stringify([reporter.cluster, reporter.id, name]),
        JSON.stringify([tenantID, clusterID, nodeID, createdAt.seconds, micros]),
      );
    }
  }
  const tunnels = expected.size;
  let extra = 0;
  let wrong = 0;
  let first: string | undefined;
  for (const row of rows) {
    const place = JSON.stringify([row.spec.reporter.cluster, row.spec.reporter.id, row.spec.tunnelName]);
    const is = expected.get(place);
    expected.delete(place);
    if (is === undefined) {
      extra += 1;
      first ??= `extra ${row.metadata.name} ${place}`;
    } else if (is !== said(row) || !ready(row)) {
      wrong += 1;
      first ??= `wrong ${row.metadata.name} ${place}: is ${said(row)} ${JSON.stringify(row.status)}, should be ${is}`;
    }
  }
  for (const place of expected.keys()) first ??= `missing ${place}`;
  return { tunnels, rows: rows.length, missing: expected.size, extra, wrong, first };
}

/** Waits until rows and truth are equal, and gives the rows; throws with the difference at the deadline. */
export async function untilEqual(
  fleet: Pick<Fleet, 'truth'>,
  request: AdminRequest,
  namespace: string,
  deadlineMs: number,
): Promise<RowSeen[]> {
  const untilMs = performance.now() + deadlineMs;
  for (;;) {
    // Listing 100,000 rows again and again would be most of what the API server does.
    const late = performance.now() > untilMs;
    if (!late && (await countRows(request, namespace)) !== truthSize(fleet)) {
      await delay(POLL_MS);
      continue;
    }
    const rows = await listRows(request, namespace);
    const verdict = judge(fleet, rows);
    if (verdict.missing + verdict.extra + verdict.wrong === 0) return rows;
    if (late) {
      throw new Error(`rows are not what the fleet holds after ${deadlineMs} ms: ${JSON.stringify(verdict)}`);
    }
    await delay(POLL_MS);
  }
}

function said({ spec }: RowSeen): string {
  const [, toTheSecond = '', fraction = ''] = /^(.{19})(?:\.(\d+))?Z$/.exec(spec.createdAt ?? '') ?? [];
  const seconds = Date.parse(`${toTheSecond}Z`) / 1000;
  const micros = fraction.padEnd(9, '0').slice(0, 6);
  return JSON.stringify([spec.tenantID, spec.clusterID, spec.nodeID, seconds, micros]);
}

function ready({ status }: RowSeen): boolean {
  return (
    status.state === 'Connected' &&
    status.conditions.some(({ type, status: is }) => type === 'Ready' && is === 'True')
  );
}
