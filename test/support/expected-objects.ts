/**
 * Compares the objects in the API with the tunnels of a fleet. It reads the objects over plain HTTPS as the
 * administrator and the tunnels from the fleet's own registry, so it shares no code with the operator under test.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { AdminRequest } from '../../control-plane/service-account.ts';
import type { Fleet } from '../../src/simulate/fleet.ts';

const PAGE_SIZE = 5000;
const POLL_INTERVAL_MS = 200;

/** A ReverseTunnel object as returned by the API server. */
export interface ObservedTunnelObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly creationTimestamp: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
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
    if (status !== 200) throw new Error(`list objects: ${status} ${JSON.stringify(body)}`);
    const page = body as { items: ObservedTunnelObject[]; metadata: { continue?: string } };
    objects.push(...page.items);
    token = page.metadata.continue ?? '';
  } while (token !== '');
  return objects;
}

/** Counts the objects of a namespace without reading them. */
export async function countTunnelObjects(request: AdminRequest, namespace: string): Promise<number> {
  const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels?limit=1`;
  const { status, body } = await request('GET', path);
  if (status !== 200) throw new Error(`count objects: ${status} ${JSON.stringify(body)}`);
  const page = body as { items: unknown[]; metadata: { remainingItemCount?: number } };
  return page.items.length + (page.metadata.remainingItemCount ?? 0);
}

function expectedCount(fleet: Pick<Fleet, 'expectedTunnels'>): number {
  let size = 0;
  for (const tunnels of fleet.expectedTunnels().values()) size += tunnels.size;
  return size;
}

/** Differences between objects and tunnels. They match when `missing`, `extra` and `mismatched` are 0. */
export interface Comparison {
  readonly tunnels: number;
  readonly objects: number;
  /** Number of tunnels without an object. */
  readonly missing: number;
  /** Number of objects without a tunnel and of duplicates. */
  readonly extra: number;
  /** Number of objects whose content differs from their tunnel, or which are not Connected and Ready. */
  readonly mismatched: number;
  readonly firstDifference: string | undefined;
}

export function compareWithExpected(
  fleet: Pick<Fleet, 'expectedTunnels'>,
  objects: readonly ObservedTunnelObject[],
): Comparison {
  const expected = new Map<string, string>();
  for (const [reporter, tunnels] of fleet.expectedTunnels()) {
    for (const [name, { tenantID, clusterID, nodeID, createdAt }] of tunnels) {
      const micros = String((createdAt?.nanos ?? 0) / 1000).padStart(6, '0');
      expected.set(
        JSON.stringify([reporter.cluster, reporter.id, name]),
        JSON.stringify([tenantID, clusterID, nodeID, createdAt?.seconds, micros]),
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
      firstDifference ??= `mismatched ${object.metadata.name} ${key}: is ${objectText(object)} ${JSON.stringify(object.status)}, expected ${expectedText}`;
    }
  }
  for (const key of expected.keys()) firstDifference ??= `missing ${key}`;
  return { tunnels, objects: objects.length, missing: expected.size, extra, mismatched, firstDifference };
}

/** Waits until objects and tunnels match and returns the objects; rejects with the differences at the deadline. */
export async function waitForMatch(
  fleet: Pick<Fleet, 'expectedTunnels'>,
  request: AdminRequest,
  namespace: string,
  deadlineMs: number,
): Promise<ObservedTunnelObject[]> {
  return (await measureMatch(fleet, request, namespace, deadlineMs)).objects;
}

/** Like `waitForMatch`, with the time until they matched. The API server may be unavailable in the meantime. */
export async function measureMatch(
  fleet: Pick<Fleet, 'expectedTunnels'>,
  request: AdminRequest,
  namespace: string,
  deadlineMs: number,
): Promise<{ readonly objects: ObservedTunnelObject[]; readonly durationMs: number }> {
  const startedMs = performance.now();
  for (;;) {
    const durationMs = performance.now() - startedMs;
    const isLate = durationMs > deadlineMs;
    try {
      // Listing 100,000 objects repeatedly would take most of the API server's time.
      if (isLate || (await countTunnelObjects(request, namespace)) === expectedCount(fleet)) {
        const objects = await listTunnelObjects(request, namespace);
        const comparison = compareWithExpected(fleet, objects);
        const { missing, extra, mismatched } = comparison;
        if (missing + extra + mismatched === 0) return { objects, durationMs };
        if (isLate) throw new Error(JSON.stringify(comparison));
      }
    } catch (error) {
      if (isLate) throw new Error(`objects do not match the fleet after ${deadlineMs} ms`, { cause: error });
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
