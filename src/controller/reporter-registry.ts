import type { Clock } from '../clock.ts';
import type { DisconnectPhase } from '../core/grace-timer.ts';
import type { Names } from '../core/names.ts';
import { Ownership } from '../core/ownership.ts';
import { observeReporter } from '../core/reporter-object.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { ReporterCache } from './reporter-cache.ts';
import { createReporterEntry, Disconnection, type ReporterEntry } from './reporter-entry.ts';
import type { ControllerSettings } from './settings.ts';

/** Orphaned objects expire after this, or after `expireAfterMs` if that is less. */
const ORPHAN_EXPIRE_AFTER_MS = 60_000;
/**
 * A report proves that its peer was alive at a moment if it is read at least this much later, or half a report interval
 * later if that is less: reports in flight at that moment have been read by then.
 */
const FRESH_REPORT_AFTER_MS = 1000;

/** Creates the state machine of one reporter. Tests replace it with one that violates a rule. */
export type CreateOwnership = (self: string, freshReportAfterMs: () => number) => Ownership;

export interface ReporterRegistryEventHandler {
  /** A reporter is neither connected to this replica nor owned by it; whatever is stored about it must be dropped. */
  onReporterRemoved(key: string): void;
}

export interface ReporterRegistryOptions {
  /** This process: the replica ID with a random suffix per start. */
  readonly self: string;
  readonly names: Names;
  readonly cache: Pick<ReporterCache, 'get'>;
  readonly settings: ControllerSettings;
  readonly createOwnership?: CreateOwnership | undefined;
  readonly clock: Clock;
}

/** The reporters that are connected to this replica, owned by it, or about to be claimed. */
export class ReporterRegistry {
  readonly #options: ReporterRegistryOptions;
  readonly #handlers: ReporterRegistryEventHandler[] = [];
  readonly #entries = new Map<string, ReporterEntry>();

  constructor(options: ReporterRegistryOptions) {
    this.#options = options;
  }

  addEventHandler(handler: ReporterRegistryEventHandler): void {
    this.#handlers.push(handler);
  }

  /** The number of reporters. */
  get size(): number {
    return this.#entries.size;
  }

  entries(): Iterable<ReporterEntry> {
    return this.#entries.values();
  }

  entry(key: string): ReporterEntry | undefined {
    return this.#entries.get(key);
  }

  /** Returns how long a reporter has been disconnected, as a phase; undefined if it has a stream or is not owned. */
  phase(key: string): DisconnectPhase | undefined {
    return this.#entries.get(key)?.disconnection?.phase;
  }

  getOrCreate(reporter: ReporterId): ReporterEntry {
    const key = reporterKey(reporter);
    const existing = this.#entries.get(key);
    if (existing !== undefined) return existing;
    const { self, names, cache, settings, clock, createOwnership } = this.#options;
    const freshReportAfterMs = (): number => Math.min(FRESH_REPORT_AFTER_MS, settings.reportIntervalMs / 2);
    const ownership = createOwnership?.(self, freshReportAfterMs) ?? new Ownership(self, freshReportAfterMs);
    const object = cache.get(key);
    ownership.onObserved(object === undefined ? undefined : observeReporter(object), clock.monotonicMs());
    const entry = createReporterEntry(key, reporter, names.reporterObjectName(reporter), ownership);
    this.#entries.set(key, entry);
    return entry;
  }

  /** Removes a reporter that another replica owns, or that is gone. If it reconnects, it starts with a full push. */
  remove({ key }: ReporterEntry): void {
    if (this.#entries.delete(key)) for (const handler of this.#handlers) handler.onReporterRemoved(key);
  }

  /**
   * Starts the grace timer of a reporter that is owned and has no stream, and ends it otherwise. Must be called after
   * every change of ownership or stream.
   */
  trackDisconnect(entry: ReporterEntry): void {
    const { owns, hasConfirmedClaim, hasStream } = entry.ownership;
    // Uncertainty after a failed write does not end it: the timer would restart, and expired objects would be created again.
    if (!hasConfirmedClaim || hasStream) entry.disconnection = undefined;
    if (!owns || hasStream) return;
    const { clock, settings } = this.#options;
    const expireAfterMs = entry.isOrphan
      ? Math.min(settings.expireAfterMs, ORPHAN_EXPIRE_AFTER_MS)
      : settings.expireAfterMs;
    entry.disconnection ??= new Disconnection(clock.monotonicMs(), expireAfterMs);
  }
}
