import { reporterKey, type ReporterId } from '../../../src/core/tunnel.ts';
import type { StreamHandlers } from '../../../src/grpc/report-message.ts';
import { createEnvoyClient, type EnvoyClient } from '../../../src/simulate/envoy-client.ts';
import { createTunnelRegistry, type TunnelRegistry } from '../../../src/simulate/tunnel-registry.ts';
import type { SimProcess } from './process.ts';
import type { SimStream } from './report-stream.ts';
import type { SimTime } from './time.ts';

/** A connected tunnel. */
export interface ActiveTunnel {
  readonly name: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  readonly createdAt: { readonly seconds: number; readonly nanos: number } | undefined;
  /** When the tunnel, as it is now, was first reported; undefined until then. */
  readonly reportedMs: number | undefined;
}

/** A reporting Envoy: the client and registry of `src/simulate` over a simulated network. */
export interface SimEnvoy {
  readonly reporter: ReporterId;
  readonly key: string;
  /** True while it runs. */
  readonly isRunning: boolean;
  /** Returns its connected tunnels. */
  tunnels(): ReadonlyMap<string, ActiveTunnel>;
  /** Returns its stream, as the Envoy sees it. */
  stream(): SimStream | undefined;
  start(): void;
  /** Stops the Envoy and its connection; with `dropTunnels`, its tunnels end as well. */
  stop(dropTunnels: boolean): void;
  /** Connects a tunnel. The clocks of some initiators, depending on their name, are an hour ahead or behind. */
  connectTunnel(name: string, tenantID: string): void;
  disconnectTunnel(name: string): boolean;
}

const RETRY_INTERVAL_MS = 5000;
const SEND_INTERVAL_MS = 5000;
const HOUR_MS = 3_600_000;

/** Returns how far the clock of an initiator is ahead of that of the API server. */
function initiatorSkewMs(name: string): number {
  const last = name.charCodeAt(name.length - 1) % 4;
  return last === 1 ? HOUR_MS : last === 2 ? -HOUR_MS : 0;
}

/**
 * @param time of the run: an Envoy runs on a machine of its own without faults
 * @param dial opens a stream to a replica; undefined when none is reachable
 */
export function createSimEnvoy(
  reporter: ReporterId,
  {
    time,
    clock,
    dial,
  }: { time: SimTime; clock: SimProcess; dial: (handlers: StreamHandlers) => SimStream | undefined },
): SimEnvoy {
  let client: EnvoyClient | undefined;
  let current: SimStream | undefined;
  let reported = new Map<string, number>();
  let skewMs = 0;
  let registry = newRegistry();

  function newRegistry(): TunnelRegistry {
    return createTunnelRegistry(
      () => (clock.wallMs() + skewMs) * 1000,
      (updates) => client?.receive(updates),
    );
  }

  return {
    reporter,
    key: reporterKey(reporter),
    get isRunning() {
      return client !== undefined;
    },
    tunnels: () =>
      new Map(
        registry.all().map((tunnel) => [tunnel.name, { ...tunnel, reportedMs: reported.get(tunnel.name) }]),
      ),
    stream: () => current,
    start() {
      if (client !== undefined) return;
      client = createEnvoyClient(
        {
          node: reporter,
          sendIntervalMs: SEND_INTERVAL_MS,
          connectRetryIntervalMs: RETRY_INTERVAL_MS,
          maxRetries: 5,
          maxBufferCount: 1_000_000,
          nodeOnFirstOnly: false,
        },
        {
          clock,
          openStream(handlers) {
            current = dial(handlers);
            return current;
          },
          allTunnels: () => registry.all(),
          observe(event) {
            if (event.type !== 'sent') return;
            for (const { name } of event.report.added) {
              if (registry.get(name) !== undefined && !reported.has(name)) reported.set(name, time.nowMs);
            }
          },
        },
      );
      client.start();
    },
    stop(dropTunnels) {
      client?.stop();
      client = undefined;
      current = undefined;
      if (!dropTunnels) return;
      reported = new Map();
      registry = newRegistry();
    },
    connectTunnel(name, tenantID) {
      if (registry.get(name) !== undefined) return;
      skewMs = initiatorSkewMs(name);
      registry.connect({ tenantID, clusterID: 'eu-1', nodeID: name });
    },
    disconnectTunnel(name) {
      reported.delete(name);
      return registry.disconnect(name);
    },
  };
}
