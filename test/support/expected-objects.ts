/**
 * The judge: are the rows in the API what the fleet holds? It reads rows by plain HTTPS as the administrator, and
 * compares with the fleet's own registry, so it shares nothing with the operator that it judges.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { AdminRequest } from '../../control-plane/service-account.ts';
import type { Fleet } from '../../src/simulate/fleet.ts';

const PAGE_SIZE = 5000;
const POLL_INTERVAL_MS = 200;

/** A row, as the API server shows it. */
export interface ObservedTunnelObject {
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
export async function listTunnelObjects(
  request: AdminRequest,
  namespace: string,
): Promise<ObservedTunnelObject[]> {
  const objects: ObservedTunnelObject[] = [];
  let token = '';
  do {
    const query = `limit=${PAGE_SIZE}${token === '' ? '' : `&continue=${encodeURIComponent(token)}`}`;
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels?${query}`;
    const { status, body } = await request('GET', path);
    if (status !== 200) throw new Error(`listing rows: ${status} ${JSON.stringify(body)}`);
    const page = body as { items: ObservedTunnelObject[]; metadata: { continue?: string } };
    objects.push(...page.items);
    token = page.metadata.continue ?? '';
  } while (token !== '');
  return objects;
}

/** The number of rows of a namespace, without reading them. */
export async function countTunnelObjects(request: AdminRequest, namespace: string): Promise<number> {
  const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels?limit=1`;
  const { status, body } = await request('GET', path);
  if (status !== 200) throw new Error(`counting rows: ${status} ${JSON.stringify(body)}`);
  const page = body as { items: unknown[]; metadata: { remainingItemCount?: number } };
  return page.items.length + (page.metadata.remainingItemCount ?? 0);
}

function expectedCount(fleet: Pick<Fleet, 'expectedTunnels'>): number {
  let size = 0;
  for (const tunnels of fleet.expectedTunnels().values()) size += tunnels.size;
  return size;
}

/** How rows and truth differ; all three are 0 when they are equal. */
export interface Comparison {
  readonly tunnels: number;
  readonly objects: number;
  /** Tunnels without a row. */
  readonly missing: number;
  /** Rows without a tunnel, and second rows of one. */
  readonly extra: number;
  /** Rows that say something else of their tunnel, or are not Connected and Ready. */
  readonly mismatched: number;
  /** The first difference, for a person. */
  readonly firstDifference: string | undefined;
}

/** Compares rows with what a fleet holds. */
export function compareWithExpected(
  fleet: Pick<Fleet, 'expectedTunnels'>,
  objects: readonly ObservedTunnelObject[],
): Comparison {
  const expected = new Map<string, string>();
  for (const [reporter, tunnels] of fleet.expectedTunnels()) {
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
  let mismatched = 0;
  let firstDifference: string | undefined;
  for (const object of objects) {
    const key = JSON.stringify([
      object.spec.reporter.cluster,
      object.spec.reporter.id,
      object.spec.tunnelName,
    ]);
    const expectedText = expected.get(key);
    expected.delete(key);
    if (expectedText === undefined) {
      extra += 1;
      firstDifference ??= `extra ${object.metadata.name} ${key}`;
    } else if (expectedText !== objectText(object) || !isReady(object)) {
      mismatched += 1;
      firstDifference ??= `wrong ${object.metadata.name} ${key}: is ${objectText(object)} ${JSON.stringify(object.status)}, should be ${expectedText}`;
    }
  }
  for (const key of expected.keys()) firstDifference ??= `missing ${key}`;
  return { tunnels, objects: objects.length, missing: expected.size, extra, mismatched, firstDifference };
}

/** Waits until rows and truth are equal, and gives the rows; throws with the difference at the deadline. */
export async function waitForMatch(
  fleet: Pick<Fleet, 'expectedTunnels'>,
  request: AdminRequest,
  namespace: string,
  deadlineMs: number,
): Promise<ObservedTunnelObject[]> {
  const untilMs = performance.now() + deadlineMs;
  for (;;) {
    // Listing 100,000 rows again and again would be most of what the API server does.
    const isLate = performance.now() > untilMs;
    if (!isLate && (await countTunnelObjects(request, namespace)) !== expectedCount(fleet)) {
      await delay(POLL_INTERVAL_MS);
      continue;
    }
    const objects = await listTunnelObjects(request, namespace);
    const comparison = compareWithExpected(fleet, objects);
    if (comparison.missing + comparison.extra + comparison.mismatched === 0) return objects;
    if (isLate) {
      throw new Error(
        `rows are not what the fleet holds after ${deadlineMs} ms: ${JSON.stringify(comparison)}`,
      );
    }
    await delay(POLL_INTERVAL_MS);
  }
}

function objectText({ spec }: ObservedTunnelObject): string {
  const [, toTheSecond = '', fraction = ''] = /^(.{19})(?:\.(\d+))?Z$/.exec(spec.createdAt ?? '') ?? [];
  const seconds = Date.parse(`${toTheSecond}Z`) / 1000;
  const micros = fraction.padEnd(9, '0').slice(0, 6);
  return JSON.stringify([spec.tenantID, spec.clusterID, spec.nodeID, seconds, micros]);
}

function isReady({ status }: ObservedTunnelObject): boolean {
  return (
    status.state === 'Connected' &&
    status.conditions.some(({ type, status: is }) => type === 'Ready' && is === 'True')
  );
}
