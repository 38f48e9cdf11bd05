import { rowPlace, type RowObject } from '../../../src/core/row.ts';
import type { Owner } from '../../../src/core/reporter-object.ts';
import { reporterKey, type ReporterId } from '../../../src/core/tunnel.ts';
import type { SentCall } from './api-link.ts';
import type { ApiChange } from './api-objects.ts';
import type { SimProcess } from './process.ts';
import { EXPIRE_AFTER_MS, names } from './replica-process.ts';
import type { World } from './world.ts';

/** Rows whose reporter's object is missing go after a minute. */
const ORPHAN_EXPIRE_AFTER_MS = 60_000;
/** A deletion that was decided rightly may land so much later: a fresh read, a slow way, and a claim that waits for its turn. */
const LATE_MS = 30_000;
/** How long a former owner may not know what it is not any more: a silent watch, and the list after it. */
const UNAWARE_MS = 130_000;

/** Looks at everything that happens, and notes what must not. */
export interface Watchdog {
  /** What was wrong, in the order of time. */
  readonly wrongs: string[];
  /** A call leaves a process. */
  sent(process: SimProcess, call: SentCall): void;
  /** The store has changed. */
  changed(change: ApiChange): void;
  /** A process has read and folded a report of a reporter. */
  reportRead(reporter: ReporterId, process: SimProcess): void;
  /** Two Envoys have had this reporter's id: what either held may go. */
  twinned(key: string): void;
  /** etcd was restored: what the store says of owners is another. */
  restored(): void;
}

interface Served {
  lastMs: number;
  /** When the report was sent that was read then. */
  lastSentMs: number;
  /** When it was served again after it had been without for long enough to expire. */
  returnedMs: number;
}

/**
 * What must hold at every moment:
 * - every patch is sent for a version, every deletion for a uid and a version;
 * - a process writes rows only of reporters that its own claim has taken before, and not long after it lost them;
 * - no replica deletes the row of a tunnel that has been up ever since it was reported before the row was made, unless its reporter was served by
 *   nobody for as long as a lost reporter is given.
 */
