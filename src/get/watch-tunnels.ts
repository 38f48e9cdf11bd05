import type { Clock } from '../clock.ts';
import { Reflector, type ReflectorHandler } from '../k8s/reflector.ts';
import type { ApiObject } from '../k8s/resource-client.ts';
import { isUnavailable, type ListerWatcher } from './list-tunnels.ts';
import type { TunnelLine, VisibleTunnels } from './visible-tunnels.ts';

/** One of the two resources of a watch. */
export interface WatchedResource<T extends ApiObject> {
  readonly source: ListerWatcher<T>;
  readonly pageLimit: number;
  /** Distinguishes the sources of both resources. */
  readonly prefix: string;
  /** Whether the kind may be missing or forbidden. */
  readonly isOptional: boolean;
  readonly linesOf: (object: T) => readonly TunnelLine[];
}

/**
 * Lists and watches one resource until `signal` is aborted, and applies every change to `tunnels`.
 *
 * @param onBroken called when a watch fails after the list, once until it is open again; it is retried
 * @returns `listed` resolves after the first list, with the error if an optional resource is not available, and rejects
 *   with the error of any other; `ended` resolves after `signal` was aborted
 */
export function watchTunnels<T extends ApiObject>(
  { source, pageLimit, prefix, isOptional, linesOf }: WatchedResource<T>,
  tunnels: VisibleTunnels,
  clock: Clock,
  signal: AbortSignal,
  onBroken: (error: Error) => void,
): { readonly listed: Promise<Error | undefined>; readonly ended: Promise<void> } {
  const listed = Promise.withResolvers<Error | undefined>();
  let hasListed = false;
  let isBroken = false;
  const reflector = new Reflector<T>({
    source,
    handler: handlerFor(tunnels, prefix, linesOf),
    clock,
    random: Math.random,
    pageLimit,
    // Failures are passed on.
    log: { debug: () => {}, info: () => {}, warn: () => {} },
    onStateChange(state, error) {
      if (state === 'synced') {
        hasListed = true;
        listed.resolve(undefined);
      }
      if (state === 'watching') isBroken = false;
      if (state !== 'broken' || error === undefined) return;
      if (isOptional && isUnavailable(error)) listed.resolve(error);
      else if (!hasListed) listed.reject(error);
      else if (!isBroken) {
        isBroken = true;
        onBroken(error);
      }
    },
  });
  return { listed: listed.promise, ended: reflector.run(signal) };
}

function handlerFor<T extends ApiObject>(
  tunnels: VisibleTunnels,
  prefix: string,
  linesOf: (object: T) => readonly TunnelLine[],
): ReflectorHandler<T> {
  let seen = new Set<string>();
  const isObject = prefix === OBJECT_PREFIX;
  function nameOf({ metadata }: T): string {
    const { namespace = '' } = metadata as { readonly namespace?: string };
    return `${prefix}${namespace}/${metadata.name}`;
  }
  return {
    replaceBegin() {
      seen = new Set();
    },
    replaceItem(object) {
      const name = nameOf(object);
      seen.add(name);
      tunnels.set(name, isObject, linesOf(object));
    },
    replaceEnd() {
      // Objects that are no longer listed were deleted while there was no watch.
      for (const name of tunnels.sources((source) => source.startsWith(prefix) && !seen.has(source)))
        tunnels.set(name, isObject, []);
      seen.clear();
    },
    event(type, object) {
      tunnels.set(nameOf(object), isObject, type === 'DELETED' ? [] : linesOf(object));
    },
  };
}

/** The prefixes of the sources. */
export const OBJECT_PREFIX = 'object ';
export const SLICE_PREFIX = 'slice ';
