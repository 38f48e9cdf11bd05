import type { Fault, Scene } from './faults.ts';
import type { World } from './world.ts';

const ROWS = 'reversetunnels';
const REPORTERS = 'reversetunnelreporters';
const RESOURCES = [ROWS, REPORTERS, 'leases'];

/** Does something to the API server for a while. */
function forAWhile(begin: (scene: Scene) => void, end: (scene: Scene) => void): Fault {
  return (scene) => {
    begin(scene);
    scene.world.time.after(scene.step.forMs, () => end(scene));
  };
}

function rate(which: keyof World['server']['rates']): Fault {
  return forAWhile(
    ({ world, step }) => {
      world.server.rates[which] = 0.1 + (step.other % 8) / 10;
    },
    ({ world }) => {
      world.server.rates[which] = 0;
    },
  );
}

/** Those that change the store itself, which within a course can be done to the one in memory only. */
export const OF_THE_STORE: ReadonlySet<string> = new Set(['etcd-restored', 'kind-gone']);

/** What becomes of the API server and its etcd. */
export const apiFaults = {
  'api-refusing': forAWhile(
    ({ world }) => world.server.close(),
    ({ world }) => world.server.serve(),
  ),
  'api-hanging': forAWhile(
    ({ world }) => {
      world.server.mode = 'hanging';
    },
    ({ world }) => world.server.serve(),
  ),
  'api-restart': ({ world, step }) => {
    world.server.close();
    world.time.after(500 + (step.forMs % 3000), () => world.server.restart());
  },
  'api-slow': forAWhile(
    ({ world, step }) => {
      world.server.slowMs = 50 * (1 + step.other);
    },
    ({ world }) => {
      world.server.slowMs = 0;
    },
  ),
  'api-throttles': rate('throttled'),
  'api-unavailable': rate('unavailable'),
  'api-breaks-before': rate('brokenBefore'),
  'api-loses-answers': rate('brokenAfter'),
  'api-compacts': ({ world }) => {
    world.store.compact();
    world.server.forgetChanges();
  },
  'etcd-restored': ({ world, step, backups }) => {
    // One that is younger than a Lease's renewal differs in nothing that could be told.
    const old = backups.filter(({ atMs }) => world.time.nowMs - atMs > 10_000);
    const backup = old[step.other % Math.max(1, old.length)];
    if (backup === undefined) return;
    world.server.close();
    world.store.memory?.restore(backup);
    world.watchdog.restored();
    world.tell(() => `etcd is restored to version ${backup.version}`);
    world.time.after(500 + (step.forMs % 3000), () => world.server.restart());
  },
  'kind-gone': (scene) => {
    const { world, step } = scene;
    const resource = step.other % 2 === 0 ? ROWS : REPORTERS;
    const { memory } = world.store;
    memory?.setKindState(resource, 'terminating');
    world.time.after(200, () => memory?.empty(resource));
    world.time.after(500, () => {
      memory?.setKindState(resource, 'missing');
      world.server.endWatches(undefined, resource);
    });
    world.time.after(600 + step.forMs, () => {
      memory?.setKindState(resource, 'served');
      world.server.forgetChanges();
    });
  },
  'namespace-gone': ({ world, step }) => {
    const { store, hold, time } = world;
    hold(store.setNamespaceState('terminating'));
    for (const [index, resource] of RESOURCES.entries()) {
      time.after(100 + index * (step.other * 10), () => hold(store.empty(resource)));
    }
    time.after(4000, () => {
      for (const resource of RESOURCES) hold(store.empty(resource));
      hold(store.setNamespaceState('missing'));
    });
    time.after(4100 + step.forMs, () => hold(store.setNamespaceState('active')));
  },
} satisfies Readonly<Record<string, Fault>>;
