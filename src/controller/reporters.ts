import type { LostPhase } from '../core/expiry.ts';
import type { Names } from '../core/names.ts';
import { Ownership, type Permission } from '../core/ownership.ts';
import type { Step } from '../core/plan.ts';
import { reporterSeen, type ReporterObject } from '../core/reporter-object.ts';
import type { EnvoyFacts, LostReason } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import { ReporterDriver, type DriverParts } from './reporter-driver.ts';
import { newEntry, type ReporterEntry } from './reporter-entry.ts';
import type { ApiFailure } from './row-api.ts';
import type { RowGate } from './row-gate.ts';
import { secondsText } from './seconds-text.ts';

/** An expiry delete is sent at most this long after a read that named this owner. */
const FRESH_FOR_MS = 1000;
/** What is read so much later than a moment was not on its way by then; half an interval, if that is less. */
const SPOKEN_AFTER_MS = 1000;

/** What the driver needs, and who this replica is. */
export interface ReportersParts extends Omit<DriverParts, 'forget'> {
  /** This process: `--replica-id` and a suffix of this start. */
  readonly self: string;
  readonly names: Names;
  /** Nothing has to be remembered of a reporter any more. */
  readonly onForgotten: (key: string) => void;
  /** Makes the state machine of one reporter; tests put one here that leaves a rule out. */
  readonly newOwnership?: (self: string, spokenAfterMs: () => number) => Ownership;
}

/** What a report says about its reporter as a whole. */
export interface ReportFacts {
  readonly fullPush: boolean;
  readonly added: { readonly length: number };
  readonly setAside: { readonly count: number; readonly first: readonly { readonly message: string }[] };
}

/**
 * The reporters that this replica has to do with: tells their state machines (`core/ownership`) what happens, and
 * does what they decide: claims, reads, status writes, one call at a time for each reporter. The row writes ask here
 * whether they may go out.
 */
export class Reporters implements RowGate {
  readonly #parts: ReportersParts;
  readonly #entries = new Map<string, ReporterEntry>();
  /** Sends the calls about the reporters' objects. */
  readonly driver: ReporterDriver;

