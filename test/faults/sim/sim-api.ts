import type { ApiServerObject } from './api-objects.ts';
import type { ApiBackend } from './api-server.ts';
import type { ApiStore, NamespaceState } from './api-store.ts';

/** The API server of a world behind its faults: the store in memory, or a real one. What is a promise is held by fake time. */
export interface SimApi extends ApiBackend {
  /** Where all objects of the world are. */
  readonly namespace: string;
  /** The store itself, which can be put back, and whose kinds can be taken away; undefined: a real one's cannot within a course. */
  readonly memory: ApiStore | undefined;
  /** The objects of a kind, as of now. */
  objects(resource: string): Iterable<ApiServerObject>;
  get(resource: string, name: string): ApiServerObject | undefined;
  /** Lists that were begun cannot be gone on with. */
  compact(): void;
  /** Deletes all of a kind, as the API server does with the namespace. */
  deleteAll(resource: string): void | Promise<void>;
  setNamespaceState(state: NamespaceState): void | Promise<void>;
  close(): Promise<void>;
}