export function createWatchdog(world: World): Watchdog {
  const wrongs: string[] = [];
  const served = new Map<string, Served>();
  const twins = new Set<string>();
  /** Reporters whose object was taken away by somebody else. */
  const orphaned = new Set<string>();
  /** When each process last was the owner of a reporter, as the store has it; now, if it is. */
  const owners = new Map<string, Map<string, number>>();
  const current = new Map<string, string | undefined>();
  const rowsMadeMs = new Map<string, number>();

  function wrong(text: string): void {
    wrongs.push(`${(world.time.nowMs / 1000).toFixed(3)} s: ${text}`);
    world.tell(() => `WRONG: ${text}`);
  }

  function silentMs(key: string): number {
    return world.time.nowMs - (served.get(key)?.lastMs ?? Number.NEGATIVE_INFINITY);
  }

  function limitMs(key: string): number {
    return (orphaned.has(key) ? ORPHAN_EXPIRE_AFTER_MS : EXPIRE_AFTER_MS) - 1000;
  }

  function reporterChanged({ type, object, by }: ApiChange): void {
    const { id, cluster } = object.spec as unknown as ReporterId;
    const key = reporterKey({ id, cluster });
    const owner = type === 'DELETED' ? undefined : (object.status?.['owner'] as Owner | undefined)?.replica;
    owned(key, owner);
    if (type === 'DELETED' && (by === 'hand' || by === 'server')) orphaned.add(key);
  }

  function owned(key: string, owner: string | undefined): void {
    const before = current.get(key);
    const byReplica = owners.get(key) ?? new Map<string, number>();
    owners.set(key, byReplica);
    if (before !== undefined) byReplica.set(before, world.time.nowMs);
    if (owner !== undefined) byReplica.set(owner, Number.POSITIVE_INFINITY);
    current.set(key, owner);
  }

  function rowDeleted({ before, by }: ApiChange): void {
    const row = before as unknown as RowObject;
    const { reporter, key, tunnelName } = rowPlace(row);
    if (by === 'hand' || by === 'server' || twins.has(key)) return;
    const envoy = world.envoys.find((one) => one.key === key);
    const tunnel = envoy?.tunnels().get(tunnelName);
    const madeMs = rowsMadeMs.get(row.metadata.uid) ?? world.time.nowMs;
    const { lastSentMs = Number.NEGATIVE_INFINITY } = served.get(key) ?? {};
    if (tunnel?.reportedMs === undefined || tunnel.reportedMs > Math.min(madeMs, lastSentMs)) return;
    if (row.metadata.name !== names.rowName(reporter, { ...tunnel, createdAt: undefined })) return;
    if (tunnel.tenantID !== row.spec.tenantID) return;
    const returnedMs = served.get(key)?.returnedMs ?? Number.NEGATIVE_INFINITY;
    if (silentMs(key) >= limitMs(key) || world.time.nowMs - returnedMs < LATE_MS) return;
    wrong(
      `${by} deletes ${row.metadata.name}, reported at ${tunnel.reportedMs}, its reporter served ${Math.round(silentMs(key))} ms ago`,
    );
  }

  return {
    wrongs,
    twinned: (key) => void twins.add(key),
    restored() {
      const now = new Map<string, string | undefined>();
      for (const { spec, status } of world.store.objects('reversetunnelreporters')) {
        const key = reporterKey(spec as unknown as ReporterId);
        now.set(key, (status?.['owner'] as Owner | undefined)?.replica);
      }
      for (const key of new Set([...current.keys(), ...now.keys()])) {
        if (!now.has(key)) orphaned.add(key);
        owned(key, now.get(key));
      }
    },
    sent(process, { verb, resource, name, body }) {
      if (verb === 'list' || verb === 'watch' || verb === 'get') return;
      const { version: sentVersion, uid } = preconditionsOf(body);
      if ((verb !== 'create' && sentVersion === undefined) || (verb === 'delete' && uid === undefined)) {
        wrong(`${process.name} sends ${verb} of ${resource} ${name} without preconditions`);
      }
      if (resource !== 'reversetunnels') return;
      const row = (name === undefined ? JSON.parse(body ?? '{}') : world.store.get(resource, name)) as
        Pick<RowObject, 'metadata' | 'spec'> | undefined;
      // Of another version it is refused, whoever sends it.
      if (row === undefined || (name !== undefined && row.metadata.resourceVersion !== sentVersion)) return;
      const key = reporterKey(row.spec.reporter);
      const lastMs = owners.get(key)?.get(process.name);
      if (lastMs === undefined)
        wrong(`${process.name} sends ${verb} of a row of ${key} that it never claimed`);
      else if (world.time.nowMs - Math.max(lastMs, process.resumedAtMs) > UNAWARE_MS) {
        wrong(`${process.name} sends ${verb} of a row of ${key} long after it lost that`);
      }
    },
    changed(change) {
      const { resource, type, object } = change;
      if (resource === 'reversetunnelreporters') reporterChanged(change);
      if (resource !== 'reversetunnels') return;
      if (type === 'ADDED') rowsMadeMs.set(object.metadata.uid, world.time.nowMs);
      if (type === 'DELETED') rowDeleted(change);
    },
    reportRead(reporter, process) {
      const key = reporterKey(reporter);
      const stream = world.envoys
        .filter((envoy) => envoy.key === key)
        .map((envoy) => envoy.stream())
        .find((one) => one?.isLive === true && one.process === process);
      if (stream === undefined || current.get(key) !== process.name) return;
      const { nowMs } = world.time;
      const known = served.get(key);
      const returnedMs =
        known === undefined || silentMs(key) < limitMs(key)
          ? (known?.returnedMs ?? Number.NEGATIVE_INFINITY)
          : nowMs;
      served.set(key, { lastMs: nowMs, lastSentMs: stream.deliveredSentMs, returnedMs });
    },
  };
}

/** What a patch or a deletion is sent for. */
function preconditionsOf(body: string | undefined): {
  readonly version: string | undefined;
  readonly uid: string | undefined;
} {
  const sent = JSON.parse(body ?? '{}') as {
    readonly metadata?: { readonly resourceVersion?: string };
    readonly preconditions?: { readonly resourceVersion?: string; readonly uid?: string };
  };
  return {
    version: sent.metadata?.resourceVersion ?? sent.preconditions?.resourceVersion,
    uid: sent.preconditions?.uid,
  };
}
