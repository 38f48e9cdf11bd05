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
  | 'flapping'
  | 'removalsHeld'
  | 'tunnelsRejected'
  | 'writesRejected'
  | 'rewritten';

/** Records Events about reporters. Never waits and never fails: an Event that cannot be sent is dropped. */
export interface EventRecorder {
  record(reporter: ReporterId, kind: ReporterEventKind, note: string): void;
}

/** Records Events about objects of other kinds, in the same way. */
export interface ObjectEventRecorder {
  recordFor(regarding: EventSubject, content: EventMessage): void;
}

/** The object that an Event is about. */
export interface EventSubject {
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

/** The content of an Event. */
export interface EventMessage {
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, at most 128 characters, like `action`. */
  readonly reason: string;
  readonly action: string;
  readonly note: string;
}

const EVENT_TYPES = {
  connected: { type: 'Normal', reason: 'Connected', action: 'AcceptStream' },
  disconnected: { type: 'Warning', reason: 'Disconnected', action: 'AwaitReconnect' },
  expired: { type: 'Warning', reason: 'Expired', action: 'DeleteTunnels' },
  conflict: { type: 'Warning', reason: 'IdentityConflict', action: 'BackOff' },
  flapping: { type: 'Warning', reason: 'TunnelsFlapping', action: 'LimitWrites' },
  removalsHeld: { type: 'Warning', reason: 'RemovalsHeld', action: 'AwaitTunnels' },
  rewritten: { type: 'Warning', reason: 'RewrittenByAdmission', action: 'BackOff' },
  writesRejected: { type: 'Warning', reason: 'WritesRejected', action: 'BackOff' },
  tunnelsRejected: { type: 'Warning', reason: 'TunnelsRejected', action: 'RejectTunnels' },
} as const;

/** Limits of all Events, and of the Events of one object: the API server stores each Event for an hour. */
const FLEET_RATE: Rate = { burst: 50, perSecond: 1 };
const OBJECT_RATE: Rate = { burst: 10, perSecond: 1 / 60 };
/** Objects whose rate is tracked; the least recently used one starts with a full burst again. */
const MAX_TRACKED_OBJECTS = 5000;

/** Creates an Event; `createEventApi` in `src/k8s/resources.ts` implements it. */
export interface EventApi {
  create(regarding: EventSubject, content: EventMessage, wallMs: number): Promise<void>;
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
 * Creates a recorder that sends up to 50 Events at once and one per second over all objects, and up to 10 at once and one
 * per minute for each of them.
 */
export function createEventRecorder(options: EventRecorderOptions): EventRecorder & ObjectEventRecorder {
  const { api, cache, fence, clock, metrics, log } = options;
  const fleet = newBucket();
  const byKey = new LRUCache<string, TokenBucket>({ max: MAX_TRACKED_OBJECTS });

  function bucketOf(key: string): TokenBucket {
    const known = byKey.get(key);
    if (known !== undefined) return known;
    const bucket = newBucket();
    byKey.set(key, bucket);
    return bucket;
  }

  /** @param key of the object whose rate counts */
  function send(key: string, regarding: EventSubject, content: EventMessage): void {
    if (!fence.canWrite()) return;
    const nowMs = clock.monotonicMs();
    const bucket = bucketOf(key);
    if (delayMs(bucket, OBJECT_RATE, nowMs) > 0 || delayMs(fleet, FLEET_RATE, nowMs) > 0) {
      metrics.eventsDropped.inc();
      return;
    }
    take(bucket, OBJECT_RATE, nowMs);
    take(fleet, FLEET_RATE, nowMs);
    api
      .create(regarding, content, clock.wallMs())
      .catch((error: unknown) => log.debug({ error: errorMessage(error) }, 'failed to create event'));
  }

  return {
    recordFor: (regarding, content) => send(regarding.uid, regarding, content),
    record(reporter, kind, note) {
      const key = reporterKey(reporter);
      const object = cache.get(key);
      if (object === undefined) return;
      const { name, uid } = object.metadata;
      send(key, { kind: 'ReverseTunnelReporter', name, uid }, { ...EVENT_TYPES[kind], note });
    },
  };
}
