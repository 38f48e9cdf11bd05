import type { Clock } from '../clock.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import type { ReporterId } from '../core/tunnel.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { EventRecorder } from './event-recorder.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import { RETRY_SOON, type Outcome, type Retry } from './workers.ts';
import type { QueueItem } from './workqueue.ts';
import type { WriteAuthorizer } from './write-authorizer.ts';
import { isApiFailure, type ApiFailure } from './write-outcome.ts';

/** A used-up quota rejects thousands of writes again and again; one line per 10 s stands for all of them. */
const REJECTION_LOG_INTERVAL_MS = 10_000;

/** The reconciliation of an item, for messages. */
export interface ReconciledItem {
  readonly item: QueueItem;
  readonly reporter: ReporterId;
  readonly kind: 'ReverseTunnel' | 'ReverseTunnelSlice';
  /** Log fields that identify the item. */
  readonly fields: object;
}

/** A write, and how its object is read again if the write fails. */
export interface WriteTarget<T> extends ReconciledItem {
  readonly verb: string;
  readonly isCreate: boolean;
  /** The newest version that the object can have as far as the cache knows. */
  knownVersion(): string;
  /** Reads the object from the API server; undefined if it does not exist. */
  read(): Promise<T | undefined>;
  /** Updates the cache with the object as read. */
  stored(object: T): void;
  /** Updates the cache: the object does not exist. */
  gone(): void;
  /**
   * Handles an object of another reporter or tunnel that has the name.
   *
   * @returns undefined if the object is the right one
   */
  collided(object: T): Outcome | undefined;
  /** Lists the objects again: etcd was restored, and the watch may not show it. */
  relist(): void;
}

export interface WriteFailuresOptions {
  readonly registry: ReporterRegistry;
  readonly writeAuthorizer: WriteAuthorizer;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly log: Log;
}

/** Reacts to failed writes of ReverseTunnel objects and slices by the kind of the failure. */
export class WriteFailures {
  readonly #options: WriteFailuresOptions;
  readonly #throttled: LogThrottle;

  constructor(options: WriteFailuresOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock, REJECTION_LOG_INTERVAL_MS);
  }

  /** Returns what follows from a failed write: `refreshed` if the cache was updated with its cause. */
  async react<T extends StoredObject>(
    failure: ApiFailure,
    target: WriteTarget<T>,
  ): Promise<Outcome | 'refreshed'> {
    switch (failure.kind) {
      case 'conflict':
      case 'already_exists':
        return await this.#refresh(target);
      case 'not_found':
        // For a create this does not concern the object: something on the way to the API server responds with 404.
        if (target.isCreate) return retry(failure);
        target.gone();
        this.#options.writeAuthorizer.externalChange(target.item.key);
        return 'refreshed';
      case 'throttled':
      case 'unavailable':
        return retry(failure);
      case 'no_kind_match':
        // An API server without slices still accepts objects, which must not wait for them.
        return target.kind === 'ReverseTunnelSlice'
          ? this.#reject(failure, target)
          : this.#block(failure, target);
      case 'unexpected_response':
      case 'unauthorized':
      case 'namespace_not_found':
      case 'terminating':
        return this.#block(failure, target);
      case 'cancelled':
        // Only the shutdown cancels requests; a retry would be cancelled too.
        return { kind: 'done', answered: false };
      case 'rejected':
      case 'expired':
      case 'resource_version_too_large':
        return this.#reject(failure, target);
    }
  }

  /** The write fails until something changes on the server, and others probably do, too. */
  #block<T>(failure: ApiFailure, target: WriteTarget<T>): Outcome {
    this.#logRejection(target, target.verb, failure.message);
    return retry(failure);
  }

  /** The write fails until something changes on the server. */
  #reject<T>({ message }: ApiFailure, target: WriteTarget<T>): Outcome {
    this.#logRejection(target, target.verb, message);
    this.#recordRejection(target, message);
    return { kind: 'rejected', answer: message };
  }

  /** Reacts to a failed live read. A rejection concerns this reporter; other reporters may fare better. */
  reactToRead(failure: ApiFailure, reconciled: ReconciledItem): Outcome {
    if (failure.kind !== 'rejected') return retry(failure);
    this.#logRejection(reconciled, 'get', failure.message);
    return { kind: 'rejected', answer: failure.message };
  }

  #logRejection({ reporter, kind, fields }: ReconciledItem, verb: string, error: string): void {
    this.#throttled(`rejected ${kind}`, (suppressed) =>
      this.#options.log.warn(
        { reporter, ...fields, verb, error, ...suppressed },
        `${kind} write rejected; retrying with backoff`,
      ),
    );
  }

  /** Records an Event for the first rejected object of a reporter; those that follow at once are rejected alike. */
  #recordRejection({ reporter, item: { key } }: ReconciledItem, answer: string): void {
    const { registry, events } = this.#options;
    if (registry.entry(key)?.pendingWrites.rejectedCount !== 0) return;
    this.#throttled(`event ${key}`, () => events.record(reporter, 'writesRejected', answer));
  }

  /** Reads the object of a conflicting write again, and updates the cache. */
  async #refresh<T extends StoredObject>(target: WriteTarget<T>): Promise<Outcome | 'refreshed'> {
    const { writeAuthorizer } = this.#options;
    const { key } = target.item;
    // The writer of the other version may own the reporter by now.
    writeAuthorizer.externalChange(key);
    const known = target.knownVersion();
    let object: T | undefined;
    try {
      object = await target.read();
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return retry(error);
    }
    // Recorded again: a live read that was answered in the meantime does not cover what this read returned.
    writeAuthorizer.externalChange(key);
    if (object === undefined) {
      if (!target.isCreate) target.gone();
      return 'refreshed';
    }
    const collision = target.collided(object);
    if (collision !== undefined) return collision;
    // A read never returns an older version than the one known when it was sent, unless etcd was restored. The cache
    // accepts an older version only from a list; without a list this write would conflict forever.
    if (compareResourceVersions(object.metadata.resourceVersion, known) < 0) target.relist();
    target.stored(object);
    // An object that is being deleted keeps its name until its last finalizer is removed.
    return object.metadata.deletionTimestamp === undefined ? 'refreshed' : RETRY_SOON;
  }
}

interface StoredObject {
  readonly metadata: { readonly resourceVersion: string; readonly deletionTimestamp?: string };
}

function retry({ status, retryAfterMs }: ApiFailure): Retry {
  return { kind: 'retry', blocked: true, unreachable: status === undefined, retryAfterMs };
}
