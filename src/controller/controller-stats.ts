import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Metrics } from '../metrics.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { ExpectationTracker } from './expectation-tracker.ts';
import type { SliceCache } from './slice-cache.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { Workqueue } from './workqueue.ts';

/**
 * The state of a reporter on this replica.
 *
 * - `connected`: it has a stream and is owned.
 * - `pending`: it has a stream and is not owned: another replica owns it, or the claim is not confirmed.
 * - `disconnected`: it is owned, has objects and no stream; the objects become Unknown and expire.
 * - `idle`: it is owned and has neither objects nor a stream; only its reporter object will expire.
 */
export type ReporterConnectionState = 'connected' | 'pending' | 'disconnected' | 'idle';

/**
 * Why a reported tunnel has no object: it is invalid, the API server rejected the write, or no policy allows it, which
 * may be intended.
 */
export type TunnelRejectionReason = 'invalid' | 'rejected' | 'policy';

/** Totals over all reporters of this replica. */
export interface ReporterStats {
  readonly owned: number;
  readonly byState: Readonly<Record<ReporterConnectionState, number>>;
  /** Reporters under whose identity two Envoys report, also while neither has a stream. */
  readonly inConflict: number;
  readonly rejected: Readonly<Record<TunnelRejectionReason, number>>;
  /** Objects that admission rewrites, reporter objects included. */
  readonly rewritten: number;
  /** How long writes of any reporter have been waiting; rejected writes do not count. 0 if none waits. */
  readonly backlogMs: number;
}

export interface ReporterStatsSources {
  readonly ledger: Pick<Ledger, 'deniedCount'>;
  readonly mirrored: Pick<MirroredTunnels, 'hasObjects'>;
  /** The queue of tunnels. */
  readonly queue: Pick<Workqueue, 'pending'>;
}

/** Counts in one pass over the reporters, with a few lookups each and none per tunnel. Changes nothing. */
export function collectReporterStats(
  entries: Iterable<ReporterEntry>,
  { ledger, mirrored, queue }: ReporterStatsSources,
  nowMs: number,
): ReporterStats {
  const byState = { connected: 0, pending: 0, disconnected: 0, idle: 0 };
  const rejected = { invalid: 0, rejected: 0, policy: 0 };
  let owned = 0;
  let rewritten = 0;
  let inConflict = 0;
  let sinceMs = nowMs;
  for (const { key, ownership, stream, streamFlaps, pendingWrites, status } of entries) {
    if (ownership.owns) owned += 1;
    if (streamFlaps.isConflict(nowMs)) inConflict += 1;
    if (stream !== undefined) {
      byState[ownership.owns ? 'connected' : 'pending'] += 1;
      rejected.invalid += stream.rejected;
    } else if (ownership.owns) {
      byState[mirrored.hasObjects(key) ? 'disconnected' : 'idle'] += 1;
    }
    const { rejectedCount, blockedCount, backlogSinceMs } = pendingWrites;
    rejected.rejected += rejectedCount;
    if (ownership.owns) rewritten += pendingWrites.rewritten.size + (status.rewritten === undefined ? 0 : 1);
    rejected.policy += ledger.deniedCount(key);
    // Without a Lease or a confirmed claim, as during an outage of the API server, nothing stays in the queue.
    const isWriter = ownership.hasConfirmedClaim || (stream !== undefined && !ownership.isSuperseded);
    if (isWriter) sinceMs = Math.min(sinceMs, pendingWrites.skippedChangeSinceMs ?? nowMs);
    // Skipped writes leave the queue without ending the backlog, while blocked writes stay in the queue.
    if (queue.pending(key) > blockedCount) sinceMs = Math.min(sinceMs, backlogSinceMs ?? nowMs);
  }
  return { owned, byState, inConflict, rejected, rewritten, backlogMs: nowMs - sinceMs };
}

export interface ControllerMetricsOptions {
  readonly registry: ReporterRegistry;
  readonly ledger: Ledger;
  readonly objects: TunnelCache;
  readonly slices: Pick<SliceCache, 'size' | 'sliceCount'>;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly flapping: FlappingTunnels;
  readonly queues: Readonly<Record<'tunnels' | 'reporters' | 'expectations', Workqueue>>;
  readonly expectations: Pick<ExpectationTracker, 'countStates'>;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Sets the gauges that are computed for each scrape, because their values change too often. */
export function updateControllerMetrics(options: ControllerMetricsOptions): void {
  const { registry, ledger, objects, slices, mirrored, flapping, queues } = options;
  const { expectations, clock, metrics } = options;
  const sources = { ledger, mirrored, queue: queues.tunnels };
  const stats = collectReporterStats(registry.entries(), sources, clock.monotonicMs());
  metrics.reportedTunnels.set(ledger.totalTunnelCount());
  metrics.objects.set(objects.size);
  metrics.slices.set(slices.sliceCount);
  metrics.sliceTunnels.set(slices.size);
  metrics.removalsHeld.set(ledger.heldCount);
  metrics.tunnelsFlapping.set(flapping.count(clock.monotonicMs()));
  metrics.cacheSynced.set(mirrored.hasSynced ? 1 : 0);
  for (const [name, queue] of Object.entries(queues)) {
    metrics.workqueueDepth.set({ name }, queue.depth);
    metrics.workqueueDelayed.set({ name }, queue.delayedCount);
  }
  metrics.reportersOwned.set(stats.owned);
  metrics.reportersInConflict.set(stats.inConflict);
  for (const [state, count] of Object.entries(stats.byState)) metrics.reporters.set({ state }, count);
  for (const [reason, count] of Object.entries(stats.rejected))
    metrics.tunnelsRejected.set({ reason }, count);
  for (const [state, count] of Object.entries(expectations.countStates()))
    metrics.expectations.set({ state }, count);
  metrics.objectsRewritten.set(stats.rewritten);
  metrics.oldestPendingWriteSeconds.set(stats.backlogMs / 1000);
}
