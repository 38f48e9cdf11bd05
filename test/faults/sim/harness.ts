import { createApiLink, type SentCall } from './api-link.ts';
import { SimApiServer } from './api-server.ts';
import type { ApiServerObject } from '../../../embedded-api-server/objects.ts';
import type { ApiResponse } from '../../../embedded-api-server/responses.ts';
import type { ApiChange } from '../../../embedded-api-server/watch-cache.ts';
import type { Representation } from '../../../src/core/representation.ts';
import type { Schedule } from './schedule.ts';
import { createPrng, type Prng } from './prng.ts';
import { createSimEnvoy, type SimEnvoy } from './sim-envoy.ts';
import { SimProcess } from './process.ts';
import { startReplicaProcess, type ReplicaProcess } from './replica-process.ts';
import { openSimStream, type SimStream } from './report-stream.ts';
import { SimTime } from './time.ts';
import { createInvariants, type Invariants } from './invariants.ts';
import { MemoryApi, type SimApi } from './sim-api.ts';

/** The tenants of the simulated tunnels. */
export const TENANTS = ['acme', 'beta'] as const;

/** A terminated replica exits within 10 s. */
const ROLLOUT_INTERVAL_MS = 11_000;

/** A slot in which replica processes run, one after the other. */
export interface Slot {
  readonly index: number;
  starts: number;
  running: ReplicaProcess | undefined;
}

/** A simulated installation: replicas, reporters, the API server, and the networks between them. */
export interface SimHarness {
  readonly schedule: Schedule;
  readonly time: SimTime;
  readonly prng: Prng;
  readonly store: SimApi;
  readonly server: SimApiServer;
  readonly slots: readonly Slot[];
  readonly envoys: SimEnvoy[];
  /** `--representation` of the replicas that are started from now on. */
  readonly representation: Representation;
  /** True if the API server serves slices. */
  readonly hasSlices: boolean;
  /** Restarts the replicas one after the other with another `--representation`. */
  changeRepresentation(representation: Representation): void;
  /** Returns the wall clock of the API server, in ms since 1970. */
  serverWallMs(): number;
  /** Envoys that are stopped and will be restarted. */
  readonly stoppedEnvoys: Set<SimEnvoy>;
  readonly invariants: Invariants;
  /** Writes a trace line; the line is not computed when tracing is off. */
  traceLine(line: () => string): void;
  /** Replicas that are running, stopped by SIGSTOP, or terminating. */
  readonly replicas: () => ReplicaProcess[];
  startReplica(slot: Slot): void;
  /** Kills a replica; `silent`: its machine fails as well, so peers are not notified. */
  killReplica(slot: Slot, how: 'reset' | 'silent'): void;
  /** Sends SIGTERM. */
  terminateReplica(slot: Slot): void;
  addEnvoy(reporter: SimEnvoy['reporter']): SimEnvoy;
  /** Sends a request as a user with kubectl. */
  readonly manualEdit: (
    method: 'POST' | 'PATCH' | 'DELETE',
    resource: string,
    name: string,
    body?: object,
  ) => void;
  /** Makes fake time wait for a real API server; the in-memory one has nothing to wait for. */
  readonly blockOn: (work: void | Promise<unknown>) => void;
  /** Writes by replicas, by resource. */
  readonly writes: Map<string, number>;
}

/** Opens the API of a run. `onChange` receives each change, `onFailure` each failure of the server to do its part. */
export type OpenApi = (
  changed: (change: ApiChange) => void,
  failed: (error: unknown) => void,
) => Promise<SimApi>;

/**
 * @param trace receives a line for each event; undefined: tracing is off
 * @param openApi the API server; undefined: in memory
 */
