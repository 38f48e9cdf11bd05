import type { Clock } from '../clock.ts';
import type { LimitExceeded } from '../core/apply-report.ts';
import type { Grant } from '../core/grant.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Report } from '../core/report.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { Metrics } from '../metrics.ts';
import type { ReportSummary } from './reporter-controller.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import type { RevertBackoff } from './revert-backoff.ts';
import type { Workers } from './workers.ts';
import type { Workqueue } from './workqueue.ts';

/** What the mirror brings together: what is reported, what is seen, and who looks at the difference. */
export interface TunnelEnqueuerOptions {
  readonly ledger: Ledger;
  /** What a reporter may report now. */
  readonly grantFor: (key: string) => Grant;
  readonly cache: TunnelCache;
  readonly queue: Workqueue;
  readonly workers: Workers;
  /** Which reporters' rows are this replica's. */
  readonly writeAuthorizer: Pick<WriteAuthorizer, 'canWrite' | 'externalChange' | 'writeSkipped' | 'phase'>;
  /** Told what streams and reports there are. */
  readonly streams: StreamObserver;
  /** True when a key needs a write, by what is known now. */
  readonly needsWrite: (key: string, tunnelName: string) => boolean;
  readonly revertBackoff: RevertBackoff;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** What is told of streams as a whole, apart from the tunnels in them. */
export interface StreamObserver {
  onStreamOpened(reporter: ReporterId, envoy: EnvoyMetadata, isReconnect: boolean): void;
  onStreamClosed(reporter: ReporterId, reason: ReporterDisconnectReason): void;
  onReport(key: string, report: ReportSummary, changed: boolean): void;
  onGrantChanged(key: string): void;
}

/** Names that are compared and queued in one turn of the event loop: some 5 ms. Others' ACKs wait no longer for it. */
const NAMES_PER_TICK = 4096;

/** What of a report, or of a reporter's rows, is still to be looked at. */
interface ScanJob {
  readonly key: string;
  readonly tunnelNames: Iterator<string, unknown, undefined>;
  readonly sinceMs: number;
}

/**
 * Where the two ways into the queue meet: what reporters say (a name changed in the ledger) and what the API server
 * shows (a row is not as it was). Both end as a key; what is to be done is decided when its turn comes.
 *
 * What somebody else does to a row is put right only while its reporter has a stream here: without one, the ledger may
 * be out of date, and whoever wrote the row (another operator that the reporter went to, a person who cleans up) may
 * know better. What was left so is looked at with the reporter's next report. Not so what the first list shows: nobody
 * has changed that since the reporter spoke, as far as can be known here, and its ACK promised that it is written.
 */
export class TunnelEnqueuer {
  readonly #options: TunnelEnqueuerOptions;
  /** Names of large reports that have not been looked at yet. */
  readonly #scans: ScanJob[] = [];
  readonly #drainWaiters: (() => void)[] = [];
  /** Reporters with a stream, by key. */
  readonly #connected = new Set<string>();
  /** Tunnel names of reporters without one whose row was changed meanwhile, by key. */
  readonly #deferred = new Map<string, Set<string>>();

  constructor(options: TunnelEnqueuerOptions) {
    this.#options = options;
  }

  /**
   * A reporter has a new stream, also in place of an older one; to be called before its first report is folded.
   *
   * @param isReconnect it was told to come back, and its former stream is no other Envoy's
   */
  reporterConnected(reporter: ReporterId, envoy: EnvoyMetadata, isReconnect = false): void {
    this.#connected.add(reporterKey(reporter));
    this.#options.streams.onStreamOpened(reporter, envoy, isReconnect);
  }

  /**
   * A reporter has no stream any more. What it said before is still written.
   *
   * @param why `shutdown`: it is this replica that goes, and nothing is to be said of the reporter
   */
  reporterDisconnected(reporter: ReporterId, why: ReporterDisconnectReason | 'shutdown'): void {
    if (why === 'shutdown') return;
    this.#connected.delete(reporterKey(reporter));
    this.#options.streams.onStreamClosed(reporter, why);
  }

