import type { Condition } from '../core/kubernetes.ts';
import type { ReporterDisconnect } from '../core/reporter-object.ts';
import { MAX_RECENT_DISCONNECTS, type StatusInputs } from '../core/reporter-status.ts';
import type { RewrittenField } from '../core/rewrite.ts';
import { delayMs, newBucket, take, type Rate } from '../core/token-bucket.ts';

/** A status in which only counts or messages changed is written at most this often. */
const COUNTS_INTERVAL_MS = 10_000;
/** While writes wait, the tunnels of a reporter are compared with its objects at most this often. */
const COMPARE_INTERVAL_MS = 10_000;
/** Status writes of one reporter: 5 at once, then one per 2 s, because a user may keep editing the status. */
const STATUS_WRITE_RATE: Rate = { burst: 5, perSecond: 0.5 };

/** A status write that admission rewrote. */
export interface RewrittenStatus extends RewrittenField {
  /** The conditions that were written. */
  readonly conditions: readonly Condition[];
  /** When the status may be written again without a change of a condition, monotonic ms. */
  readonly retryAtMs: number;
}

/** What a status that was written contained, as far as the next one depends on it. */
type WrittenInputs = Pick<StatusInputs, 'synced' | 'conflict' | 'flapping' | 'disconnects'>;

/** The state of a reporter's status writes. */
export class StatusState {
  readonly #bucket = newBucket();
  #isDirty = false;
  /** Defined if admission rewrote the last write. Written by `ReporterReconciler`. */
  rewritten: RewrittenStatus | undefined;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #comparedMs = Number.NEGATIVE_INFINITY;
  #disconnects: readonly ReporterDisconnect[] = [];

  /** Ends of streams that are not written yet, the newest first: at most as many as a status contains. */
  get disconnects(): readonly ReporterDisconnect[] {
    return this.#disconnects;
  }

  /** Records the end of a stream, which is written together with the next change of the status. */
  recordDisconnect(disconnect: ReporterDisconnect): void {
    this.#disconnects = [disconnect, ...this.#disconnects].slice(0, MAX_RECENT_DISCONNECTS);
  }

  /** True if the status may differ from what it should be. */
  get isDirty(): boolean {
    return this.#isDirty;
  }

  /** When changed counts may be written, monotonic ms. */
  get countsDueMs(): number {
    return this.#writtenMs + COUNTS_INTERVAL_MS;
  }

  /**
   * Returns when the tunnels are compared with the objects next while writes wait, monotonic ms.
   *
   * @param backlogMs when the writes have waited for long, after which they are compared once without a delay
   */
  compareDueMs(backlogMs: number): number {
    const intervalEndsMs = Math.max(this.#writtenMs, this.#comparedMs) + COMPARE_INTERVAL_MS;
    return this.#comparedMs < backlogMs ? Math.min(backlogMs, intervalEndsMs) : intervalEndsMs;
  }

  /** Records a comparison after which no write is due. */
  compared(nowMs: number): void {
    this.#comparedMs = nowMs;
  }

  /** Records that something changed that the status may report. */
  markDirty(): void {
    this.#isDirty = true;
  }

  /** Records that the status is up to date, or that it will only change with the passing of time. */
  settle(stillChanges: boolean): void {
    this.#isDirty = stillChanges;
  }

  /** Records a write. Events during the write leave the state dirty, and `statusChange` decides about them. */
  written(inputs: WrittenInputs, nowMs: number): void {
    this.#writtenMs = nowMs;
    this.#disconnects = this.#disconnects.filter((disconnect) => !inputs.disconnects.includes(disconnect));
    const { synced, conflict, flapping } = inputs;
    if (synced.reason !== 'UpToDate' || conflict || flapping !== undefined) this.#isDirty = true;
  }

  /** Takes one write from the reporter's rate. Returns how long to wait instead, in ms, if it is used up. */
  tryTake(nowMs: number): number {
    const waitMs = delayMs(this.#bucket, STATUS_WRITE_RATE, nowMs);
    if (waitMs === 0) take(this.#bucket, STATUS_WRITE_RATE, nowMs);
    return waitMs;
  }
}
