import { createApiLink, type SentCall } from './api-link.ts';
import { SimApiServer } from './api-server.ts';
import { type ApiChange, type ApiObjectShown } from './api-objects.ts';
import type { ApiAnswer } from './api-refusals.ts';
import { ApiStore } from './api-store.ts';
import type { Course } from './course.ts';
import { createDice, type Dice } from './dice.ts';
import { createSimEnvoy, type SimEnvoy } from './envoys.ts';
import { SimProcess } from './process.ts';
import { startReplicaProcess, type ReplicaProcess } from './replica-process.ts';
import { openSimStream, type SimStream } from './report-stream.ts';
import { SimTime } from './time.ts';
import { createWatchdog, type Watchdog } from './watchdog.ts';
import type { WorldApi } from './world-api.ts';

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
  readonly store: WorldApi;
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
  /** Fake time waits for what a real API server is doing; of one in memory it is done. */
  readonly hold: (work: void | Promise<unknown>) => void;
  /** Writes that replicas have made, by resource. */
  readonly writes: Map<string, number>;
}

/** The API of a world: told what is to be told of each change, and of what the server itself does not do. */
export type OpenApi = (
  changed: (change: ApiChange) => void,
  failed: (error: unknown) => void,
) => Promise<WorldApi>;

/**
 * @param trace takes every line of what happens; undefined: nobody reads
 * @param openApi its API server; undefined: one in memory
 */
export async function createWorld(
  course: Course,
  { trace, openApi }: { trace?: ((line: string) => void) | undefined; openApi?: OpenApi | undefined } = {},
): Promise<World> {
  const time = new SimTime();
  const dice = createDice(course.seed ^ 0x5eed);
  const wall = new SimProcess('wall', time);
  const streams = new Set<SimStream>();
  const writes = new Map<string, number>();

  const tell = (line: () => string): void => trace?.(`${(time.nowMs / 1000).toFixed(3)} ${line()}`);
  const inMemory = (): WorldApi =>
    new ApiStore(
      () => new Date(wall.wallMs()).toISOString().replace(/\.\d+Z$/, 'Z'),
      (change) => changed(change),
    );
  const failed = (error: unknown): void =>
    void watchdog.wrongs.push(`the API server: ${error instanceof Error ? error.message : String(error)}`);
  const store = openApi === undefined ? inMemory() : await openApi((change) => changed(change), failed);
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
    hold(work) {
      if (work instanceof Promise) time.hold(work);
    },
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
        namespace: store.namespace,
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
      const collection = `/apis/${group}/namespaces/${store.namespace}/${resource}`;
      const path = method === 'POST' ? collection : `${collection}/${name}`;
      const answered = store.handle({
        method,
        path,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        by: 'hand',
      });
      const say = ({ status }: ApiAnswer): void =>
        tell(() => `hand: ${method} ${resource} ${name}: ${status}`);
      if (answered instanceof Promise) time.hold(answered.then(say));
      else say(answered);
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
