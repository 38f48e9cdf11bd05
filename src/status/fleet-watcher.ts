import type { Clock } from '../clock.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { Cluster } from '../cli/cluster.ts';
import { replicasFromLeases } from '../cli/replicas.ts';
import type { ApiObject, ResourceClient } from '../k8s/resource-client.ts';
import { LEADER_LEASE, type LeaseObject } from '../k8s/lease.ts';
import { Reflector, type ReflectorHandler } from '../k8s/reflector.ts';
import { summarizeTunnel, type FleetSnapshot, type TunnelSummary } from './summary.ts';

/** The fleet, kept up to date by watches. */
export interface FleetWatcher {
  /** As it is known now. */
  snapshot(): FleetSnapshot;
  /** True once all three have been listed. */
  hasSynced(): boolean;
  /** Why what is shown may be out of date; undefined while all watches stand. */
  staleReason(): string | undefined;
  /** Resolves when the signal was aborted and all watches have ended. */
  readonly ended: Promise<unknown>;
}

/**
 * Watches rows, reporters and Leases until `signal` is aborted; each is listed first. `onChange` may be called often: for
 * every object of a list and every event. Whoever draws gathers them.
 */
export function watchFleet(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onChange: () => void,
): FleetWatcher {
  const objects = new Map<string, TunnelSummary>();
  const reporters = new Map<string, ReporterObject>();
  const leases = new Map<string, LeaseObject>();
  // By resource: of three watches one may be broken while two stand.
  const errors = new Map<string, string>();
  const listed = new Set<string>();

  /** Keeps `kept` as the API server has it, until `signal` is aborted. */
  function watchResource<T extends ApiObject, K>(
    source: ResourceClient<T>,
    cache: Map<string, K>,
    project: (object: T) => K,
  ): Promise<void> {
    const reflector = new Reflector<T>({
      source,
      handler: createMapHandler(cache, project, onChange),
      clock,
      random: Math.random,
      // Whoever watches the screen is told there.
      log: { debug: () => {}, info: () => {}, warn: () => {} },
      onStateChange(state, error) {
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
    watchResource(cluster.reporters, reporters, (object) => object),
    watchResource(cluster.leases, leases, (object) => object),
  ]);
  return {
    snapshot: () => ({
      objects: objects.values(),
      reporters: reporters.values(),
      replicas: replicasFromLeases(leases.values(), LEADER_LEASE),
      nowMs: clock.wallMs(),
    }),
    hasSynced: () => listed.size === 3,
    staleReason: () => errors.values().next().value,
    ended,
  };
}

/** Keeps in `kept`, by name, what a reflector shows. */
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
      // What was there before and is not listed now was deleted while no watch stood.
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
