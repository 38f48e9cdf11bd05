import type { Clock } from '../clock.ts';
import { delayMs, newBucket, take, type Rate, type TokenBucket } from '../core/token-bucket.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { ReporterCache } from './reporter-cache.ts';

/** What is told about reporters. A closed set: each has one type, reason and action. */
export type ReporterEventKind = 'connected' | 'lost' | 'expired' | 'conflict' | 'setAside';

/** Tells what happened to a reporter, where it can be told at all: never waits, never fails. */
export interface ReporterEvents {
  record(reporter: ReporterId, kind: ReporterEventKind, note: string): void;
}

const EVENT_TYPES = {
  connected: { type: 'Normal', reason: 'Connected', action: 'AcceptStream' },
  lost: { type: 'Warning', reason: 'Disconnected', action: 'AwaitReconnect' },
  expired: { type: 'Warning', reason: 'Expired', action: 'DeleteTunnels' },
  conflict: { type: 'Warning', reason: 'IdentityConflict', action: 'BackOff' },
  setAside: { type: 'Warning', reason: 'TunnelsRejected', action: 'RejectTunnels' },
} as const;

/** What the API server is asked to keep for an hour: not more than this for a fleet, nor for one reporter. */
const FLEET_RATE: Rate = { burst: 50, perSecond: 1 };
const REPORTER_RATE: Rate = { burst: 10, perSecond: 1 / 60 };
/** Reporters of which it is remembered what they used; the others have used nothing of it. */
const MAX_TRACKED_REPORTERS = 5000;

/** How Events are sent, and what is told of those that are not. */
export interface ReporterEventsOptions {
  /** Sends one event. */
  readonly create: (
    regarding: { readonly kind: string; readonly name: string; readonly uid: string },
    text: {
      readonly type: 'Normal' | 'Warning';
      readonly reason: string;
      readonly action: string;
      readonly note: string;
    },
    wallMs: number,
  ) => Promise<void>;
  readonly cache: Pick<ReporterCache, 'get'>;
  readonly canWrite: () => boolean;
  /** Told of each event that is not sent as there were too many. */
  readonly onDropped: () => void;
  /** Told of each event that the API server did not take. */
  readonly onFailed: (error: unknown) => void;
  readonly clock: Clock;
}

/** Events about reporters, at most 50 at once and one a second over all, ten at once and one a minute for each. */
export function createReporterEvents(options: ReporterEventsOptions): ReporterEvents {
  const { clock, cache } = options;
  const fleet = newBucket();
  const byReporter = new Map<string, TokenBucket>();

  function bucketOf(key: string): TokenBucket {
    const known = byReporter.get(key);
    if (known !== undefined) return known;
    const bucket = newBucket();
    byReporter.set(key, bucket);
    const [oldest] = byReporter.keys();
    if (byReporter.size > MAX_TRACKED_REPORTERS && oldest !== undefined) byReporter.delete(oldest);
    return bucket;
  }

  return {
    record(reporter, kind, note) {
      const key = reporterKey(reporter);
      const object = cache.get(key);
      if (object === undefined || !options.canWrite()) return;
      const nowMs = clock.monotonicMs();
      const bucket = bucketOf(key);
      if (delayMs(bucket, REPORTER_RATE, nowMs) > 0 || delayMs(fleet, FLEET_RATE, nowMs) > 0) {
        options.onDropped();
        return;
      }
      take(bucket, REPORTER_RATE, nowMs);
      take(fleet, FLEET_RATE, nowMs);
      const { name, uid } = object.metadata;
      const regarding = { kind: 'ReverseTunnelReporter', name, uid };
      options.create(regarding, { ...EVENT_TYPES[kind], note }, clock.wallMs()).catch(options.onFailed);
    },
  };
}
