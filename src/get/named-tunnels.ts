import { SLICE_PAGE_LIMIT } from '../cli/cluster.ts';
import type { Names } from '../core/names.ts';
import type { SliceObject } from '../core/slice-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { ApiError } from '../k8s/api-error.ts';
import { listPages } from '../k8s/reflector.ts';
import { getIfExists, type ResourceClient } from '../k8s/resource-client.ts';
import { isUnavailable } from './list-tunnels.ts';
import { listedTunnelsOf, tunnelOfObject, type ListedTunnel } from './listed-tunnel.ts';

/** Reads in flight: as many as a command has connections. */
const CONCURRENT_READS = 8;
/** Names that the API server accepts. It answers a read of any other name in other ways than "not found". */
const OBJECT_NAME = /^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/;

/** What was found of the tunnels that were requested by name. */
export interface NamedTunnels<T> {
  /** The tunnels that exist, by name. */
  readonly found: ReadonlyMap<string, T>;
  /** Why slices could not be searched; undefined if they were, if all have objects, or if the kind is not installed. */
  readonly unavailable: ApiError | undefined;
}

/** Where tunnels are looked up. */
export interface NamedTunnelSources<T> {
  readonly names: Names;
  readonly objects: Pick<ResourceClient<TunnelObject>, 'get'>;
  readonly slices: Pick<ResourceClient<SliceObject>, 'list' | 'title'>;
  /** Returns what is kept of a tunnel. */
  readonly project: (tunnel: ListedTunnel) => T;
  readonly signal: AbortSignal;
}

/**
 * Reads tunnels by the names of their objects. A name cannot be turned into the slice of an entry, so all slices are
 * listed until every tunnel without an object is found; if all have objects, none is. Rejects with `ApiError`.
 */
export async function readNamedTunnels<T>(
  { names, objects, slices, project, signal }: NamedTunnelSources<T>,
  wanted: readonly string[],
): Promise<NamedTunnels<T>> {
  const found = new Map<string, T>();
  const missing = new Set(wanted.filter((name) => OBJECT_NAME.test(name)));

  const isMissing = (name: string): boolean => missing.has(name);

  function add(name: string, tunnel: ListedTunnel): void {
    found.set(name, project(tunnel));
    missing.delete(name);
  }

  async function readObjects(): Promise<void> {
    const remaining = [...missing].values();
    const readRemaining = async (): Promise<void> => {
      for (const name of remaining) {
        const object = await getIfExists(objects, name, { signal });
        if (object !== undefined) add(name, tunnelOfObject(object));
      }
    };
    await Promise.all(Array.from({ length: CONCURRENT_READS }, readRemaining));
  }

  async function searchSlices(): Promise<ApiError | undefined> {
    const complete = new AbortController();
    try {
      const until = AbortSignal.any([signal, complete.signal]);
      await listPages(slices, SLICE_PAGE_LIMIT, until, (items) => {
        for (const slice of items)
          for (const tunnel of listedTunnelsOf(names, slice, isMissing)) add(tunnel.metadata.name, tunnel);
        if (missing.size === 0) complete.abort();
      });
    } catch (error) {
      if (complete.signal.aborted) return undefined;
      if (!isUnavailable(error)) throw error;
      return error.kind === 'no_kind_match' ? undefined : error;
    }
    return undefined;
  }

  await readObjects();
  if (missing.size === 0) return { found, unavailable: undefined };
  const unavailable = await searchSlices();
  // A tunnel that got its object and lost its entry meanwhile was in neither read.
  await readObjects();
  return { found, unavailable };
}
