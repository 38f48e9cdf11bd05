import type { Clock } from '../clock.ts';
import type { Known, Ledger } from '../core/ledger.ts';
import type { Names } from '../core/names.ts';
import { nextStep, type Step } from '../core/plan.ts';
import {
  reportedStatus,
  rowLabels,
  rowManifest,
  rowPlace,
  type RowObject,
  type RowPlace,
} from '../core/row.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { isApiFailure, type ApiFailure, type RowApi } from './row-api.ts';
import type { RowCache } from './row-cache.ts';
import type { QueueItem } from './workqueue.ts';

/** What became of one look at a key. */
export type Outcome =
  /** The row is as it is to be. */
  | { readonly kind: 'done' }
  /** Worth another try soon: after `afterMs` if the API server named a time. */
  | { readonly kind: 'retry'; readonly afterMs?: number | undefined; readonly noAnswer: boolean }
  /** Refused; it will be again until somebody changes something. */
  | { readonly kind: 'refused' };

const DONE: Outcome = { kind: 'done' };

/**
 * Writes that one look may take. Two are the most that a rightful change needs (another identity: delete, create);
 * the rest leaves room for answers that teach something. A key that needs more is fought over, and goes back to the
 * queue.
 */
const MOST_STEPS = 4;

export interface ReconcilerParts {
  readonly api: RowApi;
  readonly ledger: Ledger;
  readonly cache: RowCache;
  readonly names: Names;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Brings the rows of one tunnel to what the ledger knows: compares the whole of both, writes the difference, learns
 * from the answer, and compares again until there is none. It asks only what is to be now, never what happened, so a
 * key that failed, was skipped or changed ten times meanwhile is served by the same one look.
 */
export class Reconciler {
  readonly #parts: ReconcilerParts;

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
  }

  async reconcile(item: QueueItem): Promise<Outcome> {
    const { clock, metrics } = this.#parts;
    const reporter = this.#parts.ledger.reporter(item.key);
    if (reporter === undefined) return DONE;
    for (let written = 0; written < MOST_STEPS; written += 1) {
      const step = this.#step(item);
      if (step === undefined) {
        if (written > 0) metrics.syncLagSeconds.observe((clock.monotonicMs() - item.sinceMs) / 1000);
        return DONE;
      }
      const outcome = await this.#take(step, reporter, item);
      if (outcome !== undefined) return outcome;
    }
    return { kind: 'retry', noAnswer: false };
  }

  /** The next write that a key needs, by what is known now; undefined when it needs none. */
  due(key: string, tunnelName: string): Step | undefined {
    const known: Known = this.#parts.ledger.known(key, tunnelName);
    return nextStep(known, this.#parts.cache.rows(key, tunnelName));
  }

  #step(item: QueueItem): Step | undefined {
    return this.due(item.key, item.tunnelName);
  }

  /** Takes one step; undefined when it went well enough to look again at once. */
  async #take(step: Step, reporter: ReporterId, item: QueueItem): Promise<Outcome | undefined> {
    const { metrics } = this.#parts;
    try {
      await this.#write(step, reporter, item);
      metrics.apiWrites.inc({ verb: step.do, outcome: 'ok' });
      return undefined;
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: step.do, outcome: error.consequence });
      return await this.#follow(error, step, reporter, item);
    }
  }

  async #write(step: Step, reporter: ReporterId, item: QueueItem): Promise<void> {
    const { api, cache, names, clock } = this.#parts;
    switch (step.do) {
      case 'create':
        cache.wrote(await api.create(rowManifest(names, reporter, step.tunnel)));
        return;
      case 'patch':
        cache.wrote(
          await api.patch(step.row, {
            labels: rowLabels(names, reporter, step.tunnel),
            createdAt: step.tunnel.createdAt ?? null,
          }),
        );
        return;
      case 'patchStatus': {
        const seconds = new Date(clock.wallMs()).toISOString().replace(/\.\d+Z$/, 'Z');
        cache.wrote(await api.patchStatus(step.row, reportedStatus(seconds)));
        return;
      }
      case 'delete':
        await api.delete(step.row);
        cache.deleted(item.key, item.tunnelName, step.row);
    }
  }

  /** What follows from a failed step; undefined when the answer taught enough to look again at once. */
  async #follow(
    failure: ApiFailure,
    step: Step,
    reporter: ReporterId,
    item: QueueItem,
  ): Promise<Outcome | undefined> {
    const { log, cache } = this.#parts;
    switch (failure.consequence) {
      case 'conflict':
        return await this.#readAgain(step, reporter, item);
      case 'already-exists':
        return await this.#readAgain(step, reporter, item);
      case 'gone':
        if (step.do === 'create') return { kind: 'refused' };
        cache.deleted(item.key, item.tunnelName, step.row);
        return undefined;
      case 'throttled':
      case 'unavailable':
      case 'malformed':
        return retry(failure);
      case 'cancelled':
        return { kind: 'done' };
      case 'refused':
      case 'unauthorized':
      case 'missing-kind':
      case 'missing-namespace':
      case 'terminating':
      case 'expired':
      case 'version-ahead':
        log.warn({ reporter, tunnel: item.tunnelName, error: failure.message }, 'row write refused');
        return { kind: 'refused' };
    }
  }

  /** Teaches the cache how the row that a step was about stands now. */
  async #readAgain(step: Step, reporter: ReporterId, item: QueueItem): Promise<Outcome | undefined> {
    const { api, cache, names } = this.#parts;
    const name = step.do === 'create' ? names.rowName(reporter, step.tunnel) : step.row.name;
    let found: RowObject | undefined;
    try {
      found = await api.read(name);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return retry(error);
    }
    if (found === undefined) {
      if (step.do !== 'create') cache.deleted(item.key, item.tunnelName, step.row);
      return undefined;
    }
    const place = rowPlace(found);
    if (place.key !== item.key || place.tunnelName !== item.tunnelName) {
      return this.#collided(name, place, item);
    }
    cache.wrote(found);
    // While it is being deleted, it holds the name until its last finalizer is gone.
    return found.metadata.deletionTimestamp === undefined ? undefined : { kind: 'retry', noAnswer: false };
  }

  /**
   * The name that a row derives is taken by the row of another tunnel: 65 bits of two hashes are the same, or somebody
   * made that row by hand. It is not overwritten.
   */
  #collided(name: string, place: RowPlace, item: QueueItem): Outcome {
    const { log, metrics } = this.#parts;
    metrics.rejectedTunnels.inc({ reason: 'name_collision' });
    log.error(
      { row: name, tunnel: item.tunnelName, heldBy: { reporter: place.reporter, tunnel: place.tunnelName } },
      'tunnel set aside: its row name is taken by another tunnel; delete that row if it is not rightful',
    );
    return { kind: 'refused' };
  }
}

function retry(failure: ApiFailure): Outcome {
  return { kind: 'retry', afterMs: failure.retryAfterMs, noAnswer: failure.status === undefined };
}