  constructor(parts: ReportersParts) {
    this.#parts = parts;
    this.driver = new ReporterDriver({ ...parts, forget: (entry) => this.#forget(entry) });
  }

  entries(): Iterable<ReporterEntry> {
    return this.#entries.values();
  }

  entry(key: string): ReporterEntry | undefined {
    return this.#entries.get(key);
  }

  /**
   * A reporter has a new stream here, in place of an older one if there was one.
   *
   * @param isExpected it was told to come back: no sign that another Envoy reports as this one
   */
  streamOpened(reporter: ReporterId, envoy: EnvoyFacts, isExpected: boolean): void {
    const entry = this.#entryOf(reporter);
    const nowMs = this.#parts.clock.monotonicMs();
    const replaces = entry.stream !== undefined && !isExpected;
    if (replaces) this.#changedPlace(entry);
    entry.stream = {
      envoy,
      connectedSince: undefined,
      lastFullPush: undefined,
      rejected: 0,
      firstRejected: '',
    };
    entry.lost = undefined;
    entry.orphan = false;
    entry.ownership.streamOpened(nowMs, replaces ? entry.places.waitMs(nowMs) : 0);
  }

  /** Its stream has ended, for a reason of its own and not of this replica's shutdown. */
  streamClosed(reporter: ReporterId, reason: LostReason): void {
    const entry = this.#entries.get(reporterKey(reporter));
    if (entry === undefined) return;
    entry.stream = undefined;
    entry.lostReason = reason;
    entry.ownership.streamClosed();
    entry.touched = true;
    if (entry.ownership.owns) {
      this.#parts.events.tell(entry.reporter, 'lost', `Stream closed: ${reason}`);
    }
    this.driver.pump(entry);
  }

  /** A report of the reporter has been folded. @param changed its rows may have to change */
  reportRead(key: string, report: ReportFacts, changed: boolean): void {
    const entry = this.#entries.get(key);
    const stream = entry?.stream;
    if (entry === undefined || stream === undefined) return;
    const { clock, isListed } = this.#parts;
    stream.connectedSince ??= this.#nowText();
    if (report.fullPush) {
      const tunnels = report.added.length + report.setAside.count;
      stream.lastFullPush = { time: this.#nowText(), tunnels };
      stream.rejected = 0;
      entry.touched = true;
    }
    if (report.setAside.count > 0) {
      stream.rejected += report.setAside.count;
      stream.firstRejected = report.setAside.first[0]?.message ?? '';
      const said = `Rejected ${report.setAside.count} tunnels: ${stream.firstRejected}`;
      this.#parts.events.tell(entry.reporter, 'setAside', said);
      entry.touched = true;
    }
    if (changed) entry.touched = true;
    // Before everything is listed a claim could only guess what the object says: it is as if it were read then.
    if (isListed()) entry.ownership.reportRead(clock.monotonicMs());
    else entry.readEarly = true;
    this.driver.pump(entry);
  }

  /** It may report something else than before: what its status says of tunnels rejected is another. */
  grantChanged(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    entry.touched = true;
    this.driver.pump(entry);
  }

  /** Everything is listed, or this replica may write again: what has waited for it goes on. */
  resume(): void {
    const { clock, isListed } = this.#parts;
    if (!isListed()) return;
    for (const entry of this.#entries.values()) {
      if (entry.readEarly) {
        entry.readEarly = false;
        entry.ownership.reportRead(clock.monotonicMs());
      }
      this.driver.pump(entry);
    }
  }

  /** The object of a reporter is another than before, or gone. */
  objectChanged(key: string, after: ReporterObject | undefined, before: ReporterObject | undefined): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    const was = before === undefined ? undefined : reporterSeen(before);
    const is = after === undefined ? undefined : reporterSeen(after);
    const moved =
      was?.owner !== undefined && is?.owner !== undefined && was.owner.replica !== is.owner.replica;
    // From an owner that is gone, or had nobody to serve, to another is no quarrel.
    if (moved && was.connected && is.connected && this.#parts.standing.isServing(was.owner.replica)) {
      this.#changedPlace(entry);
    }
    const owned = entry.ownership.owns;
    entry.ownership.observed(is, this.#parts.clock.monotonicMs());
    if (owned && !entry.ownership.owns) {
      this.#parts.log.info({ reporter: entry.reporter, owner: is?.owner }, 'lost ownership of reporter');
    }
    entry.touched = true;
    this.driver.pump(entry);
  }

  /** Takes over what a dead owner left; `orphan`: rows without an object, which nobody may be waiting for. */
  inherit(reporter: ReporterId, orphan: boolean): void {
    const entry = this.#entryOf(reporter);
    if (entry.stream !== undefined) return;
    entry.orphan = orphan;
    entry.ownership.inherit();
    this.driver.pump(entry);
  }

  /** Nothing of the reporter waits to be written any more. */
  emptied(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    entry.backlogSinceMs = undefined;
    entry.touched = true;
    this.driver.pump(entry);
  }

  isOpen(key: string): boolean {
    const entry = this.#entries.get(key);
    return entry !== undefined && entry.ownership.owns && this.#parts.standing.mayWrite();
  }

  reporter(key: string): ReporterId | undefined {
    return this.#entries.get(key)?.reporter;
  }

  phase(key: string): LostPhase | undefined {
    return this.#entries.get(key)?.lost?.phase;
  }

  permission(key: string, write: Step['do']): Permission {
    const entry = this.#entries.get(key);
    const { standing, clock } = this.#parts;
    if (entry === undefined || !standing.mayWrite()) return 'no';
    if (write === 'expire') return entry.ownership.mayExpire(clock.monotonicMs(), FRESH_FOR_MS);
    return write === 'delete' ? entry.ownership.mayCollect(clock.monotonicMs()) : entry.ownership.mayWrite();
  }

  foreignRow(key: string): void {
    this.#entries.get(key)?.ownership.foreignRow();
  }

  skipped(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    if (this.isOpen(key)) {
      entry.collectLater = true;
      this.driver.pump(entry);
    } else entry.skippedSinceMs ??= this.#parts.clock.monotonicMs();
  }

  refused(key: string, tunnelName: string, answer: string | undefined): void {
    const entry = this.#entries.get(key);
    if (entry === undefined || (answer === undefined && entry.refused === undefined)) return;
    entry.touched = true;
    if (answer === undefined) {
      entry.refused?.delete(tunnelName);
      this.#endBacklog(entry, this.#parts.queue.pending(key) - 1);
      if (entry.refused?.size === 0) entry.refused = undefined;
    } else {
      const first = entry.refused === undefined;
      entry.refused ??= new Set();
      entry.refused.add(tunnelName);
      entry.refusedAnswer = answer;
      this.#endBacklog(entry, this.#parts.queue.pending(key));
      if (first) this.driver.pump(entry);
    }
  }

  freshRead(key: string): Promise<ApiFailure | undefined> {
    const entry = this.#entries.get(key);
    if (entry === undefined) return Promise.resolve(undefined);
    return this.driver.freshRead(entry);
  }

  /** Sends nothing more and leaves no timer. */
  stop(): void {
    this.driver.stop();
    for (const entry of this.#entries.values()) entry.cancelWake?.();
  }

  /**
   * Where none but refused rows wait, what comes next is no part of what waited before.
   *
   * @param waiting rows that wait, without the one whose worker says that it need not any more
   */
  #endBacklog(entry: ReporterEntry, waiting: number): void {
    if (waiting <= (entry.refused?.size ?? 0)) entry.backlogSinceMs = undefined;
  }

  #changedPlace(entry: ReporterEntry): void {
    const { clock, events, log, metrics } = this.#parts;
    if (!entry.places.changed(clock.monotonicMs())) return;
    entry.touched = true;
    metrics.identityConflicts.inc();
    log.warn(
      { reporter: entry.reporter },
      'two Envoys appear to report under the same node.cluster and node.id; their streams keep superseding each other',
    );
    events.tell(
      entry.reporter,
      'conflict',
      'Two Envoys appear to report under this node.cluster and node.id',
    );
  }

  #entryOf(reporter: ReporterId): ReporterEntry {
    const key = reporterKey(reporter);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      const { self, names, cache, clock, reportIntervalMs, newOwnership } = this.#parts;
      const spokenAfterMs = (): number => Math.min(SPOKEN_AFTER_MS, reportIntervalMs() / 2);
      const ownership = newOwnership?.(self, spokenAfterMs) ?? new Ownership(self, spokenAfterMs);
      const object = cache.get(key);
      ownership.observed(object === undefined ? undefined : reporterSeen(object), clock.monotonicMs());
      entry = newEntry(key, reporter, names.reporterName(reporter), ownership);
      this.#entries.set(key, entry);
    }
    return entry;
  }

  #forget(entry: ReporterEntry): void {
    entry.cancelWake?.();
    this.#entries.delete(entry.key);
    // It is another replica's now, or gone; if it comes back, it says anew what it holds.
    this.#parts.onForgotten(entry.key);
  }

  #nowText(): string {
    return secondsText(this.#parts.clock.wallMs());
  }
}