  /**
   * Folds a report into the ledger, synchronously, and queues what it changed. When it returns undefined the report
   * is accepted in memory, whatever the API server does; otherwise nothing has changed.
   *
   * @param receivedMs when the report was read whole, monotonic
   */
  apply(
    reporter: ReporterId,
    report: Report & Pick<ReportSummary, 'rejected'>,
    receivedMs: number,
  ): LimitExceeded | undefined {
    const { ledger, cache, workers, writeAuthorizer, streams } = this.#options;
    const key = reporterKey(reporter);
    const change = ledger.apply(reporter, report, cache.priorState(key), this.#options.grantFor(key));
    if ('limit' in change) return change;
    streams.onReport(key, report, change.changed.length > 0 || change.becameComplete);
    if (!writeAuthorizer.canWrite(key)) {
      // Nothing may be written yet. When it may, every row is looked at.
      writeAuthorizer.writeSkipped(key);
      return undefined;
    }
    this.#enqueueChanged(key, change.changed, receivedMs);
    // It has said for the first time what it holds: rows found from before that it does not hold are to go.
    if (change.becameComplete) this.#enqueueChanged(key, cache.tunnelNames(key), receivedMs);
    const deferred = this.#deferred.get(key);
    if (deferred !== undefined) {
      this.#deferred.delete(key);
      this.#enqueueChanged(key, deferred, receivedMs);
    }
    workers.wake();
    return undefined;
  }

  /**
   * A row is not what it was, by a list or by the watch. Where that leaves nothing to write (the usual case: the
   * watch shows one's own write, or another reporter's row) it costs nothing more.
   */
  onObjectChanged(key: string, tunnelName: string): void {
    const { cache, queue, workers, writeAuthorizer, needsWrite, revertBackoff, clock, metrics } =
      this.#options;
    if (!writeAuthorizer.canWrite(key)) {
      // Counted though nothing is written now: when the gate opens, the reporter's object may not have shown yet who did it.
      writeAuthorizer.externalChange(key);
      writeAuthorizer.writeSkipped(key);
      return;
    }
    const isNeeded = needsWrite(key, tunnelName);
    // With a worker on it, it is most likely that worker's own write, seen before its answer.
    if (isNeeded || !queue.isRunning(key, tunnelName)) writeAuthorizer.externalChange(key);
    if (!isNeeded) return;
    // With a worker on it, or waiting for one, it is looked at again anyway: nobody undid anything.
    const isActive = queue.isActive(key, tunnelName);
    if (!isActive && cache.hasSynced && !this.#connected.has(key)) {
      this.#defer(key, tunnelName);
      return;
    }
    const nowMs = clock.monotonicMs();
    const waitMs = isActive ? 0 : revertBackoff.nextDelayMs(key, tunnelName);
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    if (waitMs > 0) {
      queue.addAfter({ key, tunnelName, sinceMs: nowMs }, waitMs);
      return;
    }
    queue.add(key, tunnelName, nowMs);
    workers.wake();
  }

  /**
   * The rows of a reporter are this replica's from now on, or again: what was reported and what was done to them
   * meanwhile is compared as a whole. Not of a reporter that is being expired, whose rows are gone through at a pace.
   */
  resync(key: string, sinceMs: number): void {
    const { ledger, writeAuthorizer, workers } = this.#options;
    const phase = writeAuthorizer.phase(key);
    if (phase === 'unknown' || phase === 'expired') return;
    this.#deferred.delete(key);
    this.#enqueueChanged(key, ledger.tunnelNames(key), sinceMs);
    this.#enqueueChanged(key, this.#namesNotReported(key), sinceMs);
    workers.wake();
  }

  /** A reporter may report something else than before: rows go or come, by what it holds, without a word from it. */
  onGrantChanged(key: string): void {
    const { ledger, cache, writeAuthorizer, streams, workers, clock, metrics } = this.#options;
    const nowMs = clock.monotonicMs();
    const before = ledger.deniedCount(key);
    const changed = ledger.setGrant(key, this.#options.grantFor(key));
    metrics.tunnelRejections.inc({ reason: 'policy' }, Math.max(0, ledger.deniedCount(key) - before));
    if (!writeAuthorizer.canWrite(key)) writeAuthorizer.writeSkipped(key);
    // All rows of one that is being expired go anyway, at a pace.
    else if (writeAuthorizer.phase(key) !== 'expired') {
      this.#enqueueChanged(key, changed, nowMs);
      if (!ledger.isComplete(key)) this.#enqueueChanged(key, cache.tunnelNames(key), nowMs);
      workers.wake();
    }
    streams.onGrantChanged(key);
  }

  /** Names that have a row and are not held: those that are have been looked at. */
  *#namesNotReported(key: string): Iterable<string> {
    const { ledger, cache } = this.#options;
    for (const name of cache.tunnelNames(key)) {
      if (ledger.tunnelState(key, name).state !== 'present') yield name;
    }
  }

  /** Resolves when all that was reported is in the queue. */
  drainWaiters(): Promise<void> {
    if (this.#scans.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#drainWaiters.push(resolve));
  }

  /** Nothing has to be remembered of a reporter any more. */
  forget(key: string): void {
    this.#options.ledger.forget(key);
    this.#deferred.delete(key);
  }

  /** Queues one name of a reporter that is lost; false when there is nothing to do for it. */
  enqueue(key: string, tunnelName: string): boolean {
    const { queue, needsWrite, clock, metrics, workers } = this.#options;
    if (queue.isActive(key, tunnelName) || !needsWrite(key, tunnelName)) return false;
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    queue.add(key, tunnelName, clock.monotonicMs());
    workers.wake();
    return true;
  }

  #defer(key: string, tunnelName: string): void {
    const names = this.#deferred.get(key);
    if (names === undefined) this.#deferred.set(key, new Set([tunnelName]));
    else names.add(tunnelName);
  }

  /** Queues those of the names that need a write: a few thousand at once, the rest in turns of the event loop to come. */
  #enqueueChanged(key: string, tunnelNames: Iterable<string>, sinceMs: number): void {
    const job = { key, tunnelNames: tunnelNames[Symbol.iterator](), sinceMs };
    if (this.#scanNext(job)) return;
    this.#scans.push(job);
    if (this.#scans.length === 1) this.#scheduleScan();
  }

  /** Looks at the next few names; true when there are no more. */
  #scanNext({ key, tunnelNames, sinceMs }: ScanJob): boolean {
    const { queue, needsWrite, metrics } = this.#options;
    let added = 0;
    let isDone = false;
    for (let scanned = 0; scanned < NAMES_PER_TICK; scanned += 1) {
      const { done, value } = tunnelNames.next();
      if (done === true) {
        isDone = true;
        break;
      }
      // Of a key with a worker it is not known what its answer will change.
      if (!queue.isActive(key, value) && !needsWrite(key, value)) continue;
      queue.add(key, value, sinceMs);
      added += 1;
    }
    metrics.workqueueAdds.inc({ name: 'tunnels' }, added);
    return isDone;
  }

  #scheduleScan(): void {
    const { clock, writeAuthorizer, workers } = this.#options;
    clock.setTimer(0, () => {
      const job = this.#scans.shift();
      if (job === undefined) return;
      if (!writeAuthorizer.canWrite(job.key)) writeAuthorizer.writeSkipped(job.key);
      else if (!this.#scanNext(job)) this.#scans.push(job);
      workers.wake();
      if (this.#scans.length > 0) this.#scheduleScan();
      else for (const resolve of this.#drainWaiters.splice(0)) resolve();
    });
  }
}
