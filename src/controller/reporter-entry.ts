import { GraceTimer, type DisconnectPhase } from '../core/grace-timer.ts';
import { FlapDetector } from '../core/duplicate-reporter.ts';
import { Ownership } from '../core/ownership.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import { newBucket, type TokenBucket } from '../core/token-bucket.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { ApiFailure } from './tunnel-object-api.ts';

/** What is known of the stream that a reporter has here. */
export interface StreamInfo {
  readonly envoy: EnvoyMetadata;
  /** RFC 3339, of the first report; undefined before it. */
  connectedSince: string | undefined;
  lastFullPush: { readonly time: string; readonly tunnels: number } | undefined;
  /** Rejected tunnels since the last full push. A removal does not name them, so the number falls with the next one. */
  rejected: number;
  firstRejection: string;
}

/** A reporter that is owned here and has no stream. */
export interface DisconnectedState {
  readonly timer: GraceTimer;
  /** Orphans are kept for less time. */
  readonly expireAfterMs: number;
  /** The phase that rows are brought to. */
  phase: DisconnectPhase;
  /** Names of rows that are still to be looked at in this phase; undefined when it has just begun. */
  remaining: string[] | undefined;
}

/** One reporter that has a stream here, or is owned here, or is about to be. */
export interface ReporterEntry {
  readonly key: string;
  readonly reporter: ReporterId;
  /** Of its object. */
  readonly name: string;
  readonly ownership: Ownership;
  readonly flaps: FlapDetector;
  stream: StreamInfo | undefined;
  /** Why there is none. */
  disconnectReason: ReporterDisconnectReason;
  disconnected: DisconnectedState | undefined;
  /** True: its rows were found without its object, which the claim makes; they are to go soon. */
  isOrphan: boolean;
  /** A report was read before the caches were complete: the claim is still to be asked for. */
  claimPending: boolean;
  /** A call about its object is under way or waits for a slot. One at a time, so that own writes do not conflict. */
  busy: boolean;
  /** Calls that failed in a row, and when the next may be sent. */
  failures: number;
  retryAtMs: number;
  /** Calls in a row after which the object was in doubt, until it is owned: reads between them do not count. */
  consecutiveConflicts: number;
  cancelWake: (() => void) | undefined;
  wakeAtMs: number;
  /** The read under way, for all who wait for one. */
  pendingRead: Promise<ApiFailure | undefined> | undefined;
  /** Row writes were left out while the gate was closed, since when. */
  writesSkippedSinceMs: number | undefined;
  /** Deletions were left out because the stream had not been heard since the claim. */
  deletionsDeferred: boolean;
  /** Something that the status says may have changed. */
  statusDirty: boolean;
  statusWrittenMs: number;
  /** Of status writes. */
  readonly statusBucket: TokenBucket;
  /**
   * Since when rows have been waiting to be written without a break. Refused ones do not count: they wait for hours, and
   * the next row that comes must not be taken for as old.
   */
  backlogSinceMs: number | undefined;
  /** Rows that the API server refuses; undefined while there are none. */
  rejectedWrites: Set<string> | undefined;
  lastRejection: string;
}

/** An entry about which nothing is known yet. */
export function newEntry(
  key: string,
  reporter: ReporterId,
  name: string,
  ownership: Ownership,
): ReporterEntry {
  return {
    key,
    reporter,
    name,
    ownership,
    flaps: new FlapDetector(),
    stream: undefined,
    disconnectReason: 'OwnerLost',
    disconnected: undefined,
    isOrphan: false,
    claimPending: false,
    busy: false,
    failures: 0,
    retryAtMs: Number.NEGATIVE_INFINITY,
    consecutiveConflicts: 0,
    cancelWake: undefined,
    wakeAtMs: Number.POSITIVE_INFINITY,
    pendingRead: undefined,
    writesSkippedSinceMs: undefined,
    deletionsDeferred: false,
    statusDirty: false,
    statusWrittenMs: Number.NEGATIVE_INFINITY,
    statusBucket: newBucket(),
    backlogSinceMs: undefined,
    rejectedWrites: undefined,
    lastRejection: '',
  };
}
