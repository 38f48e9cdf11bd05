import { OMITTED_CREATED_AT, tunnelKeyOf, type TunnelObject } from '../../../src/core/tunnel-object.ts';
import type { Report } from '../../../src/core/report.ts';
import type { Owner } from '../../../src/core/reporter-object.ts';
import { reporterKey, type ReporterId } from '../../../src/core/tunnel.ts';
import type { SentCall } from './api-link.ts';
import type { ApiChange } from '../../../embedded-api-server/watch-cache.ts';
import type { SimProcess } from './process.ts';
import { FlapInvariant } from './flap-invariant.ts';
import { HoldInvariant } from './hold-invariant.ts';
import { EXPIRE_AFTER_MS, names, type ReplicaProcess } from './replica-process.ts';
import type { SimHarness } from './harness.ts';
import { ShownTunnels, type HiddenTunnel } from './shown-tunnels.ts';

/** Objects whose reporter object is missing expire after a minute. */
const ORPHAN_EXPIRE_AFTER_MS = 60_000;
/** Maximum delay of a delete after it was decided: a live read, network latency, and a pending claim. */
const MAX_DELETE_DELAY_MS = 30_000;
/** How long a former owner may not know that it is superseded: a silent watch, followed by a list. */
const MAX_STALE_OWNER_MS = 130_000;

/** The API server prints `<invalid>` for a time that is this far in the future. */
const INVALID_AGE_MS = 2000;
/** Maximum time between the end of a tunnel's setup by a correct clock and a decision by the oldest date of a response. */
const MAX_CLOCK_LAG_MS = 30_000;

/** Checks every event for violations. */
export interface Invariants {
  /** Violations in chronological order. */
  readonly violations: string[];
  /** Checks a call that leaves a process. */
  onCall(process: SimProcess, call: SentCall): void;
  /** Checks a change of the store. */
  onChange(change: ApiChange): void;
  /** Notes a report that a process is about to apply. */
  beforeReport(reporter: ReporterId, report: Report, process: SimProcess): void;
  /** Notes that a process has applied a report. */
  onReport(reporter: ReporterId, process: SimProcess): void;
  /** Exempts a reporter ID that two Envoys have used: the tunnels of either may be removed. */
  onDuplicateReporter(key: string): void;
  /** Notes a restore of etcd, which changes the owners in the store. */
  onRestore(): void;
}

interface ServiceRecord {
  lastMs: number;
  /** When that report was sent. */
  lastSentMs: number;
  /** When the reporter was served again after it had been unserved for long enough to expire. */
  returnedMs: number;
}

/**
 * Creates checks for what must hold at every moment:
 * - Every patch has a resourceVersion, every delete a UID and a resourceVersion.
 * - No replica writes a creation time that is in the future, or omits one that is in the past, whatever its clock is.
 * - A process writes only objects of reporters that it has claimed, and stops soon after it lost the claim.
 * - No replica deletes the object of a tunnel that has been up since before the object was created, unless the
 * reporter was unserved for `expireAfter`. With slices: no replica hides such a tunnel, which is shown in either form.
 * - No replica deletes an object whose removal is held.
 * - No replica writes the objects of a flapping tunnel more often than every 30 s.
 */
