import type { Clock } from '../clock.ts';
import type { ExpectationObject } from '../core/expectation-object.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import { SLICE_PAGE_LIMIT, type Cluster } from '../cli/cluster.ts';
import { replicasFromLeases } from '../cli/replicas.ts';
import type { ApiObject, ResourceClient } from '../k8s/resource-client.ts';
import { LEADER_LEASE, type LeaseObject } from '../k8s/lease.ts';
import { Reflector, type ReflectorHandler } from '../k8s/reflector.ts';
import { summarizeSlice, summarizeTunnel, type FleetSnapshot, type TunnelSummary } from './summary.ts';

/** The objects of a fleet, kept up to date by watches. */
export interface FleetWatcher {
  /** Returns the current state. */
  snapshot(): FleetSnapshot;
  /** Reports whether all resources but the optional ones, slices and expectations, have been listed. */
  hasSynced(): boolean;
  /** Returns why the snapshot may be out of date; undefined while all watches work. */
  staleReason(): string | undefined;
  /** Resolves after the signal was aborted and all watches have ended. */
  readonly ended: Promise<unknown>;
}

/**
 * Lists and watches ReverseTunnels, slices, reporters, expectations and Leases until `signal` is aborted.
 *
 * @param onChange called for every event and every list, so the caller should batch updates
 */
export function watchFleet(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onChange: () => void,
): FleetWatcher {
  const objects = new Map<string, TunnelSummary>();
  const slices = new Map<string, readonly TunnelSummary[]>();
  const reporters = new Map<string, ReporterObject>();
  const expectations = new Map<string, ExpectationObject>();
  const leases = new Map<string, LeaseObject>();
  // By resource: one watch can be broken while the others work.
  const errors = new Map<string, string>();
  const listed = new Set<string>();

  /**
   * Keeps `cache` in sync with the API server until `signal` is aborted.
   *
   * @param options `isOptional`: the kind may be missing or forbidden, and failures are not shown
   */
  function watchResource<T extends ApiObject, K>(
    source: ResourceClient<T>,
    cache: Map<string, K>,
    project: (object: T) => K,
    { isOptional = false, pageLimit }: { readonly isOptional?: boolean; readonly pageLimit?: number } = {},
  ): Promise<void> {
    const reflector = new Reflector<T>({
      source,
      handler: createMapHandler(cache, project, onChange),
      clock,
      random: Math.random,
      ...(pageLimit === undefined ? {} : { pageLimit }),
      // The output shows broken watches; log lines would break its layout.
      log: { debug: () => {}, info: () => {}, warn: () => {} },
      onStateChange(state, error) {
        if (isOptional) return;
        if (state === 'broken') errors.set(source.title, error?.message ?? 'no response');
        if (state === 'synced') listed.add(source.title);
        if (state === 'watching') errors.delete(source.title);
        onChange();
      },
    });
    return reflector.run(signal);
  }

  const ended = Promise.all([
    watchResource(cluster.tunnels, objects, summarizeTunnel),
    watchResource(cluster.slices, slices, summarizeSlice, { isOptional: true, pageLimit: SLICE_PAGE_LIMIT }),
    watchResource(cluster.reporters, reporters, (object) => object),
    watchResource(cluster.expectations, expectations, (object) => object, { isOptional: true }),
    watchResource(cluster.leases, leases, (object) => object),
  ]);
  return {
    snapshot: () => ({
      objects: objects.values(),
      slices: slices.values(),
      reporters: reporters.values(),
      expectations: expectations.values(),
      replicas: replicasFromLeases(leases.values(), LEADER_LEASE),
      nowMs: clock.wallMs(),
    }),
    hasSynced: () => listed.size === 3,
    staleReason: () => errors.values().next().value,
    ended,
  };
}

/** Returns a handler that stores the projected objects of a reflector in `cache`, by name. */
function createMapHandler<T extends ApiObject, K>(
  cache: Map<string, K>,
  project: (object: T) => K,
  onChange: () => void,
): ReflectorHandler<T> {
  let listed = new Set<string>();
  function set(object: T): void {
    cache.set(object.metadata.name, project(object));
  }
  return {
    replaceBegin() {
      listed = new Set();
    },
    replaceItem(object) {
      listed.add(object.metadata.name);
      set(object);
    },
    replaceEnd() {
      // Objects that are no longer listed were deleted while there was no watch.
      for (const name of cache.keys()) if (!listed.has(name)) cache.delete(name);
      listed.clear();
      onChange();
    },
    event(type, object) {
      if (type === 'DELETED') cache.delete(object.metadata.name);
      else set(object);
      onChange();
    },
  };
}
