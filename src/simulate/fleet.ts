import { systemClock, type Clock } from '../clock.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import { dialReportingService, type ReportingConnection } from '../grpc/reporting-client.ts';
import { createChurn } from './churn.ts';
import { FLEET_DEFAULTS, type FleetOptions } from './fleet-options.ts';
import { createFleetStatistics, type FleetStatistics } from './fleet-statistics.ts';
import { initiator } from './initiators.ts';
import { createLiveTunnels } from './live-tunnels.ts';
import { seededRandom } from './random.ts';
import {
  directTransport,
  faultyTransport,
  sharedTransport,
  type ReporterTransport,
} from './reporter-transport.ts';
import { createFleetReporter, type FleetReporter } from './reporter.ts';
import type { TunnelIdentity } from './tunnel-registry.ts';

/** Envoy's default of `max_buffer_count`. */
const MAX_BUFFER_COUNT = 1_000_000;
/** How often churn looks at the clock. Below the least report interval, so that each report has its share. */
const CHURN_TICK_MS = 20;
/** After a stall of the process, churn goes on where it was instead of making up for hours at once. */
const MAX_CHURN_STEP_MS = 1000;

/** What a fleet needs of the world; tests put fakes here. */
export interface FleetDependencies {
  /** Default: the machine's. */
  readonly clock: Clock;
  /** Default: plaintext gRPC. TLS and tokens come in here. */
  readonly dial: (address: string) => ReportingConnection;
}

/** Reporters with their tunnels, as a set of Envoys. */
export interface Fleet {
  /** responder-0 first. */
  readonly reporters: readonly FleetReporter[];
  /** Starts every reporter, and churn. Resolves when all are on their way, not when they are connected. Once only. */
  start(): Promise<void>;
  /** Ends streams and connections; no timer and no handle is left. For good. */
  stop(): Promise<void>;
  /** What each reporter holds now, also those that are stopped: reporter → tunnel name → tunnel. */
  expectedTunnels(): ReadonlyMap<ReporterId, ReadonlyMap<string, ReportedTunnel>>;
  /** Tunnels that are up, over all reporters. */
  tunnelCount(): number;
  /** An initiator that no reporter has yet, spread over tenants and clusters as the others are. */
  newInitiator(): TunnelIdentity;
  /** No more changes by themselves; what is away in a flap returns at once. */
  pauseChurn(): void;
  /** Churn goes on where it was paused; nothing if it runs or none was asked for. */
  resumeChurn(): void;
  /**
   * Resolves as soon as every reporter that was not stopped has everything sent and ACKed. Under churn that may
   * never be: pause it first. Rejects when the fleet is stopped before.
   */
  settled(): Promise<void>;
  /** Counted since the fleet was made; a copy. */
  statistics(): FleetStatistics;
}

/** A fleet that is not started, its tunnels up. Equal options, seed included, give equal tunnels and the same churn. */
export function createFleet(
  overrides: Partial<FleetOptions> & Pick<FleetOptions, 'address'>,
  deps: Partial<FleetDependencies> = {},
): Fleet {
  const options: FleetOptions = { ...FLEET_DEFAULTS, ...overrides };
  const clock = deps.clock ?? systemClock;
  const dial = deps.dial ?? ((address: string) => dialReportingService({ address }));
  // The wall clock has milliseconds, Envoy's timestamps microseconds: the monotonic clock adds them.
  const wallOffsetMs = clock.wallMs() - clock.monotonicMs();
  const nowMicros = (): number => Math.floor((wallOffsetMs + clock.monotonicMs()) * 1000);
  const statistics = createFleetStatistics();
  const transports = new Map<ReporterId, ReporterTransport>();
  const unsettled = new Set<FleetReporter>();
  const waiters = new Set<{ resolve(): void; reject(error: Error): void }>();
  let cancelStarts: (() => void)[] = [];
  let cancelTick: (() => void) | undefined;
  // Of the next initiator. Churn takes from it in a fixed order, which keeps a seed's names the same.
  let nextSerial = 0;

  const newInitiator = (): TunnelIdentity => initiator(nextSerial++, options);
  const live = createLiveTunnels(newInitiator);
  const churn = createChurn(
    { ...options, downtimeMs: options.intervalMs * 1.5 },
    live,
    seededRandom(options.seed),
  );

  /** Keeps the set of unsettled reporters after each event, so that nobody has to look at 2,000 of them in turn. */
  function updateUnsettled(reporter: FleetReporter, stopped: boolean): void {
    if (stopped || reporter.settled()) unsettled.delete(reporter);
    else unsettled.add(reporter);
    if (unsettled.size > 0) return;
    for (const waiter of waiters) waiter.resolve();
    waiters.clear();
  }

  function makeReporter(index: number): FleetReporter {
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

  const reporters = Array.from({ length: options.reporters }, (_, index) => makeReporter(index));

  /** Lets churn catch up with the clock, then waits again; the time between two ticks may be any. */
  function tickAfter(thenMs: number): void {
    cancelTick = clock.setTimer(CHURN_TICK_MS, () => {
      const nowMs = clock.monotonicMs();
      tickAfter(nowMs);
      churn.advance(Math.min(nowMs - thenMs, MAX_CHURN_STEP_MS));
    });
  }

  function pauseChurn(): void {
    cancelTick?.();
    cancelTick = undefined;
    churn.restoreDropped();
  }

  function resumeChurn(): void {
    if (cancelTick !== undefined || options.churnPerSecond + options.flapsPerSecond === 0) return;
    tickAfter(clock.monotonicMs());
  }

  return {
    reporters,
    async start() {
      const shared = options.sharedConnection ? sharedTransport(dial(options.address)) : undefined;
      // Every line is laid before the first reporter starts, so that none finds its own missing.
      for (const { id } of reporters) {
        const openOwn = (): Promise<ReporterTransport> | ReporterTransport =>
          options.faultyLinks
            ? faultyTransport(options.address, dial)
            : directTransport(dial(options.address));
        transports.set(id, shared ?? (await openOwn()));
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