export function createInvariants(harness: SimHarness): Invariants {
  const violations: string[] = [];
  const holds = new HoldInvariant();
  const flaps = new FlapInvariant();
  const served = new Map<string, ServiceRecord>();
  const duplicates = new Set<string>();
  /** Reporters whose object was deleted by another client than a replica. */
  const orphaned = new Set<string>();
  /** When each process was last the owner of a reporter in the store; infinity for the current owner. */
  const owners = new Map<string, Map<string, number>>();
  const current = new Map<string, string | undefined>();
  const createdMs = new Map<string, number>();
  const shown = new ShownTunnels(harness.store);

  function violation(text: string): void {
    violations.push(`${(harness.time.nowMs / 1000).toFixed(3)} s: ${text}`);
    harness.traceLine(() => `VIOLATION: ${text}`);
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
    if (type === 'DELETED' && (actor === 'kubectl' || actor === 'server')) orphaned.add(key);
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
    if (actor === 'kubectl' || actor === 'server' || duplicates.has(key)) return;
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
      `${actor} deletes ${object.metadata.name}, reported at ${tunnel.reportedMs}, its reporter was served ${Math.round(unservedMs(key))} ms ago`,
    );
  }

  function onTunnelHidden({ key, tunnelName, tenantID, shownMs }: HiddenTunnel, actor: string): void {
    if (actor === 'kubectl' || actor === 'server' || duplicates.has(key)) return;
    const tunnel = harness.envoys
      .find((candidate) => candidate.key === key)
      ?.tunnels()
      .get(tunnelName);
    const { lastSentMs = Number.NEGATIVE_INFINITY, returnedMs = Number.NEGATIVE_INFINITY } =
      served.get(key) ?? {};
    if (tunnel?.reportedMs === undefined || tunnel.reportedMs > Math.min(shownMs, lastSentMs)) return;
    if (tunnel.tenantID !== tenantID) return;
    if (unservedMs(key) >= limitMs(key) || harness.time.nowMs - returnedMs < MAX_DELETE_DELAY_MS) return;
    violation(
      `${actor} hides tunnel ${tunnelName} of ${key}, which has been up since ${((tunnel.reportedMs ?? 0) / 1000).toFixed(1)} s`,
    );
  }

  function onObjectWritten({ object, before, actor }: ApiChange): void {
    if (actor === 'kubectl' || actor === 'server') return;
    const { metadata, spec } = object as unknown as TunnelObject;
    const previous = before as unknown as TunnelObject | undefined;
    const aheadMs = (createdAt: string): number => Date.parse(createdAt) - harness.serverWallMs();
    const { createdAt } = spec;
    if (
      createdAt !== undefined &&
      createdAt !== previous?.spec.createdAt &&
      aheadMs(createdAt) >= INVALID_AGE_MS
    )
      violation(`${actor} writes createdAt ${createdAt} of ${metadata.name}, which is in the future`);
    const omitted = metadata.annotations?.[OMITTED_CREATED_AT];
    if (
      omitted !== undefined &&
      omitted !== previous?.metadata.annotations?.[OMITTED_CREATED_AT] &&
      aheadMs(omitted) < -MAX_CLOCK_LAG_MS
    )
      violation(`${actor} omits createdAt ${omitted} of ${metadata.name}, which is in the past`);
  }

  function replicaOf(process: SimProcess): ReplicaProcess | undefined {
    return harness.replicas().find((replica) => replica.process === process);
  }

  function checkHold(process: SimProcess, key: string, tunnelName: string): void {
    const replica = replicaOf(process);
    if (replica === undefined) return;
    const remainingMs = holds.remainingMs(replica, key, tunnelName, process.monotonicMs());
    if (remainingMs > 0)
      violation(`${process.name} deletes ${tunnelName}, whose removal is held for another ${remainingMs} ms`);
  }

  /** Checks that a write hides no tunnel whose removal is held. */
  function checkHiddenHolds(
    process: SimProcess,
    key: string,
    { verb, resource, name, body }: SentCall,
  ): void {
    const current = name === undefined ? undefined : harness.store.get(resource, name);
    if (name === undefined || current === undefined || (verb !== 'delete' && verb !== 'patch')) return;
    const { spec = {} } = verb === 'patch' ? (JSON.parse(body ?? '{}') as { spec?: object }) : {};
    const after = verb === 'delete' ? undefined : { ...current, spec: { ...current.spec, ...spec } };
    for (const tunnelName of shown.hiddenBy(resource, name, after)) checkHold(process, key, tunnelName);
  }

  function checkFlaps(process: SimProcess, key: string, tunnelName: string): void {
    const elapsedMs = flaps.onWrite(process, key, tunnelName, process.monotonicMs());
    // The objects of a disconnected reporter have a limit of their own, and a misplaced object is deleted at once.
    const isExempt =
      replicaOf(process)?.components.controllers.registry.phase(key) !== undefined ||
      harness.server.admit !== undefined;
    if (elapsedMs === undefined || isExempt) return;
    violation(`${process.name} writes ${tunnelName}, which flaps, ${elapsedMs} ms after its last write`);
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
      if (resource !== 'reversetunnels' && resource !== 'reversetunnelslices') return;
      const object = (name === undefined ? JSON.parse(body ?? '{}') : harness.store.get(resource, name)) as
        Pick<TunnelObject, 'metadata' | 'spec'> | undefined;
      // The API server rejects a write with another version, regardless of the sender.
      if (object === undefined || (name !== undefined && object.metadata.resourceVersion !== sentVersion))
        return;
      const key = reporterKey(object.spec.reporter);
      const lastMs = owners.get(key)?.get(process.name);
      if (lastMs === undefined)
        violation(`${process.name} sends ${verb} of an object of ${key}, which it never claimed`);
      else if (harness.time.nowMs - Math.max(lastMs, process.resumedAtMs) > MAX_STALE_OWNER_MS) {
        violation(`${process.name} sends ${verb} of an object of ${key} long after it lost the claim`);
      }
      if (harness.hasSlices) {
        checkHiddenHolds(process, key, { verb, resource, name, body });
        return;
      }
      if (verb === 'delete') checkHold(process, key, object.spec.tunnelName);
      checkFlaps(process, key, object.spec.tunnelName);
    },
    beforeReport(reporter, report, process) {
      const replica = replicaOf(process);
      if (replica !== undefined) holds.onReport(replica, reporter, report, process.monotonicMs());
      flaps.onReport(process, reporter, report, process.monotonicMs());
    },
    onChange(change) {
      const { resource, type, object } = change;
      if (resource === 'reversetunnelreporters') onReporterChange(change);
      if (harness.hasSlices && (resource === 'reversetunnels' || resource === 'reversetunnelslices')) {
        for (const tunnel of shown.onChange(change, harness.time.nowMs)) onTunnelHidden(tunnel, change.actor);
        if (resource === 'reversetunnels' && type !== 'DELETED') onObjectWritten(change);
        return;
      }
      if (resource !== 'reversetunnels') return;
      if (type === 'ADDED') createdMs.set(object.metadata.uid, harness.time.nowMs);
      if (type === 'DELETED') onObjectDeleted(change);
      else onObjectWritten(change);
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

/** Returns the preconditions of a patch or a delete. */
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
