import type { Clock } from '../clock.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Report } from '../core/report.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { Metrics } from '../metrics.ts';
import type { RowCache } from './row-cache.ts';
import type { UndoPacing } from './undo-pacing.ts';
import type { Workers } from './workers.ts';
import type { Workqueue } from './workqueue.ts';

export interface MirrorParts {
  readonly ledger: Ledger;
  readonly cache: RowCache;
  readonly queue: Workqueue;
  readonly workers: Workers;
  /** True when a key needs a write, by what is known now. */
  readonly isDue: (key: string, tunnelName: string) => boolean;
  readonly pacing: UndoPacing;
  readonly maxTunnelsPerReporter: number;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Why a report is not taken: it would hold more tunnels than a reporter may have. */
export interface OverLimit {
  readonly tunnels: number;
  readonly limit: number;
}

/**
 * Where the two ways into the queue meet: what reporters say (a name changed in the ledger) and what the API server
 * shows (a row is not as it was). Both end as a key; what is to be done is decided when its turn comes.
 */
export class Mirror {
  readonly #parts: MirrorParts;

  constructor(parts: MirrorParts) {
    this.#parts = parts;
  }

  /**
   * Folds a report into the ledger, synchronously, and queues what it changed. When it returns undefined the report
   * is accepted in memory, whatever the API server does; otherwise nothing has changed.
   *
   * @param receivedMs when the report was read whole, monotonic
   */
  fold(reporter: ReporterId, report: Report, receivedMs: number): OverLimit | undefined {
    const { ledger, cache, queue, workers, metrics, maxTunnelsPerReporter } = this.#parts;
    const key = reporterKey(reporter);
    const most = report.added.length + (report.fullPush ? 0 : ledger.heldCount(key));
    if (most > maxTunnelsPerReporter) return { tunnels: most, limit: maxTunnelsPerReporter };

    const { changed, nowComplete } = ledger.fold(reporter, report, cache.earlier(key));
    for (const tunnelName of changed) queue.add(key, tunnelName, receivedMs);
    metrics.workqueueAdds.inc(changed.length);
    if (nowComplete) this.#collect(key, receivedMs);
    workers.wake();
    return undefined;
  }

  /**
   * A row is not what it was, by a list or by the watch. Where that leaves nothing to write (the usual case: the
   * watch shows one's own write, or another reporter's row) it costs nothing more.
   */
  rowChanged(key: string, tunnelName: string): void {
    const { queue, workers, isDue, pacing, clock, metrics } = this.#parts;
    if (!isDue(key, tunnelName)) return;
    const nowMs = clock.monotonicMs();
    const item = { key, tunnelName, sinceMs: nowMs };
    // With a worker on it, or waiting for one, it is looked at again anyway: nobody undid anything.
    const waitMs = queue.holds(key, tunnelName) ? 0 : pacing.waitMs(key, tunnelName);
    metrics.workqueueAdds.inc();
    if (waitMs > 0) {
      queue.addAfter(item, waitMs);
      return;
    }
    queue.add(key, tunnelName, nowMs);
    workers.wake();
  }

  /** A reporter has said for the first time what it holds: rows found from before that it does not hold are to go. */
  #collect(key: string, sinceMs: number): void {
    const { cache, queue, isDue } = this.#parts;
    for (const tunnelName of cache.tunnelNames(key)) {
      if (isDue(key, tunnelName)) queue.add(key, tunnelName, sinceMs);
    }
  }
}
