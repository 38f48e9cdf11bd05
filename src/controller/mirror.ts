import type { Clock } from '../clock.ts';
import { OverLimitError, type Folded } from '../core/fold.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Report } from '../core/report.ts';
import type { EnvoyFacts, LostReason } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { Metrics } from '../metrics.ts';
import type { ReportFacts } from './reporters.ts';
import type { RowCache } from './row-cache.ts';
import type { RowGate } from './row-gate.ts';
import type { UndoPacing } from './undo-pacing.ts';
import type { Workers } from './workers.ts';
import type { Workqueue } from './workqueue.ts';

/** What the mirror brings together: what is reported, what is seen, and who looks at the difference. */
export interface MirrorParts {
  readonly ledger: Ledger;
  readonly cache: RowCache;
  readonly queue: Workqueue;
  readonly workers: Workers;
  /** Which reporters' rows are this replica's. */
  readonly gate: Pick<RowGate, 'isOpen' | 'foreignRow' | 'skipped' | 'phase'>;
  /** Told what streams and reports there are. */
  readonly streams: StreamDesk;
  /** True when a key needs a write, by what is known now. */
  readonly isDue: (key: string, tunnelName: string) => boolean;
  readonly pacing: UndoPacing;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** What is told of streams as a whole, apart from the tunnels in them. */
export interface StreamDesk {
  streamOpened(reporter: ReporterId, envoy: EnvoyFacts, isExpected: boolean): void;
  streamClosed(reporter: ReporterId, reason: LostReason): void;
  reportRead(key: string, report: ReportFacts, changed: boolean): void;
  grantChanged(key: string): void;
}

/** Why a report is not taken: its reporter, or all together, would hold more tunnels than may be. */
export interface OverLimit {
  readonly tunnels: number;
  readonly limit: number;
  /** True: both are of all reporters together. */
  readonly together: boolean;
}

/** Names that are compared and queued in one turn of the event loop: some 5 ms. Others' ACKs wait no longer for it. */
const NAMES_A_TURN = 4096;

/** What of a report, or of a reporter's rows, is still to be looked at. */
interface Look {
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
export class Mirror {
  readonly #parts: MirrorParts;
  /** Names of large reports that have not been looked at yet. */
  readonly #looks: Look[] = [];
  readonly #looked: (() => void)[] = [];
  /** Reporters with a stream, by key. */
  readonly #connected = new Set<string>();
  /** Tunnel names of reporters without one whose row was changed meanwhile, by key. */
  readonly #leftAlone = new Map<string, Set<string>>();

  constructor(parts: MirrorParts) {
    this.#parts = parts;
  }

  /**
   * A reporter has a new stream, also in place of an older one; to be called before its first report is folded.
   *
   * @param isExpected it was told to come back, and its former stream is no other Envoy's
   */
  reporterConnected(reporter: ReporterId, envoy: EnvoyFacts, isExpected = false): void {
    this.#connected.add(reporterKey(reporter));
    this.#parts.streams.streamOpened(reporter, envoy, isExpected);
  }

  /**
   * A reporter has no stream any more. What it said before is still written.
   *
   * @param why `shutdown`: it is this replica that goes, and nothing is to be said of the reporter
   */
  reporterDisconnected(reporter: ReporterId, why: LostReason | 'shutdown'): void {
    if (why === 'shutdown') return;
    this.#connected.delete(reporterKey(reporter));
    this.#parts.streams.streamClosed(reporter, why);
  }

  /**
   * Folds a report into the ledger, synchronously, and queues what it changed. When it returns undefined the report
   * is accepted in memory, whatever the API server does; otherwise nothing has changed.
   *
   * @param receivedMs when the report was read whole, monotonic
   */
  fold(
    reporter: ReporterId,
    report: Report & Pick<ReportFacts, 'setAside'>,
    receivedMs: number,
  ): OverLimit | undefined {
    const { ledger, cache, workers, gate, streams } = this.#parts;
    const key = reporterKey(reporter);
    let folded: Folded;
    try {
      folded = ledger.fold(reporter, report, cache.earlier(key));
    } catch (error) {
      if (error instanceof OverLimitError) {
        const { tunnels, limit, together } = error;
        return { tunnels, limit, together };
      }
      throw error;
    }
    streams.reportRead(key, report, folded.changed.length > 0 || folded.nowComplete);
    if (!gate.isOpen(key)) {
      // Nothing may be written yet. When it may, every row is looked at.
      gate.skipped(key);
      return undefined;
    }
    this.#queueDue(key, folded.changed, receivedMs);
    // It has said for the first time what it holds: rows found from before that it does not hold are to go.
    if (folded.nowComplete) this.#queueDue(key, cache.tunnelNames(key), receivedMs);
    const leftAlone = this.#leftAlone.get(key);
    if (leftAlone !== undefined) {
      this.#leftAlone.delete(key);
      this.#queueDue(key, leftAlone, receivedMs);
    }
    workers.wake();
    return undefined;
  }

