import { GraceTimer, type DisconnectPhase } from '../core/grace-timer.ts';
import { FlapDetector } from '../core/duplicate-reporter.ts';
import type { Ownership } from '../core/ownership.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import type { ReporterId } from '../core/tunnel.ts';
import { PendingWrites } from './pending-writes.ts';
import { StatusState } from './status-state.ts';

/** The stream that a reporter has on this replica. */
export interface StreamInfo {
  readonly envoy: EnvoyMetadata;
  /** RFC 3339, time of the first report; undefined before it. */
  readonly connectedSince: string | undefined;
  /** The same time, monotonic ms. */
  readonly connectedMs: number | undefined;
  readonly lastFullPush: { readonly time: string; readonly tunnels: number } | undefined;
  /** Tunnels rejected since the last full push. A removal does not name them, so only the next full push lowers this. */
  readonly rejected: number;
  readonly firstRejection: string;
}

/** One reporter that has a stream on this replica, is owned by it, or is about to be claimed. */
export interface ReporterEntry {
  readonly key: string;
  readonly reporter: ReporterId;
  /** Name of the ReverseTunnelReporter object. */
  readonly objectName: string;
  readonly ownership: Ownership;
  readonly streamFlaps: FlapDetector;
  readonly pendingWrites: PendingWrites;
  readonly status: StatusState;

  /** Written by `ReporterEnqueuer`. */
  stream: StreamInfo | undefined;
  /** Why there is no stream. Written by `ReporterEnqueuer`. */
  disconnectReason: ReporterDisconnectReason;
  /** True if the claim creates the missing reporter object of orphaned objects. Written by `ReporterEnqueuer`. */
  isOrphan: boolean;
  /** True if a report arrived before the caches had synced, so its claim is outstanding. Written by `ReporterEnqueuer`. */
  claimPending: boolean;
  /** Defined while the reporter is owned and has no stream. Written by `ReporterRegistry.trackDisconnect`. */
  disconnection: Disconnection | undefined;
  /**
   * Consecutive writes to the reporter object that left ownership uncertain; successful reads between them do not reset
   * it. Written by `ReporterReconciler`.
   */
  conflicts: number;
  /** When the latest hold of removals ends, RFC 3339; outdated if nothing is held. Written by `RemovalHolds`. */
  removalsHeldUntil: string;
}

/** Creates the entry of a reporter about which nothing is known yet. */
export function createReporterEntry(
  key: string,
  reporter: ReporterId,
  objectName: string,
  ownership: Ownership,
): ReporterEntry {
  return {
    key,
    reporter,
    objectName,
    ownership,
    streamFlaps: new FlapDetector(),
    pendingWrites: new PendingWrites(),
    status: new StatusState(),
    stream: undefined,
    disconnectReason: 'OwnerLost',
    isOrphan: false,
    claimPending: false,
    disconnection: undefined,
    conflicts: 0,
    removalsHeldUntil: '',
  };
}

/** The expiry of one disconnected reporter: its grace timer, and a scan of its objects in each phase. */
export class Disconnection {
  /** When the stream ended, or when this replica took the reporter over, monotonic ms. */
  readonly sinceMs: number;
  readonly #timer: GraceTimer;
  readonly #expireAfterMs: number;
  #phase: DisconnectPhase = 'grace';
  /** Names that the scan of this phase has not reached; undefined before it starts. */
  #remaining: string[] | undefined;

  constructor(nowMs: number, expireAfterMs: number) {
    this.sinceMs = nowMs;
    this.#timer = new GraceTimer(nowMs);
    this.#expireAfterMs = expireAfterMs;
  }

  get phase(): DisconnectPhase {
    return this.#phase;
  }

  /** Advances the grace timer. A new phase starts a new scan. */
  tick(nowMs: number, canWrite: boolean, unknownAfterMs: number): void {
    this.#timer.tick(nowMs, canWrite);
    const phase = this.#timer.phase({ unknownAfterMs, expireAfterMs: this.#expireAfterMs });
    if (phase === this.#phase) return;
    this.#phase = phase;
    this.restartScan();
  }

  /** Continues the scan, or starts it with `names`. Returns the next name; undefined if the scan is complete. */
  nextName(names: Iterable<string>): string | undefined {
    this.#remaining ??= [...names];
    return this.#remaining.pop();
  }

  /** True if the scan has reached all names. */
  get isScanComplete(): boolean {
    return this.#remaining?.length === 0;
  }

  /** Makes the next call of `nextName` start from the beginning: writes were skipped or rejected. */
  restartScan(): void {
    this.#remaining = undefined;
  }
}
