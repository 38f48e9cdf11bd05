import { expect } from 'chai';
import { gzipSync } from 'node:zlib';
import type { AgentOptions } from '../../src/agent/agent.ts';
import { systemClock } from '../../src/clock.ts';
import {
  adminInterface,
  EXTENSION,
  GAUGES,
  gaugesOf,
  SERVER_INFO,
  startAdmin,
  startAgentHarness,
  type AdminResponses,
  type AgentHarness,
} from '../support/agent-harness.ts';
import { eventually } from '../support/eventually.ts';

/** Waits until the agent gives a reason: one line in the log, and nothing reported. */
async function waitForReason({ agent, logged, reports }: AgentHarness, pattern: RegExp): Promise<void> {
  await eventually(`the agent reports ${pattern}`, () => pattern.test(agent.notReady ?? ''));
  expect(agent.notReady).to.not.include('\n');
  expect(reports).to.deep.equal([]);
  expect(logged.filter(({ error }) => error !== undefined && pattern.test(error))).to.have.length(1);
}

describe("The agent and Envoy's admin interface", () => {
  const rejected: Readonly<
    Record<
      string,
      {
        readonly responses: AdminResponses;
        readonly reason: RegExp;
        readonly overrides?: Partial<AgentOptions>;
        readonly requestTimeoutMs?: number;
      }
    >
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
      requestTimeoutMs: 500,
    },
    'a response ends between two lines': {
      responses: {
        stats: (_, response) => response.end('edge.clusters.eu-1: 1\nedge.nodes.node-17: 1\n'),
      },
      reason: /^GET \/stats: incomplete list of gauges: cluster "eu-1" has connections, but no tunnel$/,
    },
    'a response is compressed': {
      responses: {
        stats(_, response) {
          response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(GAUGES));
        },
      },
      reason: /^GET \/stats: unexpected content-encoding "gzip"$/,
    },
    'a response is compressed without a header': {
      responses: { stats: (_, response) => response.end(gzipSync(GAUGES)) },
      reason: /^GET \/stats: /,
    },
    'a response has chunks that are not HTTP': {
      responses: {
        stats(_, response) {
          response.socket?.end('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nedge\r\n');
        },
      },
      reason: /^GET \/stats: Parse Error: Invalid character in chunk size/,
    },
    'a response is not HTTP': {
      responses: { stats: (_, response) => void response.socket?.end('SSH-2.0-OpenSSH_9.9\r\n') },
      reason: /^GET \/stats: Parse Error: Expected HTTP/,
    },
    'a response redirects': {
      responses: {
        stats: (_, response) => response.writeHead(302, { location: 'https://login.example.com/' }).end(),
      },
      reason: /^GET \/stats: 302 ""$/,
    },
    'a response is larger than any list of gauges': {
      responses: {
        stats(_, response) {
          const chunk = Buffer.alloc(8 * 1024 * 1024, 'x');
          for (let i = 0; i < 5; i += 1) response.write(chunk);
          response.end();
        },
      },
      reason: /^GET \/stats: more than 33554432 bytes$/,
    },
    'a gauge is not a count': {
      responses: { stats: (_, response) => response.end('edge.tunnels.eu-1:node-17: NaN\n') },
      reason: /^GET \/stats: not a tunnel gauge: "edge\.tunnels\.eu-1:node-17: NaN"$/,
    },
    'the connection is closed without a response': {
      responses: { stats: (_, response) => void response.socket?.destroy() },
      reason: /^GET \/stats: (socket hang up|read ECONNRESET)/,
    },
    'a response switches to another protocol': {
      responses: {
        stats: (_, response) =>
          void response.socket?.write(
            'HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n',
          ),
      },
      reason: /^GET \/stats: connection closed without a response$/,
    },
    'the interface has no configuration dump': {
      responses: { configDump: (_, response) => response.writeHead(404).end('invalid path') },
      reason: /^GET \/config_dump: 404 "invalid path"$/,
    },
    'the configuration dump is an array': {
      responses: { configDump: (_, response) => response.end('[]') },
      reason: /^GET \/config_dump: no field configs$/,
    },
    'the server information is not JSON': {
      responses: { info: '{"version": "9e5580\u001b[31m' },
      reason: /^GET \/server_info: not JSON: "\{\\"version\\": \\"9e5580\\u001b\[31m"$/,
    },
    'the server information is null': {
      responses: { info: null },
      reason: /^GET \/server_info: not the response of an Envoy$/,
    },
    'the server information is empty': {
      responses: { info: '' },
      reason: /^GET \/server_info: not JSON: ""$/,
    },
    'the server information contains no node': {
      responses: { info: { ...SERVER_INFO, node: undefined } },
      reason: /^Envoy has no node ID: set node\.id in its bootstrap$/,
    },
    'the node ID contains a control character': {
      responses: { info: { ...SERVER_INFO, node: { id: 'responder-0\u0007' } } },
      reason: /^node\.id: "responder-0\\u0007" contains U\+0007; .*: change node\.id in Envoy's bootstrap$/,
    },
    'the node ID is too long': {
      responses: { info: { ...SERVER_INFO, node: { id: 'x'.repeat(257) } } },
      reason: /^node\.id: "x+…" exceeds 256 characters: change node\.id in Envoy's bootstrap$/,
    },
    'the cluster contains a line break': {
      responses: { info: { ...SERVER_INFO, node: { id: 'responder-0', cluster: 'a\nb' } } },
      reason: /^node\.cluster: "a\\nb" contains U\+000A; .*: change node\.cluster in Envoy's bootstrap$/,
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
  for (const [what, { responses, reason, overrides, requestTimeoutMs }] of Object.entries(rejected)) {
    it(`reports nothing and gives the reason if ${what}`, async () => {
      await using admin = await startAdmin(adminInterface(responses));
      await using harness = startAgentHarness(admin.address, overrides, requestTimeoutMs);
      await waitForReason(harness, reason);
    });
  }

  it('reports nothing and gives the reason if each poll takes too long', async () => {
    // Each request is fast enough, but not three of them.
    await using admin = await startAdmin(
      (request, response) => void setTimeout(() => adminInterface()(request, response), 400),
    );
    await using harness = startAgentHarness(admin.address, { clock: systemClock });
    await waitForReason(harness, /^a poll takes longer than 1000 ms$/);
  });

  it('reports nothing and gives the reason if the UNIX socket does not exist', async () => {
    await using harness = startAgentHarness({ socketPath: '/nonexistent/admin.sock' });
    await waitForReason(harness, /^GET \/server_info: connect ENOENT \/nonexistent\/admin\.sock$/);
  });

  it('reports nothing and gives the reason if the port is closed', async () => {
    const admin = await startAdmin(adminInterface());
    await admin[Symbol.asyncDispose]();
    await using harness = startAgentHarness(admin.address);
    await waitForReason(harness, /^GET \/server_info: connect ECONNREFUSED /);
  });

  it('reports 10,000 tunnels of an interface that takes 200 ms per response', async () => {
    const names = Array.from({ length: 10_000 }, (_, i) => `eu-1:node-${i}` as const);
    const stats = gaugesOf(...names);
    const respond = adminInterface({ stats: (_, response) => response.end(stats) });
    await using admin = await startAdmin(
      (request, response) => void setTimeout(() => respond(request, response), 200),
    );
    await using harness = startAgentHarness(admin.address, { pollIntervalMs: 4000 });
    await harness.ready();
    expect(harness.reports[0]).to.include({ fullPush: true });
    expect(harness.reports[0]?.added).to.have.length(10_000);
  });
});
