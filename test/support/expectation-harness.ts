import { pino } from 'pino';
import { mergePatch } from '../../embedded-api-server/objects.ts';
import type { EventMessage } from '../../src/controller/event-recorder.ts';
import { ExpectationCache } from '../../src/controller/expectation-cache.ts';
import { ExpectationReconciler } from '../../src/controller/expectation-reconciler.ts';
import { ExpectationTracker } from '../../src/controller/expectation-tracker.ts';
import { MirroredTunnels } from '../../src/controller/mirrored-tunnels.ts';
import { SliceCache } from '../../src/controller/slice-cache.ts';
import { TunnelCache } from '../../src/controller/tunnel-cache.ts';
import { Workers } from '../../src/controller/workers.ts';
import { Workqueue } from '../../src/controller/workqueue.ts';
import type { ExpectationObject, ExpectationSpec } from '../../src/core/expectation-object.ts';
import type { ApiErrorKind } from '../../src/core/kubernetes.ts';
import { manifestFor, unknownStatus, type TunnelObject } from '../../src/core/tunnel-object.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import { FakeClock } from './fake-clock.ts';
import { advanceTime, flushEventLoop } from './fake-time.ts';
import { apiFailure } from './memory-api.ts';
import { names } from './sample-tunnels.ts';

/** The condition Ready of an expectation as `STATUS REASON`. */
export function readyText(object: ExpectationObject | undefined): string {
  const ready = object?.status?.conditions?.find(({ type }) => type === 'Ready');
  return ready === undefined ? '' : `${ready.status} ${ready.reason}`;
}

/**
 * Evaluation of expectations over objects in memory, in fake time: the cache of tunnels receives watch events, and
 * statuses are written to a store that answers as the API server does.
 */
export function createExpectationHarness({
  isLeader = true,
  maxMatches = 200_000,
}: { isLeader?: boolean; maxMatches?: number } = {}) {
  const clock = new FakeClock();
  clock.advance(60_000);
  const log = pino({ level: 'silent' });
  const tunnels = new TunnelCache(names, { tunnel: () => undefined });
  const slices = new SliceCache(names, { tunnel: () => undefined });
  const mirrored = new MirroredTunnels(tunnels, slices);
  const cache = new ExpectationCache();
  const leader = { isHeld: isLeader };
  const stored = new Map<string, ExpectationObject>();
  const writes: string[] = [];
  const events: (EventMessage & { readonly name: string })[] = [];
  /** The resource of each write that was stored with another value. */
  const rewritten: string[] = [];
  /** What admission stores instead of a written object, or the CRD prunes. */
  const admission = { admit: (object: ExpectationObject): ExpectationObject => object };
  /** The next writes fail with these errors, in order. */
  const failures: ApiErrorKind[] = [];
  const queue = new Workqueue(clock);
  let version = 0;
  let uids = 0;

  const nextVersion = (): string => String((version += 1));

  function store(object: ExpectationObject): ExpectationObject {
    const { name } = object.metadata;
    const updated = { ...object, metadata: { ...object.metadata, resourceVersion: nextVersion() } };
    const isNew = !stored.has(name);
    stored.set(name, updated);
    cache.event(isNew ? 'ADDED' : 'MODIFIED', updated);
    return updated;
  }

  const tracker = new ExpectationTracker({
    expectations: cache,
    tunnels: mirrored,
    names,
    leader,
    queue,
    maxMatches,
    clock,
    log,
  });
  const workers = new Workers({
    queue,
    reconciler: new ExpectationReconciler({
      api: {
        async patchStatus(name, resourceVersion, status) {
          await Promise.resolve();
          const failure = failures.shift();
          if (failure !== undefined) throw apiFailure(failure);
          const object = stored.get(name);
          if (object === undefined) throw apiFailure('not_found');
          if (object.metadata.resourceVersion !== resourceVersion) throw apiFailure('conflict');
          writes.push(name);
          return store(admission.admit(mergePatch(object, { status }) as ExpectationObject));
        },
      },
      cache,
      tracker,
      leader,
      events: { recordFor: ({ name }, content) => events.push({ name, ...content }) },
      clock,
      rewrites: { record: (resource) => void rewritten.push(resource) },
      log,
    }),
    concurrency: 4,
    backoff: 'held',
    onUnreachable: { retryNow() {} },
    retryCounter: { inc() {} },
    clock,
    random: () => 0.5,
    log,
  });
  mirrored.addEventHandler(tracker);
  cache.addEventHandler(tracker);
  tunnels.replaceBegin();
  tunnels.replaceEnd(nextVersion());
  slices.onKindMissing();
  cache.replaceBegin();
  cache.replaceEnd();
  tracker.start();
  workers.start();

  function objectOf(reporter: ReporterId, tunnel: Tunnel, isUnknown: boolean, uid: string): TunnelObject {
    const { name, labels, spec } = manifestFor(names, reporter, tunnel);
    const status = isUnknown ? { status: unknownStatus('2026-11-23T05:00:00Z') } : REPORTED;
    return { metadata: { name, labels, uid, resourceVersion: nextVersion() }, spec, ...status };
  }

  return {
    clock,
    tunnels,
    slices,
    cache,
    leader,
    tracker,
    queue,
    stored,
    writes,
    events,
    rewritten,
    admission,
    failures,

    /** Creates an expectation, or changes its spec as `kubectl apply` does. */
    apply(name: string, spec: ExpectationSpec): void {
      const known = stored.get(name);
      const { uid = `uid-${(uids += 1)}`, generation = 0 } = known?.metadata ?? {};
      const metadata = { name, uid, resourceVersion: '', generation: generation + 1 };
      store({ ...known, metadata, spec });
    },

    delete(name: string): void {
      const object = stored.get(name);
      stored.delete(name);
      if (object !== undefined) cache.event('DELETED', object);
    },

    /** Adds the object of a tunnel, or changes its state. */
    put(reporter: ReporterId, tunnel: Tunnel, isUnknown = false): void {
      tunnels.event('MODIFIED', objectOf(reporter, tunnel, isUnknown, `${reporter.id}/${tunnel.name}`));
    },

    /** Removes the object of a tunnel. */
    drop(reporter: ReporterId, tunnel: Tunnel): void {
      tunnels.event('DELETED', objectOf(reporter, tunnel, false, `${reporter.id}/${tunnel.name}`));
    },

    settle: flushEventLoop,
    advance: (ms: number): Promise<void> => advanceTime(clock, ms),
    stop(): void {
      tracker.stop();
      workers.stop();
    },
  };
}

const REPORTED = {
  status: { state: 'Connected', conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }] },
};
