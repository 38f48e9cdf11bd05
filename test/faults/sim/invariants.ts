import { tunnelKeyOf, type TunnelObject } from '../../../src/core/tunnel-object.ts';
import type { Owner } from '../../../src/core/reporter-object.ts';
import { reporterKey, type ReporterId } from '../../../src/core/tunnel.ts';
import type { SentCall } from './api-link.ts';
import type { ApiChange } from './api-objects.ts';
import type { SimProcess } from './process.ts';
import { EXPIRE_AFTER_MS, names } from './replica-process.ts';
import type { SimHarness } from './harness.ts';

/** Rows whose reporter's object is missing go after a minute. */
const ORPHAN_EXPIRE_AFTER_MS = 60_000;
/** A deletion that was decided rightly may land so much later: a fresh read, a slow way, and a claim that waits for its turn. */
const MAX_DELETE_DELAY_MS = 30_000;
/** How long a former owner may not know what it is not any more: a silent watch, and the list after it. */
const MAX_STALE_OWNER_MS = 130_000;

/** Looks at everything that happens, and notes what must not. */
export interface Invariants {
  /** What was wrong, in the order of time. */
  readonly violations: string[];
  /** A call leaves a process. */
  onCall(process: SimProcess, call: SentCall): void;
  /** The store has changed. */
  onChange(change: ApiChange): void;
  /** A process has read and folded a report of a reporter. */
  onReport(reporter: ReporterId, process: SimProcess): void;
  /** Two Envoys have had this reporter's id: what either held may go. */
  onDuplicateReporter(key: string): void;
  /** etcd was restored: what the store says of owners is another. */
  onRestore(): void;
}

interface ServiceRecord {
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
export function createInvariants(harness: SimHarness): Invariants {
  const violations: string[] = [];
  const served = new Map<string, ServiceRecord>();
  const duplicates = new Set<string>();
  /** Reporters whose object was taken away by somebody else. */
  const orphaned = new Set<string>();
  /** When each process last was the owner of a reporter, as the store has it; now, if it is. */
  const owners = new Map<string, Map<string, number>>();
  const current = new Map<string, string | undefined>();
  const createdMs = new Map<string, number>();

  function violation(text: string): void {
    violations.push(`${(harness.time.nowMs / 1000).toFixed(3)} s: ${text}`);
    harness.traceLine(() => `WRONG: ${text}`);
  }

  function unservedMs(key: string): number {
    return harness.time.nowMs - (served.get(key)?.lastMs ?? Number.NEGATIVE_INFINITY);
  }

  function limitMs(key: string): number {
    return (orphaned.has(key) ? ORPHAN_EXPIRE_AFTER_MS : EXPIRE_AFTER_MS) - 1000;
  }

  function onReporterChange({ type, object, actor }: ApiChange): void {
    const { id, cluster } = object.spec as unknown as ReporterId;
    const key = reporterKey({ id, cluster });
    const owner = type === 'DELETED' ? undefined : (object.status?.['owner'] as Owner | undefined)?.replica;
    recordOwner(key, owner);
    if (type === 'DELETED' && (actor === 'hand' || actor === 'server')) orphaned.add(key);
  }

  function recordOwner(key: string, owner: string | undefined): void {
    const before = current.get(key);
    const byReplica = owners.get(key) ?? new Map<string, number>();
    owners.set(key, byReplica);
    if (before !== undefined) byReplica.set(before, harness.time.nowMs);
    if (owner !== undefined) byReplica.set(owner, Number.POSITIVE_INFINITY);
    current.set(key, owner);
  }

  function onObjectDeleted({ before, actor }: ApiChange): void {
    const object = before as unknown as TunnelObject;
    const { reporter, key, tunnelName } = tunnelKeyOf(object);
    if (actor === 'hand' || actor === 'server' || duplicates.has(key)) return;
    const envoy = harness.envoys.find((candidate) => candidate.key === key);
    const tunnel = envoy?.tunnels().get(tunnelName);
    const objectCreatedMs = createdMs.get(object.metadata.uid) ?? harness.time.nowMs;
    const { lastSentMs = Number.NEGATIVE_INFINITY } = served.get(key) ?? {};
    if (tunnel?.reportedMs === undefined || tunnel.reportedMs > Math.min(objectCreatedMs, lastSentMs)) return;
    if (object.metadata.name !== names.tunnelObjectName(reporter, { ...tunnel, createdAt: undefined }))
      return;
    if (tunnel.tenantID !== object.spec.tenantID) return;
    const returnedMs = served.get(key)?.returnedMs ?? Number.NEGATIVE_INFINITY;
    if (unservedMs(key) >= limitMs(key) || harness.time.nowMs - returnedMs < MAX_DELETE_DELAY_MS) return;
    violation(
      `${actor} deletes ${object.metadata.name}, reported at ${tunnel.reportedMs}, its reporter served ${Math.round(unservedMs(key))} ms ago`,
    );
  }

  return {
    violations,
    onDuplicateReporter: (key) => void duplicates.add(key),
    onRestore() {
      const now = new Map<string, string | undefined>();
      for (const { spec, status } of harness.store.objects('reversetunnelreporters')) {
        const key = reporterKey(spec as unknown as ReporterId);
        now.set(key, (status?.['owner'] as Owner | undefined)?.replica);
      }
      for (const key of new Set([...current.keys(), ...now.keys()])) {
        if (!now.has(key)) orphaned.add(key);
        recordOwner(key, now.get(key));
      }
    },
    onCall(process, { verb, resource, name, body }) {
      if (verb === 'list' || verb === 'watch' || verb === 'get') return;
      const { version: sentVersion, uid } = preconditionsOf(body);
      if ((verb !== 'create' && sentVersion === undefined) || (verb === 'delete' && uid === undefined)) {
        violation(`${process.name} sends ${verb} of ${resource} ${name} without preconditions`);
      }
      if (resource !== 'reversetunnels') return;
      const object = (name === undefined ? JSON.parse(body ?? '{}') : harness.store.get(resource, name)) as
        Pick<TunnelObject, 'metadata' | 'spec'> | undefined;
      // Of another version it is refused, whoever sends it.
      if (object === undefined || (name !== undefined && object.metadata.resourceVersion !== sentVersion))
        return;
      const key = reporterKey(object.spec.reporter);
      const lastMs = owners.get(key)?.get(process.name);
      if (lastMs === undefined)
        violation(`${process.name} sends ${verb} of a row of ${key} that it never claimed`);
      else if (harness.time.nowMs - Math.max(lastMs, process.resumedAtMs) > MAX_STALE_OWNER_MS) {
        violation(`${process.name} sends ${verb} of a row of ${key} long after it lost that`);
      }
    },
    onChange(change) {
      const { resource, type, object } = change;
      if (resource === 'reversetunnelreporters') onReporterChange(change);
      if (resource !== 'reversetunnels') return;
      if (type === 'ADDED') createdMs.set(object.metadata.uid, harness.time.nowMs);
      if (type === 'DELETED') onObjectDeleted(change);
    },
    onReport(reporter, process) {
      const key = reporterKey(reporter);
      const stream = harness.envoys
        .filter((envoy) => envoy.key === key)
        .map((envoy) => envoy.stream())
        .find((candidate) => candidate?.isLive === true && candidate.process === process);
      if (stream === undefined || current.get(key) !== process.name) return;
      const { nowMs } = harness.time;
      const known = served.get(key);
      const returnedMs =
        known === undefined || unservedMs(key) < limitMs(key)
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
