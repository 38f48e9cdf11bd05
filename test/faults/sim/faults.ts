import { rowManifest } from '../../../src/core/row.ts';
import type { Backup } from './api-store.ts';
import { apiFaults } from './api-faults.ts';
import { handFaults } from './hand-faults.ts';
import type { SimEnvoy } from './envoys.ts';
import { names, type ReplicaProcess } from './replica-process.ts';
import type { Step, StepKind } from './step.ts';
import { TENANTS, type Slot, type World } from './world.ts';

/** What a step acts on. */
export interface Scene {
  readonly world: World;
  readonly step: Step;
  /** States of the store at earlier moments, oldest first. */
  readonly backups: readonly Backup[];
}

/** Does what a step says; what lasts ends by itself. */
export type Fault = (scene: Scene) => void;

const ROWS = 'reversetunnels';
const REPORTERS = 'reversetunnelreporters';
const RESOURCES = [ROWS, REPORTERS, 'leases'];

function envoyOf({ world, step }: Scene): SimEnvoy | undefined {
  const up = world.envoys.filter(({ isUp }) => isUp);
  return up[step.pick % Math.max(1, up.length)];
}

function slotOf({ world, step }: Scene): Slot | undefined {
  return world.slots[step.pick % world.slots.length];
}

function replicaOf({ world, step }: Scene): ReplicaProcess | undefined {
  const all = world.replicas();
  return all[step.pick % Math.max(1, all.length)];
}

function tunnelOf({ step }: Scene): string {
  return `node-${step.other % 8}`;
}

function stopped(suspended: boolean): Fault {
  return (scene) => {
    const replica = replicaOf(scene);
    replica?.process.stop();
    scene.world.time.after(scene.step.forMs, () =>
      replica?.process.goOn({ suspended, arrivalsFirst: scene.step.other % 2 === 0 }),
    );
  };
}

function link(mode: 'cut' | 'dark'): Fault {
  return (scene) => {
    const replica = replicaOf(scene);
    if (replica === undefined) return;
    replica.link.mode = mode;
    replica.link.breakWatches(mode === 'cut' ? 'reset' : 'half-open');
    scene.world.time.after(scene.step.forMs, () => {
      replica.link.mode = 'open';
    });
  };
}

