import { pino } from 'pino';
import { sortFields } from '../../embedded-api-server/objects.ts';
import { createCaches, createControllers, type ObservableFence } from '../../src/controllers.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { Ownership, type WritePermission } from '../../src/core/ownership.ts';
import { ANONYMOUS, type Peer } from '../../src/core/peer.ts';
import { MAX_IMMEDIATE_REMOVALS, type RemovalHoldRule } from '../../src/core/removal-hold.ts';
import type { Report } from '../../src/core/report.ts';
import type { Representation } from '../../src/core/representation.ts';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import type { CreationTimesOptions } from '../../src/controller/creation-times.ts';
import type { TransitionSink } from '../../src/controller/transition-recorder.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { advanceTime, flushEventLoop } from './fake-time.ts';
import { MemoryReporterApi } from './memory-api.ts';
import { MemorySliceApi, MemoryTunnelApi } from './memory-api.ts';
import { names } from './sample-tunnels.ts';

/** Shared by all harnesses, because each instance would observe garbage collections. */
const metrics = createMetrics();

/** The metadata of an Envoy that sends none. */
export const PLAIN_ENVOY = { version: undefined, locality: undefined };
/** The rejections of a valid report. */
export const NONE_REJECTED = { rejected: { count: 0, first: [] } };

/** The default of the operator. */
const DEFAULT_REMOVAL_HOLD: RemovalHoldRule = {
  holdMs: 30_000,
  thresholdPercent: 50,
  maxImmediate: MAX_IMMEDIATE_REMOVALS,
};

/** A fence of a replica that always holds its Lease. */
export const OPEN_FENCE: ObservableFence = {
  everHeld: true,
  canWrite: () => true,
  isAlive: () => true,
  isServing: () => true,
  addEventHandler() {},
};

/** What a test decides about ownership. Default: every reporter is owned, and every write is allowed. */
export interface OwnershipStub {
  owns?: () => boolean;
  permission?: () => WritePermission;
  externalChange?: () => void;
}

/** Ownership that a test decides about, for tests about objects and not about owners. */
class StubbedOwnership extends Ownership {
  readonly #stub: OwnershipStub;
  #verified = false;

  constructor(self: string, freshReportAfterMs: () => number, stub: OwnershipStub) {
    super(self, freshReportAfterMs);
    this.#stub = stub;
  }

  override get owns(): boolean {
    return this.#stub.owns?.() ?? true;
  }

  override get hasConfirmedClaim(): boolean {
    return this.owns;
  }

  override get isIdle(): boolean {
    return false;
  }

  override canWrite(): WritePermission {
    const permission = this.#stub.permission?.() ?? 'allow';
    return permission === 'verify' && this.#verified ? 'allow' : permission;
  }

  override readAnswered(): void {
    this.#verified = true;
  }

  override canDelete(): WritePermission {
    return this.canWrite();
  }

  override externalChange(): void {
    this.#stub.externalChange?.();
  }
}

const FLAPPING_SETTLE_MS = 90_000;
const NO_CLOCK = { nowMs: () => undefined, maxAheadMs: () => 0 };

/**
 * The controllers as the operator builds them, over objects in memory, in fake time. Reporter objects are never listed,
 * so nothing is claimed, and the stub decides about ownership. Metrics start at 0.
 */