  /**
   * A row is not what it was, by a list or by the watch. Where that leaves nothing to write (the usual case: the
   * watch shows one's own write, or another reporter's row) it costs nothing more.
   */
  rowChanged(key: string, tunnelName: string): void {
    const { cache, queue, workers, gate, isDue, pacing, clock, metrics } = this.#parts;
    if (!gate.isOpen(key)) {
      // Counted though nothing is written now: when the gate opens, the reporter's object may not have shown yet who did it.
      gate.foreignRow(key);
      gate.skipped(key);
      return;
    }
    const due = isDue(key, tunnelName);
    // With a worker on it, it is most likely that worker's own write, seen before its answer.
    if (due || !queue.isRunning(key, tunnelName)) gate.foreignRow(key);
    if (!due) return;
    // With a worker on it, or waiting for one, it is looked at again anyway: nobody undid anything.
    const held = queue.holds(key, tunnelName);
    if (!held && cache.hasListed && !this.#connected.has(key)) {
      this.#leaveAlone(key, tunnelName);
      return;
    }
    const nowMs = clock.monotonicMs();
    const waitMs = held ? 0 : pacing.waitMs(key, tunnelName);
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
  lookAtAll(key: string, sinceMs: number): void {
    const { ledger, gate, workers } = this.#parts;
    const phase = gate.phase(key);
    if (phase === 'unknown' || phase === 'expired') return;
    this.#leftAlone.delete(key);
    this.#queueDue(key, ledger.tunnelNames(key), sinceMs);
    this.#queueDue(key, this.#unheld(key), sinceMs);
    workers.wake();
  }

  /** A reporter may report something else than before: rows go or come, by what it holds, without a word from it. */
  grantChanged(key: string): void {
    const { ledger, cache, gate, streams, workers, clock, metrics } = this.#parts;
    const nowMs = clock.monotonicMs();
    const before = ledger.outsideCount(key);
    const changed = ledger.review(key);
    metrics.rejectedTunnels.inc({ reason: 'policy' }, Math.max(0, ledger.outsideCount(key) - before));
    if (!gate.isOpen(key)) gate.skipped(key);
    // All rows of one that is being expired go anyway, at a pace.
    else if (gate.phase(key) !== 'expired') {
      this.#queueDue(key, changed, nowMs);
      if (!ledger.isComplete(key)) this.#queueDue(key, cache.tunnelNames(key), nowMs);
      workers.wake();
    }
    streams.grantChanged(key);
  }

  /** Names that have a row and are not held: those that are have been looked at. */
  *#unheld(key: string): Iterable<string> {
    const { ledger, cache } = this.#parts;
    for (const name of cache.tunnelNames(key)) {
      if (ledger.known(key, name).is !== 'present') yield name;
    }
  }

  /** Resolves when all that was reported is in the queue. */
  looked(): Promise<void> {
    if (this.#looks.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#looked.push(resolve));
  }

  /** Nothing has to be remembered of a reporter any more. */
  forget(key: string): void {
    this.#parts.ledger.forget(key);
    this.#leftAlone.delete(key);
  }

  /** Queues one name of a reporter that is lost; false when there is nothing to do for it. */
  queueOne(key: string, tunnelName: string): boolean {
    const { queue, isDue, clock, metrics, workers } = this.#parts;
    if (queue.holds(key, tunnelName) || !isDue(key, tunnelName)) return false;
    metrics.workqueueAdds.inc({ name: 'tunnels' });
    queue.add(key, tunnelName, clock.monotonicMs());
    workers.wake();
    return true;
  }

  #leaveAlone(key: string, tunnelName: string): void {
    const names = this.#leftAlone.get(key);
    if (names === undefined) this.#leftAlone.set(key, new Set([tunnelName]));
    else names.add(tunnelName);
  }

  /** Queues those of the names that need a write: a few thousand at once, the rest in turns of the event loop to come. */
  #queueDue(key: string, tunnelNames: Iterable<string>, sinceMs: number): void {
    const look = { key, tunnelNames: tunnelNames[Symbol.iterator](), sinceMs };
    if (this.#lookOn(look)) return;
    this.#looks.push(look);
    if (this.#looks.length === 1) this.#lookLater();
  }

  /** Looks at the next few names; true when there are no more. */
  #lookOn({ key, tunnelNames, sinceMs }: Look): boolean {
    const { queue, isDue, metrics } = this.#parts;
    let added = 0;
    let isOver = false;
    for (let looked = 0; looked < NAMES_A_TURN; looked += 1) {
      const { done, value } = tunnelNames.next();
      if (done === true) {
        isOver = true;
        break;
      }
      // Of a key with a worker it is not known what its answer will change.
      if (!queue.holds(key, value) && !isDue(key, value)) continue;
      queue.add(key, value, sinceMs);
      added += 1;
    }
    metrics.workqueueAdds.inc({ name: 'tunnels' }, added);
    return isOver;
  }

  #lookLater(): void {
    const { clock, gate, workers } = this.#parts;
    clock.setTimer(0, () => {
      const look = this.#looks.shift();
      if (look === undefined) return;
      if (!gate.isOpen(look.key)) gate.skipped(look.key);
      else if (!this.#lookOn(look)) this.#looks.push(look);
      workers.wake();
      if (this.#looks.length > 0) this.#lookLater();
      else for (const resolve of this.#looked.splice(0)) resolve();
    });
  }
}
