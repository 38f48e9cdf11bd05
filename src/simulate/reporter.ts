import type { ReporterId, TunnelIdentity } from '../core/tunnel.ts';
import type { ReportedTunnel } from '../grpc/report-message.ts';
import type { Clock } from '../clock.ts';
import {
  createEnvoyClient,
  type ClientEvent,
  type EnvoyClient,
  type EnvoyClientConfig,
} from './envoy-client.ts';
import type { ReporterTransport } from './reporter-transport.ts';
import { createTunnelRegistry } from './tunnel-registry.ts';

/** A simulated reporting Envoy: its tunnels, and the client that reports them. */
export interface FleetReporter {
  readonly id: ReporterId;
  /** Starts a new client, with the configured interval. Has no effect while running. */
  start(): void;
  /** Ends the stream and the connection. The tunnels are kept and reported after the next start. */
  stop(): void;
  /** Adds a connection of an initiator; the first one of a name adds a tunnel. */
  connectTunnel(identity: TunnelIdentity): void;
  /** Removes a connection; the last one of a name removes the tunnel. Returns false if there is no such tunnel. */
  disconnectTunnel(name: string): boolean;
  /** Drops a tunnel and restores it immediately, so one report contains the name in both lists. Returns false if there is none. */
  flap(name: string): boolean;
  /** Reports whether the tunnel is up. */
  has(name: string): boolean;
  /** Returns the current tunnels, by name. */
  expectedTunnels(): ReadonlyMap<string, ReportedTunnel>;
  /** Size of `expectedTunnels()`, without building the map. */
  readonly tunnelCount: number;
  /** Breaks the connection, which is retried after the retry interval: by RST with `faultyLinks`, otherwise in an orderly way. */
  resetConnection(): void;
  /** Like `resetConnection`, but leaves the service with a half-open connection. Requires `faultyLinks`. */
  halfOpenConnection(): void;
  /** Reports whether the service has ACKed the current state. */
  settled(): boolean;
  /** Reports whether the current stream has been ACKed. */
  connected(): boolean;
}

/** What a reporter uses; shared by the reporters of a fleet. */
export interface FleetReporterDependencies {
  readonly clock: Clock;
  /** Returns microseconds since 1970. */
  readonly nowMicros: () => number;
  /** Called on each use, as transports are created when the fleet starts. */
  readonly transport: () => ReporterTransport;
  readonly observe: (event: ClientEvent) => void;
}

/** Creates a stopped reporter without tunnels. */
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
      // Cleared first, so that observers of the stop event see a stopped reporter.
      client = undefined;
      stopping.stop();
      deps.transport().release();
    },
    connectTunnel: (identity) => registry.connect(identity),
    disconnectTunnel: (name) => registry.disconnect(name),
    flap(name) {
      const tunnel = registry.get(name);
      if (tunnel === undefined) return false;
      // This assumes a single connection; with several, the tunnel stays up.
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
