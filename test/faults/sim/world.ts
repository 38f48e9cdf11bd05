import { createApiLink, type SentCall } from './api-link.ts';
import { SimApiServer } from './api-server.ts';
import { type ApiChange, type ApiObjectShown } from './api-objects.ts';
import { ApiStore } from './api-store.ts';
import type { Course } from './course.ts';
import { createDice, type Dice } from './dice.ts';
import { createSimEnvoy, type SimEnvoy } from './envoys.ts';
import { SimProcess } from './process.ts';
import { startReplicaProcess, type ReplicaProcess } from './replica-process.ts';
import { openSimStream, type SimStream } from './report-stream.ts';
import { SimTime } from './time.ts';
import { createWatchdog, type Watchdog } from './watchdog.ts';

/** Where all objects are. */
export const NAMESPACE = 'sim';
/** Of whom tunnels are. */
export const TENANTS = ['acme', 'beta'] as const;

/** A place where a replica runs, one process after the other. */
export interface Slot {
  readonly index: number;
  starts: number;
  running: ReplicaProcess | undefined;
}

/** Everything that there is: replicas, reporters, the API server, and what lies between them. */
export interface World {
  readonly course: Course;
  readonly time: SimTime;
  readonly dice: Dice;
  readonly store: ApiStore;
  readonly server: SimApiServer;
  readonly slots: readonly Slot[];
  readonly envoys: SimEnvoy[];
  /** Envoys that are down and come back. */
  readonly away: Set<SimEnvoy>;
  readonly watchdog: Watchdog;
  /** Lines for a person; nothing is kept where nobody reads. */
  tell(line: () => string): void;
  /** Replicas that run, are stopped or stop. */
  readonly replicas: () => ReplicaProcess[];
  startReplica(slot: Slot): void;
  /** Not one step more; `silent`: its machine is gone, too. */
  killReplica(slot: Slot, how: 'reset' | 'silent'): void;
  /** SIGTERM. */
  terminateReplica(slot: Slot): void;
  addEnvoy(reporter: SimEnvoy['reporter']): SimEnvoy;
  /** Somebody with kubectl. */
  readonly hand: (method: 'POST' | 'PATCH' | 'DELETE', resource: string, name: string, body?: object) => void;
  /** Writes that replicas have made, by resource. */
  readonly writes: Map<string, number>;
}

/** @param trace takes every line of what happens; undefined: nobody reads */
export function createWorld(course: Course, trace?: (line: string) => void): World {
  const time = new SimTime();
  const dice = createDice(course.seed ^ 0x5eed);
  const wall = new SimProcess('wall', time);
  const streams = new Set<SimStream>();
  const writes = new Map<string, number>();

  const tell = (line: () => string): void => trace?.(`${(time.nowMs / 1000).toFixed(3)} ${line()}`);
  const store = new ApiStore(
    () => new Date(wall.wallMs()).toISOString().replace(/\.\d+Z$/, 'Z'),
    (change) => changed(change),
  );
  const server = new SimApiServer(time, dice, store);
  const slots = Array.from({ length: course.replicas }, (_, index): Slot => ({
    index,
    starts: 0,
    running: undefined,
  }));
  const envoys: SimEnvoy[] = [];

  const world: World = {
    course,
    time,
    dice,
    store,
    server,
    slots,
    envoys,
    away: new Set(),
    writes,
    tell,
    get watchdog() {
      return watchdog;
    },
    replicas: () => slots.flatMap(({ running }) => (running === undefined ? [] : [running])),
    startReplica(slot) {
      if (slot.running !== undefined) return;
      slot.starts += 1;
      const process = new SimProcess(`r${slot.index}-${slot.starts}`, time);
      process.wallOffsetMs = dice.between(-3000, 3000);
      tell(() => `${process.name} starts`);
      const link = createApiLink(process, server, { time, dice, onSend: (call) => sent(process, call) });
      slot.running = startReplicaProcess({
        process,
        namespace: NAMESPACE,
        link,
        dice,
        onReport: (reporter) => watchdog.reportRead(reporter, process),
        log: trace === undefined ? undefined : (line) => tell(() => `  ${process.name} ${line.trim()}`),
        // Small, so that lists have pages.
        pageLimit: 4,
      });
    },
    killReplica(slot, how) {
      const { running } = slot;
      if (running === undefined) return;
      tell(() => `${running.process.name} is killed (${how})`);
      slot.running = undefined;
      end(running, how);
    },
    terminateReplica(slot) {
      const { running } = slot;
      if (running === undefined) return;
      tell(() => `${running.process.name} is to stop`);
      running.terminate(() => {
        tell(() => `${running.process.name} has stopped`);
        if (slot.running === running) slot.running = undefined;
        end(running, 'reset');
      });
    },
    addEnvoy(reporter) {
      const envoy = createSimEnvoy(reporter, { time, clock: wall, dial });
      envoys.push(envoy);
      return envoy;
    },
    hand(method, resource, name, body) {
      const group = resource === 'leases' ? 'coordination.k8s.io/v1' : 'reverse-tunnel.io/v1alpha1';
      const collection = `/apis/${group}/namespaces/${NAMESPACE}/${resource}`;
      const path = method === 'POST' ? collection : `${collection}/${name}`;
      const { status } = store.handle({
        method,
        path,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        by: 'hand',
      });
      tell(() => `hand: ${method} ${resource} ${name}: ${status}`);
    },
  };
  const watchdog = createWatchdog(world);

  function dial(handlers: Parameters<typeof openSimStream>[1]): SimStream | undefined {
    const slot = dice.one(slots.filter(({ running }) => running !== undefined));
    const running = slot?.running;
    if (running === undefined) return undefined;
    const stream = openSimStream(running.process, handlers, {
      time,
      dice,
      accept: (accepted) => running.service.accept(accepted),
    });
    for (const old of streams) if (!old.isLive) streams.delete(old);
    streams.add(stream);
    return stream;
  }

  function end({ process, link }: ReplicaProcess, how: 'reset' | 'silent'): void {
    process.kill();
    link.breakWatches('half-open');
    for (const stream of streams) if (stream.process === process) stream.serverGone(how);
  }

  function sent(process: SimProcess, call: SentCall): void {
    watchdog.sent(process, call);
  }

  function changed(change: ApiChange): void {
    const { resource, type, by, object, version } = change;
    if (by !== 'hand' && by !== 'server') writes.set(resource, (writes.get(resource) ?? 0) + 1);
    if (resource !== 'leases') {
      tell(() => `${by}: ${type} ${resource} ${object.metadata.name} @${version}${ownerText(object)}`);
    }
    watchdog.changed(change);
    server.changed(change);
  }

  for (const slot of slots) world.startReplica(slot);
  for (let index = 0; index < course.reporters; index += 1) {
    const envoy = world.addEnvoy({ cluster: index % 2 === 0 ? 'edge' : '', id: `responder-${index}` });
    for (let tunnel = 0; tunnel < course.tunnels; tunnel += 1) {
      envoy.bringUp(`node-${tunnel}`, dice.one(TENANTS) ?? 'acme');
    }
    envoy.start();
  }
  return world;
}

function ownerText({ status }: ApiObjectShown): string {
  const owner = status?.['owner'] as { replica?: string; epoch?: number } | undefined;
  return owner === undefined ? '' : ` owner ${owner.replica ?? ''} epoch ${owner.epoch ?? ''}`;
}
