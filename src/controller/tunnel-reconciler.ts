import type { Clock } from '../clock.ts';
import type { TunnelState, Ledger } from '../core/ledger.ts';
import type { Names } from '../core/names.ts';
import { nextDisconnectedAction, nextAction, type TunnelAction } from '../core/plan.ts';
import {
  unknownStatus,
  reportedStatus,
  labelsFor,
  manifestFor,
  tunnelKeyOf,
  type TunnelObject,
  type TunnelKey,
} from '../core/tunnel-object.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import type { ReporterId } from '../core/tunnel.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { isApiFailure, type ApiFailure, type TunnelObjectApi } from './tunnel-object-api.ts';
import type { TunnelCache } from './tunnel-cache.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import { rfc3339 } from '../timestamps.ts';
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
  readonly unreachable: boolean;
  /** How long the API server asks to wait. */
  readonly retryAfterMs: number | undefined;
}

/** This row needs another look, for a reason of its own. */
const REQUEUE: Retry = { kind: 'retry', blocked: false, unreachable: false, retryAfterMs: undefined };

/** A used-up quota rejects thousands of writes, each again and again: one line in 10 s stands for all of them. */
const REJECTION_LOG_INTERVAL_MS = 10_000;
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
const MAX_WRITES = 4;

/** What is compared (ledger, cache), what is asked (gate) and where the difference is written (api). */
export interface TunnelReconcilerOptions {
  readonly api: TunnelObjectApi;
  readonly ledger: Ledger;
  readonly cache: TunnelCache;
  /** Asked before each write. */
  readonly writeAuthorizer: WriteAuthorizer;
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
export class TunnelReconciler {
  readonly #options: TunnelReconcilerOptions;
  readonly #throttled: LogThrottle;

  constructor(options: TunnelReconcilerOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock, REJECTION_LOG_INTERVAL_MS);
  }

  async reconcile(item: QueueItem): Promise<Outcome> {
    const { ledger, writeAuthorizer, clock, metrics } = this.#options;
    const reporter = ledger.reporter(item.key) ?? writeAuthorizer.reporter(item.key);
    if (reporter === undefined) return { kind: 'done', answered: false };
    let written = 0;
    for (let steps = 0; ; steps += 1) {
      const action = this.nextWrite(item.key, item.tunnelName);
      if (action === undefined) {
        if (written > 0) metrics.syncLagSeconds.observe((clock.monotonicMs() - item.sinceMs) / 1000);
        writeAuthorizer.writeRejected(item.key, item.tunnelName, undefined);
        return { kind: 'done', answered: steps > 0 };
      }
      if (steps === MAX_WRITES) return REQUEUE;
      const permission = writeAuthorizer.authorize(item.key, action.type);
      if (permission === 'deny') {
        writeAuthorizer.writeSkipped(item.key);
        return { kind: 'done', answered: written > 0 };
      }
      if (permission === 'verify') {
        const failure = await writeAuthorizer.liveRead(item.key);
        if (failure !== undefined) return this.#handleReadFailure(failure, reporter, item);
        // What was read, or came meanwhile, may say that nothing is to be done, or by somebody else.
        continue;
      }
      const outcome = await this.#execute(action, reporter, item);
      if (outcome === 'written') written += 1;
      else if (outcome !== 'learnt') return outcome;
    }
  }

  /** The next write that a key needs, by what is known now; undefined when it needs none. */
  nextWrite(key: string, tunnelName: string): TunnelAction | undefined {
    const { ledger, cache, writeAuthorizer } = this.#options;
    const objects = cache.objects(key, tunnelName);
    const state: TunnelState = ledger.tunnelState(key, tunnelName, objects[0]?.tunnel);
    const phase = writeAuthorizer.phase(key);
    return phase === undefined ? nextAction(state, objects) : nextDisconnectedAction(state, objects, phase);
  }

