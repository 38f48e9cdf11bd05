import { LostTimer, type LostPhase } from '../core/expiry.ts';
import { PlaceChanges } from '../core/identity-conflict.ts';
import { Ownership } from '../core/ownership.ts';
import type { EnvoyFacts, LostReason } from '../core/reporter-status.ts';
import { fullBucket, type TokenBucket } from '../core/token-bucket.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { ApiFailure } from './row-api.ts';

/** What is known of the stream that a reporter has here. */
export interface StreamFacts {
  readonly envoy: EnvoyFacts;
  /** RFC 3339, of the first report; undefined before it. */
  connectedSince: string | undefined;
  lastFullPush: { readonly time: string; readonly tunnels: number } | undefined;
  /** Rejected tunnels since the last full push. A removal does not name them, so the number falls with the next one. */
  rejected: number;
  firstRejected: string;
}

/** A reporter that is owned here and has no stream. */
export interface Lost {
  readonly timer: LostTimer;
  /** Orphans are kept for less time. */
  readonly expireAfterMs: number;
  /** The phase that rows are brought to. */
  phase: LostPhase;
  /** Names of rows that are still to be looked at in this phase; undefined when it has just begun. */
  todo: string[] | undefined;
}

/** One reporter that has a stream here, or is owned here, or is about to be. */
export interface ReporterEntry {
  readonly key: string;
  readonly reporter: ReporterId;
  /** Of its object. */
  readonly name: string;
  readonly ownership: Ownership;
  readonly places: PlaceChanges;
  stream: StreamFacts | undefined;
  /** Why there is none. */
  lostReason: LostReason;
  lost: Lost | undefined;
  /** True: its rows were found without its object, which the claim makes; they are to go soon. */
  orphan: boolean;
  /** A report was read before the caches were complete: the claim is still to be asked for. */
  readEarly: boolean;
  /** A call about its object is under way or waits for a slot. One at a time, so that own writes do not conflict. */
  busy: boolean;
  /** Calls that failed in a row, and when the next may be sent. */
  failures: number;
  retryAtMs: number;
  /** Calls in a row after which the object was in doubt, until it is owned: reads between them do not count. */
  unsettled: number;
  cancelWake: (() => void) | undefined;
  wakeAtMs: number;
  /** The read under way, for all who wait for one. */
  reading: Promise<ApiFailure | undefined> | undefined;
  /** Row writes were left out while the gate was closed, since when. */
  skippedSinceMs: number | undefined;
  /** Deletions were left out because the stream had not been heard since the claim. */
  collectLater: boolean;
  /** Something that the status says may have changed. */
  touched: boolean;
  statusWrittenMs: number;
  /** Of status writes. */
  readonly statusBucket: TokenBucket;
  /**
   * Since when rows have been waiting to be written without a break. Refused ones do not count: they wait for hours, and
   * the next row that comes must not be taken for as old.
   */
  backlogSinceMs: number | undefined;
  /** Rows that the API server refuses; undefined while there are none. */
  refused: Set<string> | undefined;
  refusedAnswer: string;
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
    places: new PlaceChanges(),
    stream: undefined,
    lostReason: 'OwnerLost',
    lost: undefined,
    orphan: false,
    readEarly: false,
    busy: false,
    failures: 0,
    retryAtMs: Number.NEGATIVE_INFINITY,
    unsettled: 0,
    cancelWake: undefined,
    wakeAtMs: Number.POSITIVE_INFINITY,
    reading: undefined,
    skippedSinceMs: undefined,
    collectLater: false,
    touched: false,
    statusWrittenMs: Number.NEGATIVE_INFINITY,
    statusBucket: fullBucket(),
    backlogSinceMs: undefined,
    refused: undefined,
    refusedAnswer: '',
  };
}
