import { systemClock, type Clock } from '../clock.ts';
import type { ReporterId, TunnelIdentity } from '../core/tunnel.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import { dialReportingService, type ReportingConnection } from '../grpc/reporting-client.ts';
import { createChurn, createLiveTunnels } from './churn.ts';
import { createFleetStatistics, type FleetStatistics } from './fleet-statistics.ts';
import { seededRandom } from './random.ts';
import {
  directTransport,
  faultyTransport,
  sharedTransport,
  type ReporterTransport,
} from './reporter-transport.ts';
import { createFleetReporter, type FleetReporter } from './reporter.ts';
import { initiator } from './tunnel-registry.ts';

/** The options of a fleet; see `FLEET_DEFAULTS` for the defaults. */
export interface FleetOptions {
  /** The reporting service, as host:port. */
  readonly address: string;
  readonly reporters: number;
  /** Number of tunnels per reporter at the start. */
  readonly tunnels: number;
  readonly tenants: number;
  /** Per tenant. */
  readonly clusters: number;
  /** See `ChurnPlan`. */
  readonly churnPerSecond: number;
  readonly flapsPerSecond: number;
  /** Report interval until the service sends another one. */
  readonly intervalMs: number;
  readonly connectRetryIntervalMs: number;
  readonly maxRetries: number;
  /** Seed of the churn, a whole number from 0 to 2^32 - 1. */
  readonly seed: number;
  readonly tenantIsolation: boolean;
  /** `node.cluster` of every reporter; `node.id` is responder-0, responder-1, and so on. */
  readonly reporterCluster: string;
  /** See `EnvoyClientConfig`. */
  readonly nodeOnFirstOnly: boolean;
  /** The starts of the reporters are spread over this time, as Envoys do not all start at once. */
  readonly rampUpMs: number;
  /** Whether all reporters share one HTTP/2 connection instead of having one each. */
  readonly sharedConnection: boolean;
  /** Whether each connection passes a `TcpProxy`, so it can be reset or left half-open. Costs CPU; not with `sharedConnection`. */
  readonly faultyLinks: boolean;
}

/** The defaults: Envoy's where it has one, and no churn. */
export const FLEET_DEFAULTS: Omit<FleetOptions, 'address'> = {
  reporters: 1,
  tunnels: 100,
  tenants: 4,
  clusters: 2,
  churnPerSecond: 0,
  flapsPerSecond: 0,
  intervalMs: 5000,
  connectRetryIntervalMs: 5000,
  maxRetries: 5,
  seed: 1,
  tenantIsolation: false,
  reporterCluster: 'edge',
  nodeOnFirstOnly: false,
  rampUpMs: 0,
  sharedConnection: false,
  faultyLinks: false,
};

/** Envoy's default for `max_buffer_count`. */
const MAX_BUFFER_COUNT = 1_000_000;
/** Interval of churn. It is shorter than the minimum report interval, so that each report contains changes. */
const CHURN_TICK_MS = 20;
/** After a stall of the process, churn continues instead of catching up on hours at once. */
const MAX_CHURN_STEP_MS = 1000;

/** What a fleet depends on; tests inject fakes. */
export interface FleetDependencies {
  /** Default: the system clock. */
  readonly clock: Clock;
  /** Connects to the service. Default: plaintext gRPC; TLS and tokens need another function. */
  readonly dial: (address: string) => ReportingConnection;
}

/** A set of simulated Envoys with their tunnels. */
export interface Fleet {
  /** In the order of their IDs, from responder-0. */
  readonly reporters: readonly FleetReporter[];
  /** Starts all reporters and churn. Resolves when the starts are scheduled, before the connections exist. Must be called once. */
  start(): Promise<void>;
  /** Stops permanently: ends all streams and connections. No timer and no handle remains. */
  stop(): Promise<void>;
  /** Returns the current tunnels of each reporter by name, including stopped reporters. */
  expectedTunnels(): ReadonlyMap<ReporterId, ReadonlyMap<string, ReportedTunnel>>;
  /** Returns the number of tunnels of all reporters. */
  tunnelCount(): number;
  /** Returns an initiator that no reporter has yet, with a tenant and a cluster assigned like those of the others. */
  newInitiator(): TunnelIdentity;
  /** Pauses churn; flapping tunnels return immediately. */
  pauseChurn(): void;
  /** Resumes churn. Has no effect if it is running, or if both rates are 0. */
  resumeChurn(): void;
  /**
   * Resolves as soon as the current state of every reporter that is not stopped has been ACKed. With churn this may never
   * happen, so pause it first. Rejects if the fleet is stopped first.
   */
  settled(): Promise<void>;
  /** Returns a copy of the statistics since the fleet was created. */
  statistics(): FleetStatistics;
}

/**
 * Creates a fleet that is not started and whose tunnels are up. Equal options, including the seed, produce the same tunnels
 * and the same churn.
 */
