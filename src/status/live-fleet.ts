import type { Clock } from '../clock.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { Cluster } from '../inspect/cluster.ts';
import { replicasOf } from '../inspect/replicas.ts';
import type { ApiObject } from '../k8s/api-object.ts';
import { LEADER_LEASE, type LeaseObject } from '../k8s/lease-object.ts';
import { Reflector, type ReflectorHandler } from '../k8s/reflector.ts';
import type { ResourceClient } from '../k8s/resource-client.ts';
import { countedRow, type FleetFacts, type RowCounted } from './summary.ts';

/** The fleet, kept up to date by watches. */
export interface LiveFleet {
  /** As it is known now. */
  facts(): FleetFacts;
  /** True once all three have been listed. */
  listed(): boolean;
  /** Why what is shown may be out of date; undefined while all watches stand. */
  trouble(): string | undefined;
  /** Resolves when the signal was aborted and all watches have ended. */
  readonly ended: Promise<unknown>;
}

/**
 * Watches rows, reporters and Leases until `signal` is aborted; each is listed first. `onChange` may be called often: for
 * every object of a list and every event. Whoever draws gathers them.
 */
export function followFleet(
  cluster: Cluster,
  clock: Clock,
  signal: AbortSignal,
  onChange: () => void,
): LiveFleet {
  const rows = new Map<string, RowCounted>();
  const reporters = new Map<string, ReporterObject>();
  const leases = new Map<string, LeaseObject>();
  // By resource: of three watches one may be broken while two stand.
  const troubles = new Map<string, string>();
  const listed = new Set<string>();

  /** Keeps `kept` as the API server has it, until `signal` is aborted. */
  function follow<T extends ApiObject, K>(
    source: ResourceClient<T>,
    kept: Map<string, K>,
    keep: (object: T) => K,
  ): Promise<void> {
    const reflector = new Reflector<T>({
      source,
      handler: keptIn(kept, keep, onChange),
      clock,
      random: Math.random,
      // Whoever watches the screen is told there.
      log: { info: () => {}, warn: () => {} },
      onState(state, error) {
        if (state === 'broken') troubles.set(source.title, error?.message ?? 'no response');
        if (state === 'synced') listed.add(source.title);
        if (state === 'watching') troubles.delete(source.title);
        onChange();
      },
    });
    return reflector.run(signal);
  }

  const ended = Promise.all([
    follow(cluster.rows, rows, countedRow),
    follow(cluster.reporters, reporters, (object) => object),
    follow(cluster.leases, leases, (object) => object),
  ]);
  return {
    facts: () => ({
      rows: rows.values(),
      reporters: reporters.values(),
      replicas: replicasOf(leases.values(), LEADER_LEASE),
      nowMs: clock.wallMs(),
    }),
    listed: () => listed.size === 3,
    trouble: () => troubles.values().next().value,
    ended,
  };
}

/** Keeps in `kept`, by name, what a reflector shows. */
function keptIn<T extends ApiObject, K>(
  kept: Map<string, K>,
  keep: (object: T) => K,
  onChange: () => void,
): ReflectorHandler<T> {
  let listed = new Set<string>();
  function set(object: T): void {
    kept.set(object.metadata.name, keep(object));
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
      for (const name of kept.keys()) if (!listed.has(name)) kept.delete(name);
      listed.clear();
      onChange();
    },
    event(type, object) {
      if (type === 'DELETED') kept.delete(object.metadata.name);
      else set(object);
      onChange();
    },
  };
}
