import type { Clock } from '../clock.ts';
import type { Rate } from '../core/policy.ts';
import { fullBucket, takeToken, untilTokenMs, type TokenBucket } from '../core/token-bucket.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { ReporterCache } from './reporter-cache.ts';

/** What is told about reporters. A closed set: each has one type, reason and action. */
export type ReporterEventKind = 'connected' | 'lost' | 'expired' | 'conflict' | 'setAside';

/** Tells what happened to a reporter, where it can be told at all: never waits, never fails. */
export interface ReporterEvents {
  tell(reporter: ReporterId, kind: ReporterEventKind, note: string): void;
}

const TEXTS = {
  connected: { type: 'Normal', reason: 'Connected', action: 'AcceptStream' },
  lost: { type: 'Warning', reason: 'Disconnected', action: 'AwaitReconnect' },
  expired: { type: 'Warning', reason: 'Expired', action: 'DeleteTunnels' },
  conflict: { type: 'Warning', reason: 'IdentityConflict', action: 'BackOff' },
  setAside: { type: 'Warning', reason: 'TunnelsRejected', action: 'RejectTunnels' },
} as const;

/** What the API server is asked to keep for an hour: not more than this for a fleet, nor for one reporter. */
const FLEET: Rate = { burst: 50, perSecond: 1 };
const REPORTER: Rate = { burst: 10, perSecond: 1 / 60 };
/** Reporters of which it is remembered what they used; the others have used nothing of it. */
const MOST_REMEMBERED = 5000;

/** How Events are sent, and what is told of those that are not. */
export interface EventsParts {
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
  readonly mayWrite: () => boolean;
  /** Told of each event that is not sent as there were too many. */
  readonly onDropped: () => void;
  /** Told of each event that the API server did not take. */
  readonly onFailed: (error: unknown) => void;
  readonly clock: Clock;
}

/** Events about reporters, at most 50 at once and one a second over all, ten at once and one a minute for each. */
export function createReporterEvents(parts: EventsParts): ReporterEvents {
  const { clock, cache } = parts;
  const fleet = fullBucket();
  const byReporter = new Map<string, TokenBucket>();

  function bucketOf(key: string): TokenBucket {
    const known = byReporter.get(key);
    if (known !== undefined) return known;
    const bucket = fullBucket();
    byReporter.set(key, bucket);
    const [oldest] = byReporter.keys();
    if (byReporter.size > MOST_REMEMBERED && oldest !== undefined) byReporter.delete(oldest);
    return bucket;
  }

  return {
    tell(reporter, kind, note) {
      const key = reporterKey(reporter);
      const object = cache.get(key);
      if (object === undefined || !parts.mayWrite()) return;
      const nowMs = clock.monotonicMs();
      const own = bucketOf(key);
      if (untilTokenMs(own, REPORTER, nowMs) > 0 || untilTokenMs(fleet, FLEET, nowMs) > 0) {
        parts.onDropped();
        return;
      }
      takeToken(own, REPORTER, nowMs);
      takeToken(fleet, FLEET, nowMs);
      const { name, uid } = object.metadata;
      const regarding = { kind: 'ReverseTunnelReporter', name, uid };
      parts.create(regarding, { ...TEXTS[kind], note }, clock.wallMs()).catch(parts.onFailed);
    },
  };
}
