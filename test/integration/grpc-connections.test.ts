import { once } from 'node:events';
import { connect as connectHttp2, type IncomingHttpHeaders, type Settings } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import {
  Client,
  compressionAlgorithms,
  credentials,
  loadPackageDefinition,
  status,
  type StatusObject,
} from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { expect } from 'chai';
import { REPORTING_SERVICE } from '../../src/grpc/reporting-service.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { heapBytes } from '../support/heap.ts';
import {
  END_HEADERS,
  FRAME,
  frame,
  grpcMessage,
  headerBlock,
  openingFrame,
  openRawPeer,
  requestFields,
} from '../support/raw-http2.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { fullPush, requestBytes } from '../support/wire.ts';

const { StreamReverseTunnels: METHOD } = REPORTING_SERVICE;
const PROTOCOL_ERROR = 0x1;
const ENHANCE_YOUR_CALM = 0xb;
const MIB = 1024 * 1024;

function plainConnection(address: string): Socket {
  const { hostname, port } = new URL(`tcp://${address}`);
  const socket = connectTcp(Number(port), hostname);
  socket.on('error', () => {});
  socket.resume();
  return socket;
}

async function rejectedConnections(fixture: TestServer, reason: string): Promise<number> {
  const { values } = await fixture.metrics.connectionsRejected.get();
  return values.find(({ labels }) => labels.reason === reason)?.value ?? 0;
}

