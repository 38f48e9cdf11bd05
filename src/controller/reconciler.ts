import type { Clock } from '../clock.ts';
import type { Known, Ledger } from '../core/ledger.ts';
import type { Names } from '../core/names.ts';
import { nextLostStep, nextStep, type Step } from '../core/plan.ts';
import {
  lostStatus,
  reportedStatus,
  rowLabels,
  rowManifest,
  rowPlace,
  type RowObject,
  type RowPlace,
} from '../core/row.ts';
import { compareResourceVersions } from '../core/resource-version.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { RefusalLog } from './refusal-log.ts';
import { isApiFailure, type ApiFailure, type RowApi } from './row-api.ts';
import type { RowCache } from './row-cache.ts';
import type { RowGate } from './row-gate.ts';
import { secondsText } from './seconds-text.ts';
import type { QueueItem } from './workqueue.ts';

/** What became of one look at a key. */
export type Outcome =
  /** The row is as it is to be. `answered`: the API server had a part in it, so it is there. */
  | Done
  /** Worth another try soon. */
  | Retry
  /** Refused, with what answer; it will be again until somebody changes something. */
  | { readonly kind: 'rejected'; readonly answer: string };

interface Done {
  readonly kind: 'done';
  readonly answered: boolean;
}

/** A look that came to no end. It is never taken for a refusal: by itself the next try may succeed. */
export interface Retry {
  readonly kind: 'retry';
  /** True when nothing says that another key would fare better: the API server is away, busy, or lacks the kind. */
  readonly blocked: boolean;
  /** True when there was no answer at all: the watch may have lost its connection too. */
  readonly noAnswer: boolean;
  /** How long the API server asks to wait. */
  readonly afterMs: number | undefined;
}

/** This row needs another look, for a reason of its own. */
const AGAIN: Retry = { kind: 'retry', blocked: false, noAnswer: false, afterMs: undefined };

/** How metrics and log lines call a step: by the call that it takes. */
const VERBS = {
  create: 'create',
  patch: 'patch',
  patchStatus: 'patchStatus',
  markUnknown: 'patchStatus',
  delete: 'delete',
  expire: 'delete',
} as const;

/**
 * Writes that one look may take. Two are the most that a rightful change needs (another identity: delete, create);
 * the rest leaves room for answers that teach something. A key that needs more is fought over, and goes back to the
 * queue.
 */
const MOST_STEPS = 4;