export function createHarness({
  api = new MemoryTunnelApi(),
  sliceApi,
  representation,
  maxSliceTunnels,
  reporterApi = new MemoryReporterApi(),
  concurrency = 8,
  maxTunnelsPerReporter = 1000,
  ownership = {},
  serverClock = NO_CLOCK,
  removalHold = DEFAULT_REMOVAL_HOLD,
  transitionSink,
}: {
  api?: MemoryTunnelApi;
  /** Default: the API server does not serve slices. */
  sliceApi?: MemorySliceApi | undefined;
  representation?: Representation;
  /** Default: 100. */
  maxSliceTunnels?: number | undefined;
  reporterApi?: MemoryReporterApi;
  concurrency?: number;
  maxTunnelsPerReporter?: number;
  ownership?: OwnershipStub;
  /** The clock of the API server. Default: unknown. */
  serverClock?: CreationTimesOptions['serverClock'];
  removalHold?: RemovalHoldRule;
  transitionSink?: TransitionSink;
} = {}) {
  metrics.registry.resetMetrics();
  const logged: Record<string, unknown>[] = [];
  const log = pino(
    { base: null },
    { write: (line: string) => logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const clock = new FakeClock();
  // On a real machine the monotonic clock started before the process did.
  clock.advance(60_000);
  const ledger = new Ledger({ tunnelsPerReporter: maxTunnelsPerReporter }, removalHold);
  const events: string[] = [];
  const caches = createCaches({ names, ledger, clock, metrics, log: pino({ level: 'silent' }) });
  const cache = caches.tunnels;
  const sliceCache = caches.slices;
  if (sliceApi === undefined) sliceCache.onKindMissing();
  const controllers = createControllers({
    self: 'replica',
    names,
    ledger,
    caches,
    watches: {
      retryNow() {},
      relistTunnels: () => api.relist(cache),
      relistSlices: () => sliceApi?.relist(sliceCache),
      relistAll() {},
    },
    apis: {
      tunnels: api,
      slices: sliceApi ?? new MemorySliceApi(),
      reporters: reporterApi,
      policies: { patchStatus: () => Promise.resolve() },
      expectations: { patchStatus: () => Promise.reject(new Error('no expectations are listed')) },
      leases: { delete: () => Promise.resolve() },
      events: { record: (_reporter, kind, note) => void events.push(`${kind}: ${note}`) },
      objectEvents: { recordFor() {} },
      serverClock,
    },
    fence: OPEN_FENCE,
    leader: { isHeld: false },
    settings: {
      reportIntervalMs: 5000,
      unknownAfterMs: 30_000,
      expireAfterMs: 300_000,
      removalHold,
      representation,
      maxSliceTunnels,
      writeConcurrency: concurrency,
    },
    transitionSink,
    createOwnership: (self, freshReportAfterMs) => new StubbedOwnership(self, freshReportAfterMs, ownership),
    clock,
    random: () => 0.5,
    metrics,
    log,
  });
  const { authorizer, registry, flapping, burst, intake, writeAuthorizer, tunnels, mirrored } = controllers;
  const { enqueuer, queue, workers } = tunnels;

  /** Lets everything run that can without time passing, except for the end of a burst of reports. */
  async function run(): Promise<void> {
    await flushEventLoop();
    for (;;) {
      const delayMs = burst.delayMs(clock.monotonicMs());
      if (delayMs === 0) return;
      await advanceTime(clock, delayMs);
    }
  }

  /** As `run`, including the watch. */
  async function settle(): Promise<void> {
    do await run();
    while (api.deliver(cache) + (sliceApi?.deliver(sliceCache) ?? 0) > 0);
  }

  /** Lets time pass while everything runs, including the watch. */
  const advance = (ms: number): Promise<void> => advanceTime(clock, ms, settle);

  return {
    api,
    reporterApi,
    cache,
    sliceCache,
    mirrored,
    drained: () => controllers.drained(),
    /** Starts everything that acts on its own, such as the expiry. */
    startControllers: () => controllers.start(),
    resync: (key: string): void => enqueuer.resync(key, clock.monotonicMs()),
    clock,
    authorizer,
    registry,
    flapping,
    ledger,
    events,
    logged,
    metrics,
    intake,
    writeAuthorizer,
    enqueuer,
    queue,
    workers,
    settle,

    /** As `settle`, while the watch delivers nothing. */
    settleUnwatched: run,

    /** Lists the objects, which starts the workers. */
    start: async (): Promise<void> => {
      api.relist(cache);
      sliceApi?.relist(sliceCache);
      await settle();
    },

    connect: (reporter: ReporterId, peer: Peer = ANONYMOUS): void =>
      intake.reporterConnected(reporter, PLAIN_ENVOY, peer),

    /** Receives a report on a new stream, which must be accepted. */
    report: (reporter: ReporterId, report: Report, peer: Peer = ANONYMOUS): void => {
      intake.reporterConnected(reporter, PLAIN_ENVOY, peer);
      const exceeded = intake.accept(reporter, { ...report, ...NONE_REJECTED }, clock.monotonicMs());
      if (exceeded !== undefined) throw new Error(`over the limit: ${JSON.stringify(exceeded)}`);
    },

    advance,

    /**
     * As `settle`, but also waits for the writes of flapping tunnels, which are delayed: two writes replace an object.
     *
     * @returns the time that has passed, in ms
     */
    async settleFlapping(): Promise<number> {
      await settle();
      if (flapping.count(clock.monotonicMs()) === 0) return 0;
      await advance(FLAPPING_SETTLE_MS);
      return FLAPPING_SETTLE_MS;
    },

    /** Lets time pass while the watch delivers nothing. */
    advanceUnwatched: (ms: number): Promise<void> => advanceTime(clock, ms),

    /** Returns the object of a tunnel in the API server. */
    object: (reporter: ReporterId, of: Tunnel): TunnelObject | undefined =>
      api.stored.get(names.tunnelObjectName(reporter, of)),
  };
}

/** The harness that `createHarness` returns. */
export type ControllerHarness = ReturnType<typeof createHarness>;

/** Returns the state of objects without anything that depends on their history, as sorted texts. */
export function objectTexts(objects: Iterable<TunnelObject>): string[] {
  return [...objects]
    .map(({ metadata, spec, status }) =>
      JSON.stringify(
        sortFields([
          metadata.name,
          metadata.labels,
          spec,
          status?.state,
          status?.conditions?.map(({ type, status, reason }) => [type, status, reason]),
        ]),
      ),
    )
    .toSorted();
}
