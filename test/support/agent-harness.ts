/** An agent in this process, between an admin interface that a test scripts and an operator that acknowledges everything. */
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pino } from 'pino';
import { createAgentMetrics } from '../../src/agent/agent-metrics.ts';
import { Agent, type AgentOptions } from '../../src/agent/agent.ts';
import { EnvoyAdmin, type AdminAddress } from '../../src/agent/envoy-admin.ts';
import { systemClock, type Clock } from '../../src/clock.ts';
import type { ReportMessage } from '../../src/grpc/report-message.ts';
import { eventually } from './eventually.ts';

/** The Envoy was started an hour before the tests. */
const ENVOY_STARTED_MS = Date.now() - 3_600_000;

export const SERVER_INFO = {
  version: '9e55809337/1.40.0/Clean/RELEASE/BoringSSL',
  /** Advances like that of an Envoy: the same uptime seconds later is that of a process that was started later. */
  get uptime_current_epoch() {
    return `${Math.floor((Date.now() - ENVOY_STARTED_MS) / 1000)}s`;
  },
  command_line_options: { restart_epoch: 0 },
  node: { id: 'responder-0', cluster: 'edge' },
};
export const EXTENSION = {
  name: 'envoy.bootstrap.reverse_tunnel.upstream_socket_interface',
  typed_config: { stat_prefix: 'edge', enable_detailed_stats: true },
};
/** The gauges of one tunnel, of node-17. */
export const GAUGES = gaugesOf('eu-1:node-17');

/** Longer than a request or a poll takes on a busy machine. */
const PATIENCE_MS = 60_000;
/** The timeouts of a poll, by its interval: a machine that stops this process for a second would exceed them. */
const POLL_TIMEOUTS_MS: ReadonlySet<number> = new Set([1000, 5000]);

/** A clock for tests that are not about the timeout of a poll. */
export const PATIENT_CLOCK: Clock = {
  ...systemClock,
  setTimer: (delayMs, callback) =>
    systemClock.setTimer(POLL_TIMEOUTS_MS.has(delayMs) ? PATIENCE_MS : delayMs, callback),
};

/** What the admin interface of an Envoy returns. */
export interface AdminResponses {
  /** Text is returned as it is, anything else as JSON. */
  readonly info?: unknown;
  readonly extension?: object | null;
  readonly configDump?: RequestListener;
  readonly stats?: RequestListener;
}

export type AgentHarness = ReturnType<typeof startAgentHarness>;

interface LoggedLine {
  readonly msg: string;
  readonly error?: string;
  readonly reason?: string;
  readonly hint?: string;
}

/** Returns the text of `/stats` for tunnels that are up, as Envoy writes it without tenant isolation. */
export function gaugesOf(...tunnels: readonly `${string}:${string}`[]): string {
  const count = (kind: string, names: readonly string[]): string[] => {
    const counts = new Map<string, number>();
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
    return [...counts].map(([name, connections]) => `edge.${kind}.${name}: ${connections}\n`);
  };
  const clusters = count(
    'clusters',
    tunnels.map((tunnel) => tunnel.split(':')[0] ?? ''),
  );
  const nodes = count(
    'nodes',
    tunnels.map((tunnel) => tunnel.split(':')[1] ?? ''),
  );
  return [...clusters, ...nodes, ...count('tunnels', tunnels)].join('');
}

/** Returns an admin interface whose Envoy has one tunnel. */
export function adminInterface({
  info = SERVER_INFO,
  extension = EXTENSION,
  configDump,
  stats,
}: AdminResponses = {}): RequestListener {
  return (request, response) => {
    const path = request.url?.split('?')[0];
    if (path === '/server_info') response.end(typeof info === 'string' ? info : JSON.stringify(info));
    else if (path === '/config_dump' && configDump !== undefined) configDump(request, response);
    else if (path === '/config_dump') {
      const extensions = extension === null ? [] : [extension];
      response.end(JSON.stringify({ configs: [{ bootstrap: { bootstrap_extensions: extensions } }] }));
    } else if (path === '/stats') {
      if (stats === undefined) response.end(GAUGES);
      else stats(request, response);
    } else response.writeHead(404).end();
  };
}

/** Serves an admin interface on a free port, or on a UNIX socket. */
export async function startAdmin(
  listener: RequestListener,
  socketPath?: string,
): Promise<AsyncDisposable & { readonly address: AdminAddress }> {
  const server = createServer(listener);
  if (socketPath === undefined) server.listen(0, '127.0.0.1');
  else server.listen(socketPath);
  await once(server, 'listening');
  const address =
    socketPath === undefined
      ? { host: '127.0.0.1', port: (server.address() as AddressInfo).port }
      : { socketPath };
  return {
    address,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Starts an agent that polls every 20 ms and has a default tenant. Only the given timeouts are ever reached. */
export function startAgentHarness(
  address: AdminAddress,
  overrides: Partial<AgentOptions> = {},
  requestTimeoutMs = PATIENCE_MS,
) {
  const reports: ReportMessage[] = [];
  const logged: LoggedLine[] = [];
  const metrics = createAgentMetrics();
  let openStreams = 0;
  const agent = new Agent({
    pollIntervalMs: 20,
    settleTimeMs: 0,
    lifecycleLog: undefined,
    defaultTenant: 'acme',
    admin: new EnvoyAdmin(address, requestTimeoutMs),
    connection: {
      openStream(handlers) {
        openStreams += 1;
        return {
          send(report) {
            reports.push(report);
            // At once, so that the interval applies to the second report.
            handlers.onResponse({ requestNonce: report.nonce, reportIntervalMs: 25, error: undefined });
          },
          reset: () => void (openStreams -= 1),
        };
      },
      reset() {},
      close() {},
    },
    clock: PATIENT_CLOCK,
    random: () => 0.5,
    metrics,
    log: pino({ base: null }, { write: (line) => void logged.push(JSON.parse(line) as LoggedLine) }),
    ...overrides,
  });
  agent.start();
  return {
    agent,
    metrics,
    reports,
    logged,
    /** Streams to the operator that are open: 0 or 1. */
    get openStreams() {
      return openStreams;
    },
    /** Waits until the operator acknowledges reports. */
    ready: (): Promise<void> => eventually('the agent is ready', () => agent.notReady === undefined),
    /** Waits for 5 more polls that succeed. */
    async polled(): Promise<void> {
      const polls = async (): Promise<number> => {
        const { values } = await metrics.polls.get();
        return values.find(({ labels }) => labels.outcome === 'ok')?.value ?? 0;
      };
      const before = await polls();
      await eventually('there are 5 more polls', async () => (await polls()) >= before + 5);
    },
    /** Waits until the gauge of reported tunnels has this value. */
    counts: (tunnels: number): Promise<void> =>
      eventually(
        `${tunnels} tunnels are reported`,
        async () => (await metrics.tunnels.get()).values[0]?.value === tunnels,
      ),
    [Symbol.asyncDispose]: (): Promise<void> => agent.stop(),
  };
}
