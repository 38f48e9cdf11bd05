import { expect } from 'chai';
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Agent, type AgentOptions } from '../../src/agent/agent.ts';
import { EnvoyAdmin, type AdminAddress } from '../../src/agent/envoy-admin.ts';
import { createAgentMetrics } from '../../src/agent/agent-metrics.ts';
import { systemClock } from '../../src/clock.ts';
import type { ReportMessage } from '../../src/grpc/report-message.ts';
import { eventually } from '../support/eventually.ts';

const SERVER_INFO = {
  version: '9e55809337/1.40.0/Clean/RELEASE/BoringSSL',
  uptime_current_epoch: '3600s',
  command_line_options: { restart_epoch: 0 },
  node: { id: 'responder-0', cluster: 'edge' },
};
const EXTENSION = {
  name: 'envoy.bootstrap.reverse_tunnel.upstream_socket_interface',
  typed_config: { stat_prefix: 'edge', enable_detailed_stats: true },
};
const GAUGES = 'edge.tunnels.eu-1:node-17: 1\n';

/** What the admin interface of an Envoy returns. */
interface Responses {
  readonly info?: object;
  readonly extension?: object | null;
  readonly stats?: RequestListener;
}

function adminInterface({
  info = SERVER_INFO,
  extension = EXTENSION,
  stats,
}: Responses = {}): RequestListener {
  return (request, response) => {
    const path = request.url?.split('?')[0];
    if (path === '/server_info') response.end(JSON.stringify(info));
    else if (path === '/config_dump') {
      const extensions = extension === null ? [] : [extension];
      response.end(JSON.stringify({ configs: [{ bootstrap: { bootstrap_extensions: extensions } }] }));
    } else if (path === '/stats') {
      if (stats === undefined) response.end(GAUGES);
      else stats(request, response);
    } else response.writeHead(404).end();
  };
}