export function createFleet(
  overrides: Partial<FleetOptions> & Pick<FleetOptions, 'address'>,
  deps: Partial<FleetDependencies> = {},
): Fleet {
  const options: FleetOptions = { ...FLEET_DEFAULTS, ...overrides };
  const clock = deps.clock ?? systemClock;
  const dial = deps.dial ?? ((address: string) => dialReportingService({ address }));
  // Envoy's timestamps have microseconds, as the monotonic clock does; the wall clock has only milliseconds.
  const wallOffsetMs = clock.wallMs() - clock.monotonicMs();
  const nowMicros = (): number => Math.floor((wallOffsetMs + clock.monotonicMs()) * 1000);
  const statistics = createFleetStatistics();
  const transports = new Map<ReporterId, ReporterTransport>();
  const unsettled = new Set<FleetReporter>();
  const waiters = new Set<{ resolve(): void; reject(error: Error): void }>();
  let cancelStarts: (() => void)[] = [];
  let cancelTick: (() => void) | undefined;
  // The serial number of the next initiator. It is used in a fixed order, so the names depend only on the seed.
  let nextSerial = 0;

  const newInitiator = (): TunnelIdentity => initiator(nextSerial++, options);
  const live = createLiveTunnels(newInitiator);
  const churn = createChurn(
    { ...options, downtimeMs: options.intervalMs * 1.5 },
    live,
    seededRandom(options.seed),
  );

  /** Updates the set of unsettled reporters after each event, so that 2,000 of them are never scanned. */
  function updateUnsettled(reporter: FleetReporter, stopped: boolean): void {
    if (stopped || reporter.settled()) unsettled.delete(reporter);
    else unsettled.add(reporter);
    if (unsettled.size > 0) return;
    for (const waiter of waiters) waiter.resolve();
    waiters.clear();
  }

  function createReporter(index: number): FleetReporter {
    const id: ReporterId = { cluster: options.reporterCluster, id: `responder-${index}` };
    const reporter = createFleetReporter(
      { ...options, node: id, sendIntervalMs: options.intervalMs, maxBufferCount: MAX_BUFFER_COUNT },
      {
        clock,
        nowMicros,
        transport() {
          const transport = transports.get(id);
          if (transport === undefined)
            throw new Error(`reporter ${id.id} cannot connect before its fleet is started`);
          return transport;
        },
        observe(event) {
          statistics.count(id, event);
          updateUnsettled(reporter, event.type === 'stopped');
        },
      },
    );
    for (let i = 0; i < options.tunnels; i += 1) live.bringUp(reporter, newInitiator());
    unsettled.add(reporter);
    return reporter;
  }

  const reporters = Array.from({ length: options.reporters }, (_, index) => createReporter(index));

  /** Schedules the next tick of churn. The time between two ticks may vary. */
  function scheduleTick(lastTickMs: number): void {
    cancelTick = clock.setTimer(CHURN_TICK_MS, () => {
      const nowMs = clock.monotonicMs();
      scheduleTick(nowMs);
      churn.advance(Math.min(nowMs - lastTickMs, MAX_CHURN_STEP_MS));
    });
  }

  function pauseChurn(): void {
    cancelTick?.();
    cancelTick = undefined;
    churn.restoreDropped();
  }

  function resumeChurn(): void {
    if (cancelTick !== undefined || options.churnPerSecond + options.flapsPerSecond === 0) return;
    scheduleTick(clock.monotonicMs());
  }

  return {
    reporters,
    async start() {
      const shared = options.sharedConnection ? sharedTransport(dial(options.address)) : undefined;
      // All transports exist before the first reporter starts, as each reporter uses its own.
      for (const { id } of reporters) {
        const openDedicated = (): Promise<ReporterTransport> | ReporterTransport =>
          options.faultyLinks
            ? faultyTransport(options.address, dial)
            : directTransport(dial(options.address));
        transports.set(id, shared ?? (await openDedicated()));
      }
      cancelStarts = reporters.map((reporter, index) =>
        clock.setTimer((index * options.rampUpMs) / reporters.length, () => reporter.start()),
      );
      resumeChurn();
    },
    async stop() {
      cancelTick?.();
      for (const cancel of cancelStarts) cancel();
      for (const waiter of waiters) waiter.reject(new Error('the fleet was stopped before it settled'));
      waiters.clear();
      for (const reporter of reporters) reporter.stop();
      await Promise.all([...transports.values()].map((transport) => transport.close()));
    },
    expectedTunnels: () => new Map(reporters.map((reporter) => [reporter.id, reporter.expectedTunnels()])),
    tunnelCount: () => reporters.reduce((sum, reporter) => sum + reporter.tunnelCount, 0),
    newInitiator,
    pauseChurn,
    resumeChurn,
    settled: () =>
      new Promise((resolve, reject) => {
        if (unsettled.size === 0) resolve();
        else waiters.add({ resolve, reject });
      }),
    statistics: () => statistics.snapshot(),
  };
}
