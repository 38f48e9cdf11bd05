import type { ApiServerObject } from '../../../embedded-api-server/objects.ts';
import { ApiStore, type NamespaceState } from '../../../embedded-api-server/store.ts';
import type { ApiBackend } from './api-server.ts';

/** The API server of a run behind its faults: in memory, or a real one. Results that are promises block fake time. */
export interface SimApi extends ApiBackend {
  /** The namespace of all objects. */
  readonly namespace: string;
  /**
   * The in-memory store, which can be restored and whose CRDs can be deleted; undefined for a real API server,
   * where neither is possible during a run.
   */
  readonly memory: ApiStore | undefined;
  /** Iterates over the current objects of a kind. */
  objects(resource: string): Iterable<ApiServerObject>;
  get(resource: string, name: string): ApiServerObject | undefined;
  /** Invalidates the continue tokens of unfinished lists. */
  compact(): void;
  /** Deletes all objects of a kind, as when the namespace is deleted. */
  deleteAll(resource: string): void | Promise<void>;
  setNamespaceState(state: NamespaceState): void | Promise<void>;
  close(): Promise<void>;
}

/** The in-memory store as the API server of a run. */
export class MemoryApi extends ApiStore implements SimApi {
  readonly memory = this;

  close(): Promise<void> {
    return Promise.resolve();
  }
}
