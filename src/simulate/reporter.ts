import type { ReporterId } from '../core/tunnel.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import type { Clock } from '../clock.ts';
import {
  createEnvoyClient,
  type ClientEvent,
  type EnvoyClient,
  type EnvoyClientConfig,
} from './envoy-client.ts';
import type { ReporterTransport } from './reporter-transport.ts';
import { createTunnelRegistry, type TunnelIdentity } from './tunnel-registry.ts';

/** One simulated reporting Envoy: what tunnels it holds, and its client that reports them. */
export interface FleetReporter {
  readonly id: ReporterId;
  /** Connects and reports, as a new client: the interval is the configured one again. Nothing if running. */
  start(): void;
  /** Goes silent: its stream and connection end. It keeps its tunnels and reports them when started again. */
  stop(): void;
  /** One more connection from an initiator; the first of a name is a new tunnel. */
  connectTunnel(identity: TunnelIdentity): void;
  /** One connection less; the last of a name ends the tunnel. False when there is no such tunnel. */
  disconnectTunnel(name: string): boolean;
  /** Drops the tunnel and brings it back at once, so that one report has the name in both lists. False when there is none. */
  flap(name: string): boolean;
  has(name: string): boolean;
  /** What it holds now, by name. */
  expectedTunnels(): ReadonlyMap<string, ReportedTunnel>;
  /** As `truth().size`, without building the map. */
  readonly tunnelCount: number;
  /** Breaks the connection; it returns after the retry interval. With faulty links by RST, else by a polite end. */
  resetConnection(): void;
  /** As `dropConnection`, but the server is left with a half-open connection. Only in a fleet with faulty links. */
  halfOpenConnection(): void;
  /** True when the server has ACKed everything that is so now. */
  settled(): boolean;
  /** True when its present stream has been ACKed. */
  connected(): boolean;
}

export interface FleetReporterDependencies {
  readonly clock: Clock;
  readonly nowMicros: () => number;
  /** Asked when it is needed: lines are laid when the fleet starts. */
  readonly transport: () => ReporterTransport;
  readonly observe: (event: ClientEvent) => void;
}

/** A stopped reporter without tunnels. */
export function createFleetReporter(
  config: EnvoyClientConfig,
  deps: FleetReporterDependencies,
): FleetReporter {
  let client: EnvoyClient | undefined;
  const registry = createTunnelRegistry(deps.nowMicros, (updates) => client?.receive(updates));

  return {
    id: config.node,
    start() {
      if (client !== undefined) return;
      client = createEnvoyClient(config, {
        clock: deps.clock,
        openStream: (handlers) => deps.transport().openStream(handlers),
        allTunnels: () => registry.all(),
        observe: deps.observe,
      });
      client.start();
    },
    stop() {
      const stopping = client;
      if (stopping === undefined) return;
      // First, so that an event of the stop finds it stopped.
      client = undefined;
      stopping.stop();
      deps.transport().release();
    },
    connectTunnel: (identity) => registry.connect(identity),
    disconnectTunnel: (name) => registry.disconnect(name),
    flap(name) {
      const tunnel = registry.get(name);
      if (tunnel === undefined) return false;
      // With one connection only: of several, one that returns changes nothing.
      registry.disconnect(name);
      registry.connect(tunnel);
      return true;
    },
    has: (name) => registry.get(name) !== undefined,
    expectedTunnels: () => new Map(registry.all().map((tunnel) => [tunnel.name, tunnel])),
    get tunnelCount() {
      return registry.size;
    },
    resetConnection: () => deps.transport().reset(),
    halfOpenConnection: () => deps.transport().halfOpen(),
    settled: () => client?.settled() ?? false,
    connected: () => client?.connected() ?? false,
  };
}