describe('the reporting port', () => {
  let fixture: TestServer;

  afterEach(() => fixture.stop());

  it('closes connections beyond the limit per address until another one is closed', async () => {
    fixture = await startTestServer({ limits: { connectionsPerAddress: 2 } });
    const [first, second] = [plainConnection(fixture.address), plainConnection(fixture.address)];
    await Promise.all([once(first, 'connect'), once(second, 'connect')]);
    await once(plainConnection(fixture.address), 'close');
    expect(await rejectedConnections(fixture, 'address_connections')).to.equal(1);
    first.destroy();
    // The server notices the end of the connection eventually.
    await eventually('a stream is served', async () => {
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      return stream.next().then(
        () => true,
        () => false,
      );
    });
    second.destroy();
  });

  describe('a connection beyond the limit per address', () => {
    let first: Socket;
    let clock: FakeClock;

    beforeEach(async () => {
      // A peer has a second to send something, which passes only where a test lets it pass.
      clock = new FakeClock();
      fixture = await startTestServer({ limits: { connectionsPerAddress: 1 }, clock });
      first = plainConnection(fixture.address);
      await once(first, 'connect');
    });
    afterEach(() => first.destroy());

    /** Returns everything that the server sends until the connection is closed. */
    async function responseTo(bytes: Buffer): Promise<Buffer> {
      const socket = connectTcp(Number(fixture.address.split(':')[1]), '127.0.0.1');
      const chunks: Buffer[] = [];
      socket.on('error', () => {});
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      if (bytes.length > 0) socket.write(bytes);
      await once(socket, 'close');
      return Buffer.concat(chunks);
    }

    it('receives GOAWAY with the reason if it speaks HTTP/2', async () => {
      const peer = await openRawPeer(fixture.address);
      await peer.closed;
      expect(peer.goawayCode).to.equal(ENHANCE_YOUR_CALM);
      expect(peer.firstBytes.toString('latin1')).to.contain('connection limit per address reached');
    });

    it('receives the reason as the status of its call if it speaks gRPC', async () => {
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      expect((await stream.ended).code).to.equal(status.RESOURCE_EXHAUSTED);
    });

    it('receives 503 with the reason if it speaks HTTP/1', async () => {
      const response = await responseTo(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
      expect(response.toString()).to.match(/^HTTP\/1\.1 503 .*connection limit per address reached\n$/s);
    });

    it('receives the alert access_denied if it starts a TLS handshake', async () => {
      expect(await responseTo(Buffer.from([0x16, 0x03, 0x01, 0x00, 0x05]))).to.deep.equal(
        Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31]),
      );
    });

    it('is closed without a response if it sends something else, or nothing for a second', async () => {
      expect(await responseTo(Buffer.from('\0\0\0\0'))).to.have.length(0);
      const response = responseTo(Buffer.alloc(0));
      await eventually('its deadline is set', () => clock.pendingTimersMs.includes(1000));
      clock.advance(1000);
      expect(await response).to.have.length(0);
    });

    it('is logged with a hint, once per minute', async () => {
      await Promise.all([responseTo(Buffer.alloc(4)), responseTo(Buffer.alloc(4))]);
      expect(await rejectedConnections(fixture, 'address_connections')).to.equal(2);
      const lines = fixture.logged.filter(({ msg }) => msg === 'connection rejected');
      expect(lines).to.have.length(1);
      expect(lines[0]).to.deep.include({
        reason: 'address_connections',
        hint: 'many reporters behind one NAT or proxy? raise --max-connections-per-address',
      });
    });
  });

  it('gives at most 100 connections beyond a limit the reason at the same time', async () => {
    fixture = await startTestServer({ limits: { connectionsPerAddress: 1 }, clock: new FakeClock() });
    const first = plainConnection(fixture.address);
    await once(first, 'connect');
    const silent = Array.from({ length: 150 }, () => plainConnection(fixture.address));
    await eventually('50 are closed', () => silent.filter(({ destroyed }) => destroyed).length === 50);
    expect(await rejectedConnections(fixture, 'address_connections')).to.equal(150);
    for (const socket of [first, ...silent]) socket.destroy();
  });

  it('closes connections beyond the global limit', async () => {
    fixture = await startTestServer({ limits: { connections: 1 } });
    const first = plainConnection(fixture.address);
    await once(first, 'connect');
    await once(plainConnection(fixture.address), 'close');
    expect(await rejectedConnections(fixture, 'connections')).to.equal(1);
    first.destroy();
  });

  for (const [content, bytes] of [
    ['nothing', ''],
    ['half of the preface', 'PRI * HTTP/2.0'],
    ['only the preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ] as const) {
    it(`closes a connection that sends ${content} after exactly 10 s`, async () => {
      const clock = new FakeClock();
      fixture = await startTestServer({ clock });
      const socket = plainConnection(fixture.address);
      await once(socket, 'connect');
      socket.write(bytes);
      await eventually('the deadline is set', () => clock.pendingTimersMs.includes(10_000));
      clock.advance(9999);
      expect(await rejectedConnections(fixture, 'handshake_timeout')).to.equal(0);
      clock.advance(1);
      await once(socket, 'close');
      expect(await rejectedConnections(fixture, 'handshake_timeout')).to.equal(1);
    });
  }

  it('keeps a connection without a stream open after the handshake', async () => {
    const clock = new FakeClock();
    fixture = await startTestServer({ clock });
    const peer = await openRawPeer(fixture.address);
    await eventually('the handshake is complete', () => peer.received(FRAME.settings) >= 2);
    clock.advance(60_000);
    await peer.write(openingFrame(1));
    await peer.sendData(1, grpcMessage(firstReport('r-0')));
    await eventually('the report is applied', () => fixture.applied.length === 1);
    peer.destroy();
  });

  it('sends GOAWAY to a connection that buffers too many bytes, and disconnects its reporters', async () => {
    fixture = await startTestServer({ limits: { bufferedBytes: 2 * MIB } });
    const other = fixture.open();
    other.sendBytes(firstReport('other'));
    await other.next();
    const peer = await openRawPeer(fixture.address);
    await peer.write(openingFrame(1));
    await peer.sendData(1, grpcMessage(firstReport('excessive')));
    await eventually('the reporter is connected', () =>
      fixture.connectionEvents.includes('excessive connected'),
    );
    await peer.sendData(1, grpcMessage(Buffer.alloc(MIB + 10_000), 4 * MIB));
    await peer.closed;
    expect(peer.goawayCode).to.equal(ENHANCE_YOUR_CALM);
    expect(await rejectedConnections(fixture, 'buffered_bytes')).to.equal(1);
    await eventually('the reporter is disconnected', () =>
      fixture.connectionEvents.includes('excessive disconnected'),
    );
    other.send({ nonce: 2 });
    expect(await other.next()).to.deep.include({ request_nonce: '2' });
  });

  it('allows 200 open streams per connection, as announced in SETTINGS', async () => {
    fixture = await startTestServer();
    const peer = await openRawPeer(fixture.address);
    await peer.waitUntil(() => peer.received(FRAME.settings) >= 2);
    for (let i = 0; i < 200; i += 1) await peer.write(openingFrame(2 * i + 1));
    await peer.sendData(399, grpcMessage(firstReport('last')));
    await eventually('the last of them is served', () => fixture.applied.length === 1);
    await peer.write(openingFrame(401));
    await peer.closed;
    expect(peer.goawayCode).to.equal(PROTOCOL_ERROR);
    const stream = fixture.open();
    stream.sendBytes(firstReport('other'));
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
  });

  const encodings = [
    { encoding: 'gzip', flag: 1, code: status.UNIMPLEMENTED },
    { encoding: 'deflate', flag: 1, code: status.UNIMPLEMENTED },
    { encoding: 'snappy', flag: 1, code: status.UNIMPLEMENTED },
    { encoding: 'zstd', flag: 1, code: status.UNIMPLEMENTED },
    { encoding: 'br', flag: 1, code: status.UNIMPLEMENTED },
    { encoding: 'x'.repeat(1000), flag: 1, code: status.UNIMPLEMENTED },
    // The message itself is not compressed, as a client may decide for a small one.
    { encoding: 'gzip', flag: 0, code: undefined },
    { encoding: 'identity', flag: 0, code: undefined },
  ];
  for (const { encoding, flag, code } of encodings) {
    const outcome = code === undefined ? 'is accepted' : `is rejected with ${status[code]}`;
    const name = `grpc-encoding ${encoding.slice(0, 10)} and ${flag === 1 ? 'a compressed' : 'an uncompressed'} message`;
    it(`a stream with ${name} ${outcome}, and the response names the accepted encodings`, async () => {
      fixture = await startTestServer();
      const session = connectHttp2(`http://${fixture.address}`);
      const request = session.request({
        ':method': 'POST',
        ':path': METHOD.path,
        'content-type': 'application/grpc',
        te: 'trailers',
        'grpc-encoding': encoding,
      });
      const headers = new Promise<IncomingHttpHeaders>((resolve) => request.once('response', resolve));
      request.resume();
      request.write(grpcMessage(firstReport('r-0'), undefined, flag));
      const received = await headers;
      expect(received['grpc-accept-encoding']).to.equal('identity');
      if (code === undefined) {
        await eventually('the report is applied', () => fixture.applied.length === 1);
      } else {
        expect(received['grpc-status']).to.equal(String(code));
        expect(fixture.applied).to.deep.equal([]);
      }
      session.destroy();
    });
  }

  it('names the accepted encodings in every response, also to an unknown method', async () => {
    fixture = await startTestServer();
    const session = connectHttp2(`http://${fixture.address}`);
    for (const path of ['/nothing', '/grpc.health.v1.Health/Check']) {
      const request = session.request({
        ':method': 'POST',
        ':path': path,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const headers = new Promise<IncomingHttpHeaders>((resolve) => request.once('response', resolve));
      request.resume();
      request.end(grpcMessage(Buffer.alloc(0)));
      expect((await headers)['grpc-accept-encoding'], path).to.equal('identity');
    }
    session.destroy();
  });

  for (const [name, value] of [
    [':path', `/${'x'.repeat(15_000)}`],
    ['grpc-timeout', '\u00ff'.repeat(15_000)],
  ] as const) {
    it(`does not repeat a ${name} of 15 kB in its response`, async () => {
      fixture = await startTestServer();
      const peer = await openRawPeer(fixture.address);
      await peer.write(openingFrame(1, { [name]: value }));
      await peer.waitUntil(() => peer.received(FRAME.headers) + peer.received(FRAME.rstStream) > 0);
      expect(peer.received(FRAME.headers)).to.equal(1);
      expect(peer.firstBytes.length).to.be.below(1000);
      peer.destroy();
    });
  }

  it('does not keep headers that are not used, of which compressed ones inflate', async () => {
    fixture = await startTestServer();
    const peer = await openRawPeer(fixture.address);
    const block = headerBlock(requestFields());
    // Adds a field to the dynamic table of HPACK (RFC 7541, 6.2.1), to which the other streams refer 15 times.
    const added = Buffer.concat([Buffer.from([0x40]), headerBlock([['x', 'x'.repeat(3900)]]).subarray(1)]);
    const references = Buffer.alloc(15, 0x80 | 62);
    await peer.write(frame(FRAME.headers, END_HEADERS, 1, Buffer.concat([block, added])));
    const before = heapBytes();
    for (let id = 3; id < 400; id += 2)
      await peer.write(frame(FRAME.headers, END_HEADERS, id, Buffer.concat([block, references])));
    // Answered once the streams are open.
    await peer.write(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    await peer.waitUntil(() => peer.received(FRAME.ping) > 0);
    // 12 MB of headers were referred to.
    expect(heapBytes() - before).to.be.below(6_000_000);
    expect(peer.received(FRAME.rstStream)).to.equal(0);
    peer.destroy();
  });

  it('rejects a compressed report with UNIMPLEMENTED, and serves the next stream', async () => {
    fixture = await startTestServer();
    const client = new Client(fixture.address, credentials.createInsecure(), {
      'grpc.default_compression_algorithm': compressionAlgorithms.gzip,
    });
    const call = client.makeBidiStreamRequest(
      METHOD.path,
      (bytes: Buffer) => bytes,
      METHOD.responseDeserialize,
    );
    call.on('error', () => {});
    call.resume();
    const ended = new Promise<StatusObject>((resolve) => call.on('status', resolve));
    call.write(firstReport('r-0', fullPush(100)));
    const { code, details } = await ended;
    client.close();
    expect(code).to.equal(status.UNIMPLEMENTED);
    expect(details).to.contain('identity');
    expect(fixture.applied).to.deep.equal([]);
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0'));
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
  });

  it('accepts a stream that announces an encoding but does not use it', async () => {
    fixture = await startTestServer();
    const peer = await openRawPeer(fixture.address);
    await peer.write(openingFrame(1, { 'grpc-encoding': 'gzip' }));
    await peer.sendData(1, grpcMessage(firstReport('r-0')));
    await eventually('the report is applied', () => fixture.applied.length === 1);
    peer.destroy();
  });

  it('opens windows of 1 MiB per stream and 4 MiB per connection, for links with a high latency', async () => {
    fixture = await startTestServer();
    const session = connectHttp2(`http://${fixture.address}`);
    try {
      let settings: Settings = {};
      session.on('remoteSettings', (received) => (settings = received));
      const stream = session.request({
        ':method': 'POST',
        ':path': '/none/none',
        'content-type': 'application/grpc',
      });
      stream.on('error', () => {});
      await eventually('the window of a stream', () => settings.initialWindowSize === MIB);
      await eventually('the window of all', () => (session.state.remoteWindowSize ?? 0) === 4 * MIB);
    } finally {
      session.destroy();
    }
  });

  it('closes a rejected stream whose peer keeps its half open after 10 s, and keeps the connection', async () => {
    const clock = new FakeClock();
    fixture = await startTestServer({ clock });
    const peer = await openRawPeer(fixture.address);
    await peer.write(openingFrame(1));
    await peer.sendData(1, grpcMessage(requestBytes({ nonce: 1 })));
    await peer.waitUntil(() => peer.received(FRAME.headers) >= 2);
    await eventually('the last response is sent', () => clock.pendingTimersMs.includes(10_000));
    clock.advance(9999);
    expect(peer.resetCode(1)).to.equal(undefined);
    clock.advance(1);
    await peer.waitUntil(() => peer.resetCode(1) !== undefined);
    expect(peer.resetCode(1)).to.equal(0);
    await peer.write(openingFrame(3));
    await peer.sendData(3, grpcMessage(firstReport('r-0')));
    await eventually('the next stream is served', () => fixture.applied.length === 1);
    peer.destroy();
  });

  it('accepts a header block that is split into several frames', async () => {
    fixture = await startTestServer();
    const peer = await openRawPeer(fixture.address);
    const whole = openingFrame(1);
    const block = whole.subarray(9);
    await peer.write(frame(FRAME.headers, 0, 1, block.subarray(0, 20)));
    await peer.write(frame(FRAME.continuation, END_HEADERS, 1, block.subarray(20)));
    await peer.sendData(1, grpcMessage(firstReport('r-0')));
    await eventually('the report is applied', () => fixture.applied.length === 1);
    peer.destroy();
  });
});

describe('gRPC reflection', () => {
  interface Reflection extends Client {
    ServerReflectionInfo(): ReturnType<Client['makeBidiStreamRequest']>;
  }
  const V1 = fileURLToPath(
    new URL(
      '../../node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto',
      import.meta.url,
    ),
  );
  let fixture: TestServer;

  afterEach(() => fixture.stop());

  async function services(): Promise<{ names: string[]; code: number }> {
    const loaded = loadPackageDefinition(loadSync(V1, { keepCase: true })) as unknown as {
      grpc: { reflection: { v1: { ServerReflection: new (...args: unknown[]) => Reflection } } };
    };
    const client = new loaded.grpc.reflection.v1.ServerReflection(
      fixture.address,
      credentials.createInsecure(),
    );
    const call = client.ServerReflectionInfo();
    const names: string[] = [];
    call.on('data', (response: { list_services_response: { service: { name: string }[] } }) => {
      for (const { name } of response.list_services_response.service) names.push(name);
      call.end();
    });
    call.on('error', () => {});
    const ended = new Promise<StatusObject>((resolve) => call.on('status', resolve));
    call.write({ list_services: '' });
    const { code } = await ended;
    client.close();
    return { names, code };
  }

  it('is not served by default', async () => {
    fixture = await startTestServer();
    expect(await services()).to.deep.equal({ names: [], code: status.UNIMPLEMENTED });
  });

  it('lists the reporting service if it is enabled', async () => {
    fixture = await startTestServer({ reflection: true });
    expect(await services()).to.deep.equal({
      names: [
        'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client.ReverseTunnelReportingService',
      ],
      code: status.OK,
    });
  });
});