export async function createSimHarness(
  schedule: Schedule,
  { trace, openApi }: { trace?: ((line: string) => void) | undefined; openApi?: OpenApi | undefined } = {},
): Promise<SimHarness> {
  const time = new SimTime();
  const prng = createPrng(schedule.seed ^ 0x5eed);
  const wallClock = new SimProcess('wall', time);
  const streams = new Set<SimStream>();
  const writes = new Map<string, number>();
  const hasSlices = schedule.representations !== undefined;
  let representation = schedule.representations?.[0]?.representation ?? 'objects';

  const traceLine = (line: () => string): void => trace?.(`${(time.nowMs / 1000).toFixed(3)} ${line()}`);
  const inMemory = (): SimApi =>
    new MemoryApi({
      namespace: 'sim',
      now: () => new Date(wallClock.wallMs()).toISOString().replace(/\.\d+Z$/, 'Z'),
      // No watch reads Events, and a real API server's changes of them are not observed either.
      onChange(change) {
        if (change.resource !== 'events') onChange(change);
      },
    });
  const onFailure = (error: unknown): void =>
    void invariants.violations.push(
      `the API server: ${error instanceof Error ? error.message : String(error)}`,
    );
  const store = openApi === undefined ? inMemory() : await openApi((change) => onChange(change), onFailure);
  const server = new SimApiServer(time, prng, store);
  const slots = Array.from({ length: schedule.replicas }, (_, index): Slot => ({
    index,
    starts: 0,
    running: undefined,
  }));
  const envoys: SimEnvoy[] = [];

  const harness: SimHarness = {
    schedule,
    time,
    prng,
    store,
    server,
    slots,
    envoys,
    get representation() {
      return representation;
    },
    hasSlices,
    changeRepresentation(changed) {
      representation = changed;
      traceLine(() => `rolls out --representation ${changed}`);
      for (const slot of slots) time.after(ROLLOUT_INTERVAL_MS * slot.index, () => restartReplica(slot));
    },
    serverWallMs: () => wallClock.wallMs(),
    stoppedEnvoys: new Set(),
    writes,
    traceLine,
    blockOn(work) {
      if (work instanceof Promise) time.blockOn(work);
    },
    get invariants() {
      return invariants;
    },
    replicas: () => slots.flatMap(({ running }) => (running === undefined ? [] : [running])),
    startReplica(slot) {
      if (slot.running !== undefined) return;
      slot.starts += 1;
      const process = new SimProcess(`r${slot.index}-${slot.starts}`, time);
      // No rule depends on the wall clocks of replicas.
      process.wallOffsetMs = prng.between(-3000, 3000) * 2400;
      traceLine(() => `${process.name} starts`);
      const link = createApiLink(process, server, {
        time,
        prng,
        serverWallMs: () => wallClock.wallMs(),
        onSend: (call) => onCall(process, call),
      });
      slot.running = startReplicaProcess({
        process,
        namespace: store.namespace,
        link,
        prng,
        representation,
        hasSlices,
        beforeReport: (reporter, report) => invariants.beforeReport(reporter, report, process),
        onReport: (reporter) => invariants.onReport(reporter, process),
        log: trace === undefined ? undefined : (line) => traceLine(() => `  ${process.name} ${line.trim()}`),
        // Small, so that lists have several pages.
        pageLimit: 4,
      });
    },
    killReplica(slot, how) {
      const { running } = slot;
      if (running === undefined) return;
      traceLine(() => `${running.process.name} is killed (${how})`);
      slot.running = undefined;
      endProcess(running, how);
    },
    terminateReplica(slot) {
      const { running } = slot;
      if (running === undefined) return;
      traceLine(() => `${running.process.name} is terminated`);
      running.terminate(() => {
        traceLine(() => `${running.process.name} has stopped`);
        if (slot.running === running) slot.running = undefined;
        endProcess(running, 'reset');
      });
    },
    addEnvoy(reporter) {
      const envoy = createSimEnvoy(reporter, { time, clock: wallClock, dial });
      envoys.push(envoy);
      return envoy;
    },
    manualEdit(method, resource, name, body) {
      const group = resource === 'leases' ? 'coordination.k8s.io/v1' : 'reverse-tunnel.io/v1alpha1';
      const collection = `/apis/${group}/namespaces/${store.namespace}/${resource}`;
      const path = method === 'POST' ? collection : `${collection}/${name}`;
      const response = store.handle({
        method,
        path,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        actor: 'kubectl',
      });
      const traceResult = ({ status }: ApiResponse): void =>
        traceLine(() => `kubectl: ${method} ${resource} ${name}: ${status}`);
      if (response instanceof Promise) time.blockOn(response.then(traceResult));
      else traceResult(response);
    },
  };
  const invariants = createInvariants(harness);

  function dial(handlers: Parameters<typeof openSimStream>[1]): SimStream | undefined {
    const slot = prng.pick(slots.filter(({ running }) => running !== undefined));
    const running = slot?.running;
    if (running === undefined) return undefined;
    const stream = openSimStream(running.process, handlers, {
      time,
      prng,
      accept: (accepted) => running.service.accept(accepted),
    });
    for (const old of streams) if (!old.isLive) streams.delete(old);
    streams.add(stream);
    return stream;
  }

  /** Terminates a replica, and starts the next one when it has exited, or after 10 s. */
  function restartReplica(slot: Slot): void {
    const { running } = slot;
    harness.terminateReplica(slot);
    time.after(ROLLOUT_INTERVAL_MS, () => {
      if (slot.running === running) harness.killReplica(slot, 'reset');
      harness.startReplica(slot);
    });
  }

  function endProcess({ process, link }: ReplicaProcess, how: 'reset' | 'silent'): void {
    process.kill();
    link.breakWatches('half-open');
    for (const stream of streams) if (stream.process === process) stream.serverDied(how);
  }

  function onCall(process: SimProcess, call: SentCall): void {
    invariants.onCall(process, call);
  }

  function onChange(change: ApiChange): void {
    const { resource, type, actor, object, version } = change;
    if (actor !== 'kubectl' && actor !== 'server') writes.set(resource, (writes.get(resource) ?? 0) + 1);
    if (resource !== 'leases') {
      traceLine(
        () => `${actor}: ${type} ${resource} ${object.metadata.name} @${version}${formatOwner(object)}`,
      );
    }
    invariants.onChange(change);
    server.onChange(change);
  }

  for (const slot of slots) harness.startReplica(slot);
  for (let index = 0; index < schedule.reporters; index += 1) {
    const envoy = harness.addEnvoy({ cluster: index % 2 === 0 ? 'edge' : '', id: `responder-${index}` });
    for (let tunnel = 0; tunnel < schedule.tunnels; tunnel += 1) {
      envoy.connectTunnel(`node-${tunnel}`, prng.pick(TENANTS) ?? 'acme');
    }
    envoy.start();
  }
  return harness;
}

function formatOwner({ status }: ApiServerObject): string {
  const owner = status?.['owner'] as { replica?: string; epoch?: number } | undefined;
  return owner === undefined ? '' : ` owner ${owner.replica ?? ''} epoch ${owner.epoch ?? ''}`;
}
