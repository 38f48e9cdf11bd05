import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.ts';
import { delayMs, newBucket, take, type Rate, type TokenBucket } from '../core/token-bucket.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import { errorMessage } from '../error-message.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { WriteFence } from './write-fence.ts';

/** Kinds of Events about reporters. Each has one type, reason and action. */
export type ReporterEventKind =
  | 'connected'
  | 'disconnected'
  | 'expired'
  | 'conflict'
  | 'removalsHeld'
  | 'tunnelsRejected'
  | 'writesRejected'
  | 'rewritten';

/** Records Events about reporters. Never waits and never fails: an Event that cannot be sent is dropped. */
export interface EventRecorder {
  record(reporter: ReporterId, kind: ReporterEventKind, note: string): void;
}

const EVENT_TYPES = {
  connected: { type: 'Normal', reason: 'Connected', action: 'AcceptStream' },
  disconnected: { type: 'Warning', reason: 'Disconnected', action: 'AwaitReconnect' },
  expired: { type: 'Warning', reason: 'Expired', action: 'DeleteTunnels' },
  conflict: { type: 'Warning', reason: 'IdentityConflict', action: 'BackOff' },
  removalsHeld: { type: 'Warning', reason: 'RemovalsHeld', action: 'AwaitTunnels' },
  rewritten: { type: 'Warning', reason: 'RewrittenByAdmission', action: 'BackOff' },
  writesRejected: { type: 'Warning', reason: 'WritesRejected', action: 'BackOff' },
  tunnelsRejected: { type: 'Warning', reason: 'TunnelsRejected', action: 'RejectTunnels' },
} as const;

/** Limits of all Events, and of the Events of one reporter: the API server stores each Event for an hour. */
const FLEET_RATE: Rate = { burst: 50, perSecond: 1 };
const REPORTER_RATE: Rate = { burst: 10, perSecond: 1 / 60 };
/** Reporters whose rate is tracked; the least recently used one starts with a full burst again. */
const MAX_TRACKED_REPORTERS = 5000;

/** Creates an Event; `createEventApi` in `src/k8s/resources.ts` implements it. */
export interface EventApi {
  create(
    regarding: { readonly kind: string; readonly name: string; readonly uid: string },
    content: {
      readonly type: 'Normal' | 'Warning';
      readonly reason: string;
      readonly action: string;
      readonly note: string;
    },
    wallMs: number,
  ): Promise<void>;
}

export interface EventRecorderOptions {
  readonly api: EventApi;
  readonly cache: Pick<ReporterCache, 'get'>;
  readonly fence: Pick<WriteFence, 'canWrite'>;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Creates a recorder that sends up to 50 Events at once and one per second over all reporters, and up to 10 at once and
 * one per minute for each of them.
 */
export function createEventRecorder(options: EventRecorderOptions): EventRecorder {
  const { api, cache, fence, clock, metrics, log } = options;
  const fleet = newBucket();
  const byReporter = new LRUCache<string, TokenBucket>({ max: MAX_TRACKED_REPORTERS });

  function bucketOf(key: string): TokenBucket {
    const known = byReporter.get(key);
    if (known !== undefined) return known;
    const bucket = newBucket();
    byReporter.set(key, bucket);
    return bucket;
  }

  return {
    record(reporter, kind, note) {
      const key = reporterKey(reporter);
      const object = cache.get(key);
      if (object === undefined || !fence.canWrite()) return;
      const nowMs = clock.monotonicMs();
      const bucket = bucketOf(key);
      if (delayMs(bucket, REPORTER_RATE, nowMs) > 0 || delayMs(fleet, FLEET_RATE, nowMs) > 0) {
        metrics.eventsDropped.inc();
        return;
      }
      take(bucket, REPORTER_RATE, nowMs);
      take(fleet, FLEET_RATE, nowMs);
      const { name, uid } = object.metadata;
      const regarding = { kind: 'ReverseTunnelReporter', name, uid };
      api
        .create(regarding, { ...EVENT_TYPES[kind], note }, clock.wallMs())
        .catch((error: unknown) => log.debug({ error: errorMessage(error) }, 'failed to create event'));
    },
  };
}