  /** Takes one step. `written` and `learnt` (it was not, but the answer says more): look again at once. */
  async #execute(
    action: TunnelAction,
    reporter: ReporterId,
    item: QueueItem,
  ): Promise<Outcome | 'written' | 'learnt'> {
    const { metrics } = this.#options;
    try {
      await this.#write(action, reporter, item);
      metrics.apiWrites.inc({ verb: VERBS[action.type], outcome: 'ok' });
      return 'written';
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      metrics.apiWrites.inc({ verb: VERBS[action.type], outcome: error.kind });
      return await this.#handleFailure(error, action, reporter, item);
    }
  }

  async #write(action: TunnelAction, reporter: ReporterId, item: QueueItem): Promise<void> {
    const { api, cache, names, clock } = this.#options;
    switch (action.type) {
      case 'create': {
        const manifest = manifestFor(names, reporter, action.tunnel);
        cache.applyWrite(await api.create(manifest), manifest);
        return;
      }
      case 'patch':
        cache.applyWrite(
          await api.patch(action.object, {
            labels: labelsFor(names, reporter, action.tunnel),
            createdAt: action.tunnel.createdAt ?? null,
          }),
        );
        return;
      case 'patchStatus':
      case 'markUnknown': {
        const seconds = rfc3339(clock.wallMs());
        const status = action.type === 'markUnknown' ? unknownStatus(seconds) : reportedStatus(seconds);
        cache.applyWrite(await api.patchStatus(action.object, status));
        return;
      }
      case 'delete':
      case 'expire': {
        const remaining = await api.delete(action.object);
        // With a finalizer it stands until somebody removes that, and its name cannot be had before.
        if (remaining === undefined) cache.applyDelete(item.key, item.tunnelName, action.object);
        else cache.applyWrite(remaining);
      }
    }
  }

  /** What follows from a failed step. */
  async #handleFailure(
    failure: ApiFailure,
    action: TunnelAction,
    reporter: ReporterId,
    item: QueueItem,
  ): Promise<Outcome | 'learnt'> {
    switch (failure.kind) {
      case 'conflict':
      case 'already_exists':
        return await this.#refresh(action, reporter, item);
      case 'not_found':
        // Of a create it says nothing about a row: something between here and the API server answers 404.
        if (action.type === 'create') return retry(failure);
        this.#options.cache.applyDelete(item.key, item.tunnelName, action.object);
        this.#options.writeAuthorizer.externalChange(item.key);
        return 'learnt';
      case 'throttled':
      case 'unavailable':
        return retry(failure);
      case 'unexpected_response':
      case 'unauthorized':
      case 'no_kind_match':
      case 'namespace_not_found':
      case 'terminating':
        this.#logRejection(failure, action, reporter, item);
        return retry(failure);
      case 'cancelled':
        // Only the shutdown cancels: nothing will come of another try.
        return { kind: 'done', answered: false };
      case 'rejected':
      case 'expired':
      case 'resource_version_too_large':
        this.#logRejection(failure, action, reporter, item);
        return { kind: 'rejected', answer: failure.message };
    }
  }

  #logRejection(failure: ApiFailure, action: TunnelAction, reporter: ReporterId, item: QueueItem): void {
    this.#logRejectedCall(reporter, item, VERBS[action.type], failure.message);
  }

  #logRejectedCall(reporter: ReporterId, item: QueueItem, verb: string, error: string): void {
    this.#throttled('rejected', (suppressed) =>
      this.#options.log.warn(
        { reporter, tunnel: item.tunnelName, verb, error, ...suppressed },
        'ReverseTunnel write rejected; retrying with backoff',
      ),
    );
  }

  /** The reporter's object could not be read. Where that is not allowed, other reporters need not fare the same. */
  #handleReadFailure(failure: ApiFailure, reporter: ReporterId, item: QueueItem): Outcome {
    if (failure.kind !== 'rejected') return retry(failure);
    const { message } = failure;
    this.#logRejectedCall(reporter, item, 'get', message);
    return { kind: 'rejected', answer: message };
  }

  /** Teaches the cache how the row that a step was about stands now. */
  async #refresh(action: TunnelAction, reporter: ReporterId, item: QueueItem): Promise<Outcome | 'learnt'> {
    const { api, cache, writeAuthorizer, names, relist } = this.#options;
    // Whoever it was may own the reporter by now.
    writeAuthorizer.externalChange(item.key);
    const name =
      action.type === 'create' ? names.tunnelObjectName(reporter, action.tunnel) : action.object.name;
    const known = cache.objects(item.key, item.tunnelName).find((known) => known.name === name);
    const newest = known?.resourceVersion ?? cache.latestResourceVersion;
    let object: TunnelObject | undefined;
    try {
      object = await api.read(name);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return retry(error);
    }
    // Again: a fresh read that was answered meanwhile says nothing of what this answer shows.
    writeAuthorizer.externalChange(item.key);
    if (object === undefined) {
      if (action.type !== 'create') cache.applyDelete(item.key, item.tunnelName, action.object);
      return 'learnt';
    }
    const tunnelKey = tunnelKeyOf(object);
    if (tunnelKey.key !== item.key || tunnelKey.tunnelName !== item.tunnelName) {
      return this.#handleNameCollision(name, tunnelKey, item);
    }
    // A read shows nothing older than what was known when it was sent, unless etcd was restored. The cache takes no older
    // version but from a list: without one this write would meet the same conflict for ever.
    if (compareResourceVersions(object.metadata.resourceVersion, newest) < 0) relist();
    cache.applyWrite(object);
    // While it is being deleted, it holds the name until its last finalizer is gone.
    return object.metadata.deletionTimestamp === undefined ? 'learnt' : REQUEUE;
  }

  /**
   * The name that a row derives is taken by the row of another tunnel: 65 bits of two hashes are the same, or somebody
   * made that row by hand. It is not overwritten.
   */
  #handleNameCollision(name: string, tunnelKey: TunnelKey, item: QueueItem): Outcome {
    const { log, metrics } = this.#options;
    metrics.tunnelRejections.inc({ reason: 'name_collision' });
    log.error(
      {
        object: name,
        tunnel: item.tunnelName,
        conflictingObject: { reporter: tunnelKey.reporter, tunnel: tunnelKey.tunnelName },
        hint: 'delete the existing object if it is stale',
      },
      'tunnel rejected: its object name is taken by another tunnel',
    );
    return { kind: 'rejected', answer: `object name ${name} is taken by another tunnel` };
  }
}

function retry(failure: ApiFailure): Retry {
  const noAnswer = failure.status === undefined;
  return { kind: 'retry', blocked: true, unreachable: noAnswer, retryAfterMs: failure.retryAfterMs };
}