/** Every kind of step. */
export const FAULTS: Readonly<Record<StepKind, Fault>> = {
  ...handFaults,
  ...apiFaults,
  'tunnel-up': (scene) => envoyOf(scene)?.bringUp(tunnelOf(scene), TENANTS[scene.step.forMs % 2] ?? 'acme'),
  'tunnel-down': (scene) => void envoyOf(scene)?.bringDown(tunnelOf(scene)),
  'tunnel-flap': (scene) => {
    const envoy = envoyOf(scene);
    const was = envoy?.tunnels().get(tunnelOf(scene));
    if (envoy === undefined || was === undefined) return;
    envoy.bringDown(was.name);
    envoy.bringUp(was.name, was.tenantID);
  },
  'tunnel-retenant': (scene) => {
    const envoy = envoyOf(scene);
    const was = envoy?.tunnels().get(tunnelOf(scene));
    if (envoy === undefined || was === undefined) return;
    envoy.bringDown(was.name);
    envoy.bringUp(was.name, was.tenantID === 'acme' ? 'beta' : 'acme');
  },
  'stream-cut': (scene) => envoyOf(scene)?.stream()?.cut(),
  'stream-stall': (scene) => envoyOf(scene)?.stream()?.stall(scene.step.forMs),
  'stream-half-open': (scene) => {
    const { step, world } = scene;
    const stream = envoyOf(scene)?.stream();
    if (stream === undefined) return;
    if (step.other % 3 === 0) {
      stream.abandon('lost');
      return;
    }
    // Reports lie unread while the Envoy goes to another replica.
    stream.stall(step.forMs);
    world.time.after(Math.min(step.forMs, 20_000) * ((step.other % 10) / 10), () => stream.abandon('comes'));
  },
  'envoy-gone': (scene) => {
    // One is left to be looked at.
    if (scene.world.envoys.filter(({ isUp }) => isUp).length > 1) envoyOf(scene)?.stop(true);
  },
  'envoy-restart': (scene) => {
    const envoy = envoyOf(scene);
    if (envoy === undefined) return;
    envoy.stop(scene.step.other % 3 === 0);
    scene.world.away.add(envoy);
    scene.world.time.after(scene.step.forMs, () => {
      if (scene.world.away.delete(envoy)) envoy.start();
    });
  },
  'envoy-twin': (scene) => {
    const envoy = envoyOf(scene);
    if (envoy === undefined || scene.world.envoys.some((one) => one !== envoy && one.key === envoy.key))
      return;
    scene.world.watchdog.twinned(envoy.key);
    const twin = scene.world.addEnvoy(envoy.reporter);
    for (let tunnel = 0; tunnel < scene.step.other % 4; tunnel += 1) twin.bringUp(`twin-${tunnel}`, 'acme');
    twin.start();
    scene.world.time.after(scene.step.forMs, () => twin.stop(true));
  },
  'replica-crash': (scene) => {
    const slot = slotOf(scene);
    if (slot === undefined) return;
    scene.world.killReplica(slot, scene.step.other % 3 === 0 ? 'silent' : 'reset');
    scene.world.time.after(scene.step.forMs, () => scene.world.startReplica(slot));
  },
  'replica-terminate': (scene) => {
    const slot = slotOf(scene);
    if (slot === undefined) return;
    const { running } = slot;
    scene.world.terminateReplica(slot);
    scene.world.time.after(10_000 + scene.step.forMs, () => {
      // It had 10 s to end by itself.
      if (slot.running === running) scene.world.killReplica(slot, 'reset');
      scene.world.startReplica(slot);
    });
  },
  'replica-stop': stopped(false),
  'replica-suspend': stopped(true),
  'replica-wall-jump': (scene) => {
    const replica = replicaOf(scene);
    if (replica !== undefined) replica.process.wallOffsetMs += (scene.step.other - 50) * 600_000;
  },
  'link-cut': link('cut'),
  'link-dark': link('dark'),
  'link-slow': (scene) => {
    const replica = replicaOf(scene);
    if (replica === undefined) return;
    replica.link.travelMs = 20 * (1 + scene.step.other) ** 1.4;
    scene.world.time.after(scene.step.forMs, () => {
      replica.link.travelMs = 3;
    });
  },
  'watch-lag': (scene) => {
    const replica = replicaOf(scene);
    const resource = RESOURCES[scene.step.other % RESOURCES.length] ?? ROWS;
    replica?.link.lagMs.set(resource, Math.min(scene.step.forMs, 15_000));
    scene.world.time.after(scene.step.forMs, () => replica?.link.lagMs.delete(resource));
  },
  'watch-half-open': (scene) => {
    replicaOf(scene)?.link.breakWatches('half-open', RESOURCES[scene.step.other % RESOURCES.length]);
  },
  'watch-reset': (scene) => {
    replicaOf(scene)?.link.breakWatches('reset', RESOURCES[scene.step.other % RESOURCES.length]);
  },
};

/** Ends whatever goes on, so that from now on nothing goes wrong any more. */
export async function heal(world: World): Promise<void> {
  const { store, server, time } = world;
  server.serve();
  // What a real API server has to do first is done first in both.
  await time.pass(0);
  server.slowMs = 0;
  Object.assign(server.rates, { throttled: 0, unavailable: 0, brokenBefore: 0, brokenAfter: 0 });
  for (const resource of [ROWS, REPORTERS]) {
    if (store.memory === undefined || store.memory.kindState(resource) === 'served') continue;
    store.memory.setKindState(resource, 'served');
    server.forgetChanges();
  }
  world.hold(store.setNamespaceState('active'));
  await time.pass(0);
  for (const slot of world.slots) {
    const { running } = slot;
    running?.process.goOn({ suspended: false, arrivalsFirst: true });
    if (running !== undefined) {
      running.link.mode = 'open';
      running.link.travelMs = 3;
      running.link.lagMs.clear();
    }
    world.startReplica(slot);
  }
  for (const resource of [ROWS, REPORTERS]) {
    for (const { metadata } of [...store.objects(resource)]) {
      if (metadata.finalizers !== undefined) {
        world.hand('PATCH', resource, metadata.name, { metadata: { finalizers: [] } });
      }
    }
  }
  await time.pass(0);
  removeStrangers(world);
  await time.pass(0);
  for (const envoy of world.away) envoy.start();
  world.away.clear();
}

/** Rows that stand under a name that another tunnel derives. */
function removeStrangers({ store, hand }: World): void {
  for (const { metadata, spec } of [...store.objects(ROWS)]) {
    const row = spec as unknown as ReturnType<typeof rowManifest>['spec'];
    const { reporter, tunnelName, ...rest } = row;
    const tunnel = { ...rest, name: tunnelName, createdAt: undefined };
    if (names.rowName(reporter, tunnel) !== metadata.name) hand('DELETE', ROWS, metadata.name);
  }
}
