import { RewrittenObjects, type RewrittenWrite } from './rewritten-objects.ts';

/** Changes that wait for longer than this are reported as a backlog. */
const BACKLOG_THRESHOLD_MS = 10_000;

/**
 * The writes of one reporter's objects that are outstanding: skipped while this replica did not own the reporter,
 * deferred, rejected by the API server, or waiting in the queue. Its methods are the only writers of this state.
 */
export class PendingWrites {
  #skippedSinceMs: number | undefined;
  #skippedChangeSinceMs: number | undefined;
  #deletionsDeferred = false;
  #backlogSinceMs: number | undefined;
  /** True once the status may report the backlog, until it ends. */
  mayReportBacklog = false;
  /** The number of tunnels by item whose write is rejected; undefined while there are none. */
  #rejected: Map<string, number> | undefined;
  /** The sum of `#rejected`. */
  #rejectedCount = 0;
  #lastRejection = '';
  /** Flapping tunnels whose next write is delayed; undefined while there are none. */
  #limited: Set<string> | undefined;
  /** The objects that admission rewrites. */
  readonly rewritten = new RewrittenObjects();

  /** When the first write was skipped since the last resync, monotonic ms; undefined if none was. */
  get skippedSinceMs(): number | undefined {
    return this.#skippedSinceMs;
  }

  /**
   * Since when a change has waited that was skipped, monotonic ms; undefined if none was. Unlike `skippedSinceMs`, it is
   * not set by reports without a change.
   */
  get skippedChangeSinceMs(): number | undefined {
    return this.#skippedChangeSinceMs;
  }

  /** True if deletes were skipped because the reporter's stream is not confirmed fresh since the claim. */
  get deletionsDeferred(): boolean {
    return this.#deletionsDeferred;
  }

  /**
   * Since when there has always been a waiting write, monotonic ms; undefined if none waits. Blocked
   * writes do not count: rejected ones wait for hours, and the next change must not be taken for as old as they are.
   */
  get backlogSinceMs(): number | undefined {
    return this.#backlogSinceMs;
  }

  /** The number of tunnels whose writes the API server rejects. */
  get rejectedCount(): number {
    return this.#rejectedCount;
  }

  /** The number of flapping tunnels whose next write is delayed. */
  get limitedCount(): number {
    return this.#limited?.size ?? 0;
  }

  /** The number of items that wait for something else than a worker: rejected, rewritten or limited. */
  get blockedCount(): number {
    return (this.#rejected?.size ?? 0) + this.rewritten.size + this.limitedCount;
  }

  /** Returns true while the next write of a flapping tunnel is delayed. */
  isLimited(tunnelName: string): boolean {
    return this.#limited?.has(tunnelName) === true;
  }

  limitedNames(): Iterable<string> {
    return this.#limited ?? [];
  }

  /**
   * Records that the next write of a flapping tunnel is delayed.
   *
   * @param waiting writes that wait, this one included
   */
  limit(tunnelName: string, waiting: number): void {
    (this.#limited ??= new Set()).add(tunnelName);
    this.#endBacklogIfOnlyBlocked(waiting);
  }

  /** Records that a flapping tunnel is reconciled. */
  endLimit(tunnelName: string): void {
    if (this.#limited?.delete(tunnelName) === true && this.#limited.size === 0) this.#limited = undefined;
  }

  /** Returns true if a write of a tunnel waits for a change on the server. */
  isBlocked(tunnelName: string): boolean {
    return this.#rejected?.has(tunnelName) === true || this.rewritten.has(tunnelName);
  }

  /** Returns the tunnels that wait for a change on the server. */
  blockedNames(): string[] {
    return [...(this.#rejected?.keys() ?? []), ...this.rewritten.names()];
  }

  /** The latest rejection, for the status; empty before the first. */
  get lastRejection(): string {
    return this.#lastRejection;
  }

  /**
   * Records that this replica may not write.
   *
   * @param isChange true if there is something to write
   */
  skip(nowMs: number, isChange: boolean): void {
    this.#skippedSinceMs ??= nowMs;
    if (isChange) this.#skippedChangeSinceMs ??= nowMs;
  }

  /** Records that a delete was not sent because the stream is not confirmed fresh. */
  deferDeletion(): void {
    this.#deletionsDeferred = true;
  }

  /**
   * Takes the skipped writes for a resync.
   *
   * @param canDelete true once the stream is confirmed fresh
   * @returns when the first of them was skipped; undefined if there is nothing to resync
   */
  takeSkipped(canDelete: boolean, nowMs: number): number | undefined {
    const resyncsDeletions = this.#deletionsDeferred && canDelete;
    const skippedSinceMs = this.#skippedSinceMs;
    if (skippedSinceMs === undefined && !resyncsDeletions) return undefined;
    this.#skippedSinceMs = undefined;
    this.#skippedChangeSinceMs = undefined;
    if (resyncsDeletions) this.#deletionsDeferred = false;
    this.#backlogSinceMs ??= nowMs;
    return skippedSinceMs ?? nowMs;
  }

  /** Records that no write waits. */
  endBacklog(): void {
    this.#backlogSinceMs = undefined;
    this.mayReportBacklog = false;
  }

  /**
   * Records a rejection.
   *
   * @param itemName a tunnel, or the queue item of a slice
   * @param waiting writes that wait, this one included
   * @param tunnels the number of tunnels that the write concerns
   * @returns true if no other write of the reporter was rejected
   */
  reject(itemName: string, answer: string, waiting: number, tunnels = 1): boolean {
    const isFirst = this.#rejected === undefined;
    this.#rejected ??= new Map();
    this.#rejectedCount += tunnels - (this.#rejected.get(itemName) ?? 0);
    this.#rejected.set(itemName, tunnels);
    this.#lastRejection = answer;
    this.#endBacklogIfOnlyBlocked(waiting);
    return isFirst;
  }

  /**
   * Records a write that admission rewrote.
   *
   * @param waiting writes that wait, this one included
   * @returns true if no other object of the reporter is rewritten
   */
  rewrite(tunnelName: string, write: RewrittenWrite, waiting: number, nowMs: number): boolean {
    const isFirst = this.rewritten.record(tunnelName, write, nowMs);
    this.#endBacklogIfOnlyBlocked(waiting);
    return isFirst;
  }

  /**
   * Records that a tunnel needs no write.
   *
   * @param waiting other writes that wait
   * @param isCompared true if no part of the objects differs from what is desired
   */
  accept(tunnelName: string, waiting: number, isCompared = true): void {
    if (this.blockedCount === 0) return;
    this.#rejectedCount -= this.#rejected?.get(tunnelName) ?? 0;
    this.#rejected?.delete(tunnelName);
    if (isCompared) this.rewritten.remove(tunnelName);
    this.#endBacklogIfOnlyBlocked(waiting);
    if (this.#rejected?.size === 0) this.#rejected = undefined;
  }

  /** Starts or ends the backlog by the number of waiting writes. Returns when it is old, monotonic ms; Infinity without one. */
  updateBacklog(waiting: number, nowMs: number): number {
    this.#endBacklogIfOnlyBlocked(waiting);
    if (waiting <= this.blockedCount) return Number.POSITIVE_INFINITY;
    this.#backlogSinceMs ??= nowMs;
    return this.#backlogSinceMs + BACKLOG_THRESHOLD_MS;
  }

  #endBacklogIfOnlyBlocked(waiting: number): void {
    if (waiting <= this.blockedCount) this.endBacklog();
  }
}
