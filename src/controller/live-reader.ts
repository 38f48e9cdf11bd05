import type { Clock } from '../clock.ts';
import { observeReporter, reporterIdOf } from '../core/reporter-object.ts';
import { compareResourceVersions } from '../core/kubernetes.ts';
import { reporterKey } from '../core/tunnel.ts';
import type { Metrics } from '../metrics.ts';
import type { ReporterObjectApi } from './object-api.ts';
import type { ReporterCache } from './reporter-cache.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import { isApiFailure, nameTakenError, type ApiFailure } from './write-outcome.ts';

export interface LiveReaderOptions {
  readonly api: Pick<ReporterObjectApi, 'read'>;
  readonly cache: ReporterCache;
  /** Lists all kinds again: etcd was restored, and the watches may not show it. */
  readonly watches: { relistAll(): void };
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** Reads reporter objects from the API server, and passes the results to their state machines. */
export class LiveReader {
  readonly #options: LiveReaderOptions;
  /** Reads in progress, by reporter key. */
  readonly #pending = new Map<string, Promise<ApiFailure | undefined>>();

  constructor(options: LiveReaderOptions) {
    this.#options = options;
  }

  /** Reads a reporter's object. A read in progress serves all callers. Returns why it failed; undefined if it did not. */
  read(entry: ReporterEntry): Promise<ApiFailure | undefined> {
    const pending = this.#pending.get(entry.key);
    if (pending !== undefined) return pending;
    const read = this.#read(entry).finally(() => this.#pending.delete(entry.key));
    this.#pending.set(entry.key, read);
    return read;
  }

  async #read({ ownership, key, objectName }: ReporterEntry): Promise<ApiFailure | undefined> {
    const { api, cache, clock, metrics, watches } = this.#options;
    const mark = ownership.readMark;
    const sentMs = clock.monotonicMs();
    const before = cache.get(key)?.metadata;
    try {
      const object = await api.read(objectName);
      const isForeign = object !== undefined && reporterKey(reporterIdOf(object)) !== key;
      if (object !== undefined && !isForeign) {
        // A GET never returns an older version than the one known when it was sent, unless etcd was restored. Without
        // this check the cache would answer with an owner from before the restore.
        const { resourceVersion } = object.metadata;
        const isRestored =
          before !== undefined && compareResourceVersions(resourceVersion, before.resourceVersion) < 0;
        if (isRestored) {
          cache.resetTo(object);
          watches.relistAll();
        } else cache.upsert(object);
      }
      // An object that was created after the read was sent still exists. If it were removed, nothing would add it again.
      else if (cache.get(key)?.metadata.uid === before?.uid) cache.remove(key);
      // The watch, or the response to a write, may have been faster than this read, so the cache is what counts.
      const known = cache.get(key);
      ownership.readAnswered(
        known === undefined ? undefined : observeReporter(known),
        mark,
        sentMs,
        clock.monotonicMs(),
      );
      if (!isForeign) return undefined;
      // Created manually, or a hash collision. It is never overwritten: creating the object fails until it is deleted.
      metrics.claims.inc({ outcome: 'name_taken' });
      return nameTakenError(objectName);
    } catch (error) {
      if (!isApiFailure(error)) throw error;
      return error;
    }
  }
}