describe("The agent and Envoy's admin interface", () => {
  let server: Server;
  let respond: RequestListener;
  let agent: Agent | undefined;
  let reports: ReportMessage[];
  let openStreams: number;
  let logged: { msg: string; error?: string }[];

  beforeEach(() => {
    reports = [];
    openStreams = 0;
    logged = [];
    server = createServer((request, response) => respond(request, response));
  });
  afterEach(async () => {
    await agent?.stop();
    server.closeAllConnections();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  });

  async function listen(): Promise<AdminAddress> {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return { host: '127.0.0.1', port: (server.address() as AddressInfo).port };
  }

  /** Starts an agent whose operator acknowledges every report. */
  function startAgent(address: AdminAddress, overrides: Partial<AgentOptions> = {}): Agent {
    agent = new Agent({
      pollIntervalMs: 20,
      settleTimeMs: 0,
      lifecycleLog: undefined,
      defaultTenant: 'acme',
      admin: new EnvoyAdmin(address, 500),
      connection: {
        openStream(handlers) {
          openStreams += 1;
          return {
            send(report) {
              reports.push(report);
              const response = { requestNonce: report.nonce, reportIntervalMs: 25, error: undefined };
              queueMicrotask(() => handlers.onResponse(response));
            },
            reset: () => void (openStreams -= 1),
          };
        },
        reset() {},
        close() {},
      },
      clock: systemClock,
      random: () => 0.5,
      metrics: createAgentMetrics(),
      log: pino({ base: null }, { write: (line) => void logged.push(JSON.parse(line)) }),
      ...overrides,
    });
    agent.start();
    return agent;
  }

  async function waitForReason(pattern: RegExp): Promise<void> {
    await eventually(`the agent reports ${pattern}`, () => pattern.test(agent?.notReady ?? ''));
    expect(agent?.notReady).to.not.include('\n');
    expect(reports).to.deep.equal([]);
    expect(logged.filter(({ error }) => error !== undefined && pattern.test(error))).to.have.length(1);
  }

  const rejected: Readonly<
    Record<string, { responses: Responses; reason: RegExp; overrides?: Partial<AgentOptions> }>
  > = {
    'the interface forbids access': {
      responses: { stats: (_, response) => response.writeHead(403).end('RBAC: access denied') },
      reason: /^GET \/stats: 403 "RBAC: access denied"$/,
    },
    'a login page answers': {
      responses: { stats: (_, response) => response.end('<html>Sign in</html>\n') },
      reason: /^GET \/stats: not a tunnel gauge: "<html>Sign in<\/html>"$/,
    },
    'a response breaks off': {
      responses: {
        stats(_, response) {
          response.writeHead(200, { 'content-length': 1000 });
          response.write(GAUGES, () => response.destroy());
        },
      },
      reason: /^GET \/stats: (aborted|socket hang up)/,
    },
    'a response ends within a line': {
      responses: { stats: (_, response) => response.end('edge.tunnels.eu-1:nod') },
      reason: /^GET \/stats: the list of gauges ends in the middle of a line$/,
    },
    'a response does not end': {
      responses: { stats: (_, response) => void response.write(GAUGES) },
      reason: /^GET \/stats: no complete response within 500 ms$/,
    },
    'the server is not an Envoy': {
      responses: { info: { version: '2' } },
      reason: /^GET \/server_info: not the response of an Envoy$/,
    },
    'Envoy is too old': {
      responses: { info: { ...SERVER_INFO, version: 'a1/1.38.3/Clean/RELEASE/BoringSSL' } },
      reason: /^Envoy 1\.38\.3 has no tunnel gauges: use Envoy 1\.39 or later$/,
    },
    'Envoy has no node ID': {
      responses: { info: { ...SERVER_INFO, node: { id: '', cluster: '' } } },
      reason: /^Envoy has no node ID: set node\.id in its bootstrap$/,
    },
    'Envoy accepts no tunnels': {
      responses: { extension: null },
      reason: /^Envoy accepts no reverse tunnels: add the bootstrap extension /,
    },
    'Envoy does not count its tunnels': {
      responses: { extension: { ...EXTENSION, typed_config: { stat_prefix: 'edge' } } },
      reason: /^Envoy does not count its tunnels: set enable_detailed_stats: true /,
    },
    'nothing names the tenants': {
      responses: {},
      overrides: { defaultTenant: undefined },
      reason: /^the tenant of the tunnels is unknown: set --default-tenant /,
    },
  };
  for (const [what, { responses, reason, overrides }] of Object.entries(rejected)) {
    it(`reports nothing and gives the reason if ${what}`, async () => {
      respond = adminInterface(responses);
      startAgent(await listen(), overrides);
      await waitForReason(reason);
    });
  }

  it('reports nothing and gives the reason if the port is closed', async () => {
    const address = await listen();
    await new Promise((resolve) => server.close(resolve));
    startAgent(address);
    await waitForReason(/^GET \/server_info: connect ECONNREFUSED /);
  });

  it('reports nothing and gives the reason if the log that names the tenants is missing', async () => {
    respond = adminInterface();
    startAgent(await listen(), { defaultTenant: undefined, lifecycleLog: '/nonexistent/tunnels.log' });
    await waitForReason(/ENOENT.*tunnels\.log/);
  });

  it('sends no full push until the log has named the tenant of every tunnel', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'log-'));
    const lifecycleLog = join(folder, 'tunnels.log');
    const line = (node: string): string =>
      `${JSON.stringify({
        time: `${Math.floor(Date.now() / 1000)}.000000`,
        lifecycle: {
          ...{ event: 'tunnel_setup', tenant_id: 'acme', cluster_id: 'eu-1' },
          ...{ node_id: node, worker: 'worker_0', fd: node },
        },
      })}\n`;
    await writeFile(lifecycleLog, line('node-17'));
    respond = adminInterface({
      stats: (_, response) => response.end(`${GAUGES}edge.tunnels.eu-1:node-18: 1\n`),
    });
    startAgent(await listen(), { defaultTenant: undefined, lifecycleLog });
    await eventually('the first tunnel is reported', () => reports.length > 2);
    expect(reports.filter(({ fullPush }) => fullPush)).to.deep.equal([]);
    expect(reports[0]?.added.map(({ name }) => name)).to.deep.equal(['node-17']);
    await appendFile(lifecycleLog, line('node-18'));
    await eventually('there is a full push', () => reports.some(({ fullPush }) => fullPush));
    const complete = reports.find(({ fullPush }) => fullPush);
    expect(complete?.added.map(({ name }) => name)).to.have.members(['node-17', 'node-18']);
    await rm(folder, { recursive: true, force: true });
  });

  it('reads the interface over a UNIX socket', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'admin-'));
    const socketPath = join(folder, 'admin.sock');
    respond = adminInterface();
    server.listen(socketPath);
    await once(server, 'listening');
    startAgent({ socketPath });
    await eventually('the agent is ready', () => agent?.notReady === undefined);
    expect(reports[0]).to.include({ fullPush: true });
    expect(reports[0]?.node).to.deep.equal({ id: 'responder-0', cluster: 'edge' });
    expect(reports[0]?.added.map(({ name }) => name)).to.deep.equal(['node-17']);
    await rm(folder, { recursive: true, force: true });
  });

  it('ends the stream with the first poll that fails, and opens another one after the next that succeeds', async () => {
    let failing = false;
    respond = adminInterface({
      stats: (_, response) => (failing ? response.writeHead(503).end() : response.end(GAUGES)),
    });
    startAgent(await listen());
    await eventually('the agent is ready', () => agent?.notReady === undefined);
    failing = true;
    await eventually('the stream has ended', () => openStreams === 0);
    failing = false;
    await eventually('the agent is ready again', () => agent?.notReady === undefined && openStreams === 1);
    expect(reports.filter(({ fullPush }) => fullPush)).to.have.length(2);
    expect(reports.flatMap(({ removedNames }) => removedNames)).to.deep.equal([]);
  });

  it('never reports the empty list of an Envoy that has just restarted', async () => {
    let uptime = 3600;
    respond = (request, response) =>
      adminInterface({
        info: { ...SERVER_INFO, uptime_current_epoch: `${uptime}s` },
        stats: (_, stats) => stats.end(uptime < 5 ? '' : GAUGES),
      })(request, response);
    const address = await listen();
    startAgent(address, { settleTimeMs: 10_000 });
    await eventually('the agent is ready', () => agent?.notReady === undefined);
    const before = reports.length;
    uptime = 0;
    await eventually('the restart is noticed', () =>
      logged.some(({ msg }) => msg.includes('Envoy has restarted')),
    );
    uptime = 20;
    await eventually('the agent is ready again', () => agent?.notReady === undefined);
    const after = reports.slice(before);
    expect(after.filter(({ fullPush, added }) => fullPush && added.length === 0)).to.deep.equal([]);
    expect(after.flatMap(({ removedNames }) => removedNames)).to.deep.equal([]);
  });
});
