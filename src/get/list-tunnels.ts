import { PAGE_LIMIT, SLICE_PAGE_LIMIT } from '../cli/cluster.ts';
import type { SliceObject } from '../core/slice-object.ts';
import type { TunnelObject } from '../core/tunnel-object.ts';
import { ApiError } from '../k8s/api-error.ts';
import { listPages } from '../k8s/reflector.ts';
import type {
  ApiObject,
  ListOptions,
  ResourceClient,
  WatchOptions,
  WatchSink,
} from '../k8s/resource-client.ts';
import type { ServerSelectors } from './tunnel-filter.ts';

/** The calls on a resource that `listPages` and `Reflector` need. */
export type ListerWatcher<T extends ApiObject> = Pick<ResourceClient<T>, 'list' | 'watch' | 'title'>;

/** Returns the resource restricted to what the selectors select. */
export function selecting<T extends ApiObject>(
  resource: ListerWatcher<T>,
  selectors: ServerSelectors,
  atVersion?: string,
): ListerWatcher<T> {
  return {
    title: resource.title,
    list: (options: ListOptions = {}) =>
      resource.list({
        ...options,
        ...selectors,
        // A continue token contains the version.
        ...(options.continueToken === undefined ? { atVersion } : {}),
      }),
    watch: (options: WatchOptions, sink: WatchSink) => resource.watch({ ...options, ...selectors }, sink),
  };
}

/** Reports whether a list failed because the kind is not installed or the caller must not list it. */
export function isUnavailable(error: unknown): error is ApiError {
  return error instanceof ApiError && (error.kind === 'no_kind_match' || error.status === 403);
}

/**
 * Lists objects and then slices, both as of the same version of the store: a tunnel that changes its form meanwhile is
 * in one of the lists. Slices are listed as of now if that version is not available. Rejects with `ApiError`.
 *
 * @returns why the slices cannot be listed; undefined if they were, or if the kind is not installed
 */
export async function listTunnels(
  objects: ListerWatcher<TunnelObject>,
  slices: (atVersion: string | undefined) => ListerWatcher<SliceObject>,
  signal: AbortSignal,
  onObject: (object: TunnelObject) => void,
  onSlice: (slice: SliceObject) => void,
): Promise<ApiError | undefined> {
  const version = await listPages(objects, PAGE_LIMIT, signal, (items) => {
    for (const item of items) onObject(item);
  });
  let started = false;
  const listSlices = (atVersion: string | undefined): Promise<string> =>
    listPages(slices(atVersion), SLICE_PAGE_LIMIT, signal, (items) => {
      started = true;
      for (const item of items) onSlice(item);
    });
  try {
    try {
      await listSlices(version);
    } catch (error) {
      const isGone =
        error instanceof ApiError &&
        (error.kind === 'expired' || error.kind === 'resource_version_too_large');
      if (!isGone || started) throw error;
      await listSlices(undefined);
    }
  } catch (error) {
    if (!isUnavailable(error)) throw error;
    return error.kind === 'no_kind_match' ? undefined : error;
  }
  return undefined;
}
