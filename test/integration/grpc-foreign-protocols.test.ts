/** The log lines about clients that do not speak gRPC, on a plaintext port, on a TLS port and inside TLS. */
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { expect } from 'chai';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { PREFACE } from '../support/raw-http2.ts';
import { startTestServer, type TestServer } from '../support/reporting-server.ts';
import { serverMaterial } from '../support/tls-fixtures.ts';

const authority = createCertificateAuthority();

const PLAINTEXT = 'client sent plaintext; this port requires TLS';
const HTTP1 = 'client sent HTTP/1; this port serves gRPC (HTTP/2)';
const TLS = 'client sent TLS; this port serves plaintext';
const PROXY = 'client sent a PROXY protocol header, which is not supported; disable it at the load balancer';
const OTHER = 'client does not speak HTTP/2';

describe('clients that do not speak gRPC', () => {
  const servers = new Map<string, TestServer>();

  before('starts a plaintext and a TLS server', async () => {
    servers.set('plaintext', await startTestServer());
    servers.set(
      'TLS',
      await startTestServer({
        auth: { mode: 'mtls', tls: new TlsAcceptor(serverMaterial(authority), 'none') },
      }),
    );
  });

  after(() => Promise.all([...servers.values()].map((server) => server.stop())));

  const sent = {
    'PROXY v1': `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n${PREFACE.toString('latin1')}`,
    'PROXY v2': '\r\n\r\n\0\r\nQUIT\n\u0021\u0011\0\u000c',
    TLS: '\u0016\u0003\u0001\u0002\0\u0001',
    'HTTP/1': 'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
    'HTTP/2': PREFACE.toString('latin1'),
    SSH: 'SSH-2.0-OpenSSH_9.9\r\n',
    Redis: '*1\r\n$4\r\nPING\r\n',
    'SOCKS 5': '\u0005\u0001\0',
    'other bytes': 'hello\u0007',
  };
  const cases: readonly (readonly ['plaintext' | 'TLS' | 'inside TLS', keyof typeof sent, string, object])[] =
    [
      ['plaintext', 'PROXY v1', PROXY, { protocol: 'PROXY protocol version 1' }],
      ['plaintext', 'PROXY v2', PROXY, { protocol: 'PROXY protocol version 2' }],
      ['plaintext', 'TLS', TLS, { protocol: 'TLS' }],
      ['plaintext', 'HTTP/1', HTTP1, { protocol: 'HTTP/1' }],
      ['plaintext', 'SSH', OTHER, { protocol: 'SSH' }],
      ['plaintext', 'Redis', OTHER, { protocol: 'Redis' }],
      ['plaintext', 'SOCKS 5', OTHER, { protocol: 'SOCKS 5' }],
      ['plaintext', 'other bytes', OTHER, { firstBytes: String.raw`hello\x07` }],
      ['TLS', 'PROXY v1', PROXY, { protocol: 'PROXY protocol version 1' }],
      ['TLS', 'PROXY v2', PROXY, { protocol: 'PROXY protocol version 2' }],
      ['TLS', 'HTTP/1', PLAINTEXT, { protocol: 'HTTP/1' }],
      ['TLS', 'HTTP/2', PLAINTEXT, { protocol: 'HTTP/2' }],
      ['TLS', 'SSH', OTHER, { protocol: 'SSH' }],
      ['TLS', 'other bytes', OTHER, { firstBytes: String.raw`hello\x07` }],
      ['inside TLS', 'HTTP/1', HTTP1, { protocol: 'HTTP/1' }],
      ['inside TLS', 'PROXY v1', PROXY, { protocol: 'PROXY protocol version 1' }],
      ['inside TLS', 'TLS', OTHER, { protocol: 'TLS' }],
      ['inside TLS', 'SOCKS 5', OTHER, { protocol: 'SOCKS 5' }],
    ];
  for (const [where, what, error, description] of cases) {
    it(`are described in the log: ${what}, ${where === 'inside TLS' ? where : `on a port that serves ${where}`}`, async () => {
      const server = servers.get(where === 'plaintext' ? 'plaintext' : 'TLS') as TestServer;
      const { hostname, port } = new URL(`tcp://${server.address}`);
      const socket: Socket =
        where === 'inside TLS'
          ? connectTls({ host: hostname, port: Number(port), ca: authority.ca })
          : connectTcp(Number(port), hostname);
      socket.on('error', () => undefined);
      socket.resume();
      await once(socket, where === 'inside TLS' ? 'secureConnect' : 'connect');
      socket.write(Buffer.from(sent[what], 'latin1'));
      await once(socket, 'close');
      await eventually('the log line', () => findLine(server, error, description) !== undefined);
    });
  }

  /** Returns the log line with this error and description. One line per error and protocol is logged per minute. */
  function findLine(server: TestServer, error: string, description: object): object | undefined {
    const [field = '', value] = Object.entries(description).flat() as string[];
    return server.logged.find(
      (line) => line.msg === 'connection rejected' && line['error'] === error && line[field] === value,
    );
  }

  it('are described if they stop in the middle of what could be the preface', async () => {
    const clock = new FakeClock();
    const server = await startTestServer({ clock });
    const { hostname, port } = new URL(`tcp://${server.address}`);
    const open = async (): Promise<Socket> => {
      const socket = connectTcp(Number(port), hostname);
      socket.on('error', () => undefined);
      socket.resume();
      await once(socket, 'connect');
      return socket;
    };
    const [socket, later] = [await open(), await open()];
    await new Promise((resolve) => socket.write('PUT', resolve));
    // The server has read what was sent before when it responds to this.
    later.write(sent['HTTP/1']);
    await once(later, 'close');
    clock.advance(10_000);
    await once(socket, 'close');
    await eventually(
      'the log line',
      () => findLine(server, 'HTTP/2 handshake timed out', { firstBytes: 'PUT' }) !== undefined,
    );
    await server.stop();
    expect(server.applied).to.deep.equal([]);
  });
});