/** What is compared (ledger, cache), what is asked (gate) and where the difference is written (api). */
export interface ReconcilerParts {
  readonly api: RowApi;
  readonly ledger: Ledger;
  readonly cache: RowCache;
  /** Asked before each write. */
  readonly gate: RowGate;
  readonly names: Names;
  /** Lists all rows again: those that are known are of a time that etcd no longer knows. */
  readonly relist: () => void;
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
  readonly #refusals: RefusalLog;

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
    this.#refusals = new RefusalLog(parts.clock, parts.log);
  }

  async reconcile(item: QueueItem): Promise<Outcome> {
    const { ledger, gate, clock, metrics } = this.#parts;
    const reporter = ledger.reporter(item.key) ?? gate.reporter(item.key);
    if (reporter === undefined) return { kind: 'done', answered: false };
    let written = 0;
    for (let steps = 0; ; steps += 1) {
      const step = this.due(item.key, item.tunnelName);
      if (step === undefined) {
        if (written > 0) metrics.syncLagSeconds.observe((clock.monotonicMs() - item.sinceMs) / 1000);
        gate.refused(item.key, item.tunnelName, undefined);
        return { kind: 'done', answered: steps > 0 };
      }
      if (steps === MOST_STEPS) return AGAIN;
      const permission = gate.permission(item.key, step.do);
      if (permission === 'no') {
        gate.skipped(item.key);
        return { kind: 'done', answered: written > 0 };
      }
      if (permission === 'read') {
        const failure = await gate.freshRead(item.key);
        if (failure !== undefined) return this.#unread(failure, reporter, item);
        // What was read, or came meanwhile, may say that nothing is to be done, or by somebody else.
        continue;
      }
      const outcome = await this.#take(step, reporter, item);
      if (outcome === 'written') written += 1;
      else if (outcome !== 'learnt') return outcome;
    }
  }

  /** The next write that a key needs, by what is known now; undefined when it needs none. */
  due(key: string, tunnelName: string): Step | undefined {
    const { ledger, cache, gate } = this.#parts;
    const rows = cache.rows(key, tunnelName);
    const known: Known = ledger.known(key, tunnelName, rows[0]?.tunnel);
    const phase = gate.phase(key);
    return phase === undefined ? nextStep(known, rows) : nextLostStep(known, rows, phase);
  }

  /** Takes one step. `written` and `learnt` (it was not, but the answer says more): look again at once. */
  async #take(step: Step, reporter: ReporterId, item: QueueItem): Promise<Outcome | 'written' | 'learnt'> {
    const { metrics } = this.#parts;
    try {
      await this.#write(step, reporter, item);
      metrics.apiWrites.inc({ verb: VERBS[step.do], outcome: 'ok' });
      return 'written';
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: VERBS[step.do], outcome: error.consequence });
      return await this.#follow(error, step, reporter, item);
    }
  }

  async #write(step: Step, reporter: ReporterId, item: QueueItem): Promise<void> {
    const { api, cache, names, clock } = this.#parts;
    switch (step.do) {
      case 'create': {
        const manifest = rowManifest(names, reporter, step.tunnel);
        cache.wrote(await api.create(manifest), manifest);
        return;
      }
      case 'patch':
        cache.wrote(
          await api.patch(step.row, {
            labels: rowLabels(names, reporter, step.tunnel),
            createdAt: step.tunnel.createdAt ?? null,
          }),
        );
        return;
      case 'patchStatus':
      case 'markUnknown': {
        const seconds = secondsText(clock.wallMs());
        const status = step.do === 'markUnknown' ? lostStatus(seconds) : reportedStatus(seconds);
        cache.wrote(await api.patchStatus(step.row, status));
        return;
      }
      case 'delete':
      case 'expire': {
        const left = await api.delete(step.row);
        // With a finalizer it stands until somebody removes that, and its name cannot be had before.
        if (left === undefined) cache.deleted(item.key, item.tunnelName, step.row);
        else cache.wrote(left);
      }
    }
  }

  /** What follows from a failed step. */
  async #follow(
    failure: ApiFailure,
    step: Step,
    reporter: ReporterId,
    item: QueueItem,
  ): Promise<Outcome | 'learnt'> {
    switch (failure.consequence) {
      case 'conflict':
      case 'already_exists':
        return await this.#readAgain(step, reporter, item);
      case 'not_found':
        // Of a create it says nothing about a row: something between here and the API server answers 404.
        if (step.do === 'create') return retry(failure);
        this.#parts.cache.deleted(item.key, item.tunnelName, step.row);
        this.#parts.gate.foreignRow(item.key);
        return 'learnt';
      case 'throttled':
      case 'unavailable':
        return retry(failure);
      case 'unexpected_response':
      case 'unauthorized':
      case 'no_kind_match':
      case 'namespace_not_found':
      case 'terminating':
        this.#refused(failure, step, reporter, item);
        return retry(failure);
      case 'cancelled':
        // Only the shutdown cancels: nothing will come of another try.
        return { kind: 'done', answered: false };
      case 'rejected':
      case 'expired':
      case 'resource_version_too_large':
        this.#refused(failure, step, reporter, item);
        return { kind: 'rejected', answer: failure.message };
    }
  }

  #refused(failure: ApiFailure, step: Step, reporter: ReporterId, item: QueueItem): void {
    this.#refusals.refused({
      reporter,
      tunnel: item.tunnelName,
      verb: VERBS[step.do],
      error: failure.message,
    });
  }

  /** The reporter's object could not be read. Where that is not allowed, other reporters need not fare the same. */
  #unread(failure: ApiFailure, reporter: ReporterId, item: QueueItem): Outcome {
    if (failure.consequence !== 'rejected') return retry(failure);
    const { message } = failure;
    this.#refusals.refused({ reporter, tunnel: item.tunnelName, verb: 'get', error: message });
    return { kind: 'rejected', answer: message };
  }

  /** Teaches the cache how the row that a step was about stands now. */
  async #readAgain(step: Step, reporter: ReporterId, item: QueueItem): Promise<Outcome | 'learnt'> {
    const { api, cache, gate, names, relist } = this.#parts;
    // Whoever it was may own the reporter by now.
    gate.foreignRow(item.key);
    const name = step.do === 'create' ? names.rowName(reporter, step.tunnel) : step.row.name;
    const known = cache.rows(item.key, item.tunnelName).find((row) => row.name === name);
    const newest = known?.resourceVersion ?? cache.shownVersion;
    let found: RowObject | undefined;
    try {
      found = await api.read(name);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return retry(error);
    }
    // Again: a fresh read that was answered meanwhile says nothing of what this answer shows.
    gate.foreignRow(item.key);
    if (found === undefined) {
      if (step.do !== 'create') cache.deleted(item.key, item.tunnelName, step.row);
      return 'learnt';
    }
    const place = rowPlace(found);
    if (place.key !== item.key || place.tunnelName !== item.tunnelName) {
      return this.#collided(name, place, item);
    }
    // A read shows nothing older than what was known when it was sent, unless etcd was restored. The cache takes no older
    // version but from a list: without one this write would meet the same conflict for ever.
    if (compareResourceVersions(found.metadata.resourceVersion, newest) < 0) relist();
    cache.wrote(found);
    // While it is being deleted, it holds the name until its last finalizer is gone.
    return found.metadata.deletionTimestamp === undefined ? 'learnt' : AGAIN;
  }

  /**
   * The name that a row derives is taken by the row of another tunnel: 65 bits of two hashes are the same, or somebody
   * made that row by hand. It is not overwritten.
   */
  #collided(name: string, place: RowPlace, item: QueueItem): Outcome {
    const { log, metrics } = this.#parts;
    metrics.rejectedTunnels.inc({ reason: 'name_collision' });
    log.error(
      {
        object: name,
        tunnel: item.tunnelName,
        conflictingObject: { reporter: place.reporter, tunnel: place.tunnelName },
        hint: 'delete the existing object if it is stale',
      },
      'tunnel rejected: its object name is taken by another tunnel',
    );
    return { kind: 'rejected', answer: `object name ${name} is taken by another tunnel` };
  }
}

function retry(failure: ApiFailure): Retry {
  const noAnswer = failure.status === undefined;
  return { kind: 'retry', blocked: true, noAnswer, afterMs: failure.retryAfterMs };
}
