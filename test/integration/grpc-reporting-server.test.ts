import { once } from 'node:events';
import { createServer, connect as connectTcp, type AddressInfo, type Server } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { Client, credentials, loadPackageDefinition, status, type ServiceError } from '@grpc/grpc-js';
import { expect } from 'chai';
import { service as healthService } from 'grpc-health-check';
import { ListenError } from '../../src/grpc/reporting-server.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { heapBytes } from '../support/heap.ts';
import { FRAME, frame, grpcMessage, openingFrame, openRawPeer } from '../support/raw-http2.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { fullPush } from '../support/wire.ts';

const SERVICE =
  'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client.ReverseTunnelReportingService';
/** Far longer than a shutdown takes; a test that reaches it shows that something did not end on its own. */
const GRACE_MS = 20_000;

/** RFC 9113, 7. */
const NO_ERROR = 0;
const INTERNAL_ERROR = 2;
const CANCEL = 8;

/** Encodes numbers in 4 bytes each. */
function uint32(...numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * numbers.length);
  for (const [index, number] of numbers.entries()) bytes.writeUInt32BE(number, 4 * index);
  return bytes;
}

/** Binds the port and closes it again, which succeeds only if the port is free. */
async function bindAndFree(address: string): Promise<void> {
  const other = createServer();
  const { hostname, port } = new URL(`tcp://${address}`);
  other.listen(Number(port), hostname.replace(/^\[|\]$/g, ''));
  await once(other, 'listening');
  other.close();
  await once(other, 'close');
}

describe('ReportingServer', () => {
  let fixture: TestServer;

  afterEach(() => fixture.stop());

  describe('listen', () => {
    for (const host of ['127.0.0.1', '[::1]', 'localhost']) {
      it(`listens on ${host} with port 0, and returns the bound port`, async () => {
        fixture = await startTestServer({ address: `${host}:0` });
        expect(fixture.address).to.match(new RegExp(`^${host.replaceAll(/[[\].]/g, '\\$&')}:[1-9]\\d+$`));
        const stream = fixture.open();
        stream.sendBytes(firstReport('r-0'));
        expect(await stream.next()).to.deep.include({ request_nonce: '1' });
      });
    }

    let occupant: Server;
    for (const { what, host, want } of [
      { what: 'a port that is in use', host: '127.0.0.1', want: /EADDRINUSE/ },
      { what: 'an address of another machine', host: '192.0.2.1', want: /EADDRNOTAVAIL/ },
      { what: 'an unknown host name', host: 'no-such-host.invalid', want: /no-such-host\.invalid/ },
    ]) {
      it(`fails for ${what}, with one line that names the address and the cause`, async () => {
        fixture = await startTestServer();
        occupant = createServer();
        occupant.listen(0, '127.0.0.1');
        await once(occupant, 'listening');
        const address = `${host}:${(occupant.address() as AddressInfo).port}`;
        const failure = await startTestServer({ address }).then(
          () => expect.fail('the server listens'),
          (error: unknown) => error,
        );
        occupant.close();
        expect(failure).to.be.instanceOf(ListenError);
        const { message, cause } = failure as ListenError;
        expect(message).to.contain(`cannot listen on ${address}: `);
        expect(message).to.match(want);
        expect(message).to.not.match(/[\n\r]/);
        expect(cause).to.be.instanceOf(Error);
      });
    }
  });

  describe('close', () => {
    it('sends every ACK, ends streams with UNAVAILABLE, and frees the port', async () => {
      fixture = await startTestServer();
      const open = fixture.connection();
      const streams = [fixture.open(), open(), open(), open()];
      for (const [i, stream] of streams.entries()) {
        stream.sendBytes(firstReport(`r-${i}`));
        await stream.next();
        for (let nonce = 2; nonce <= 50; nonce += 1) stream.send({ nonce });
      }
      await eventually('all reports are applied', () => fixture.applied.length === 200, GRACE_MS);
      await fixture.server.close(GRACE_MS);
      for (const stream of streams) {
        expect(await stream.ended).to.deep.include({ code: status.UNAVAILABLE });
        expect(stream.responses.map(({ request_nonce: nonce }) => nonce)).to.deep.equal(
          Array.from({ length: 50 }, (_, i) => String(i + 1)),
        );
      }
      expect(await fixture.count('streamsClosed', 'shutdown')).to.equal(4);
      expect(fixture.server.connectedReporters).to.equal(0);
      await bindAndFree(fixture.address);
    });

    it('frees the port without any connection', async () => {
      fixture = await startTestServer();
      await fixture.server.close(GRACE_MS);
      await bindAndFree(fixture.address);
    });

    it('leaves no timer', async () => {
      const clock = new FakeClock();
      fixture = await startTestServer({ clock });
      await fixture.server.close(GRACE_MS);
      expect(clock.pendingTimersMs).to.deep.equal([]);
    });

    for (const { what, bytes } of [
      { what: 'cancels its stream', bytes: frame(FRAME.rstStream, 0, 1, uint32(CANCEL)) },
      { what: 'ends the connection', bytes: frame(FRAME.goaway, 0, 0, uint32(0, NO_ERROR)) },
      {
        what: 'ends the connection with an error',
        bytes: frame(FRAME.goaway, 0, 0, uint32(0, INTERNAL_ERROR)),
      },
      { what: 'violates the protocol', bytes: frame(FRAME.data, 0, 0, uint32(0)) },
    ]) {
      it(`does not wait for its time limit if a client ${what} just before`, async () => {
        // The state of HTTP/2 differs in each of these turns of the event loop.
        for (let turns = 0; turns < 6; turns += 1) {
          const clock = new FakeClock();
          fixture = await startTestServer({ clock });
          const peer = await openRawPeer(fixture.address);
          await peer.write(openingFrame(1));
          await peer.write(frame(FRAME.data, 0, 1, grpcMessage(firstReport('r-0'))));
          await peer.waitUntil(() => peer.received(FRAME.data) > 0);
          await peer.write(bytes);
          peer.socket.end();
          for (let turn = 0; turn < turns; turn += 1) await nextTurn();
          // The clock stands still, so that no limit is ever reached.
          await fixture.server.close(GRACE_MS);
          await bindAndFree(fixture.address);
          await fixture.stop();
        }
      });
    }

    it('does not apply a large report that is being decoded', async () => {
      fixture = await startTestServer();
      let shutDown: Promise<void> | undefined;
      onDecodeStart(1_000_000, () => {
        shutDown = fixture.server.close(GRACE_MS);
      });
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0', fullPush(100_000)));
      expect(await stream.ended).to.deep.include({ code: status.UNAVAILABLE });
      await shutDown;
      expect(fixture.applied).to.deep.equal([]);
      expect(stream.responses).to.deep.equal([]);
    });

    it('ends unidentified streams, and streams that are opened during or after the shutdown', async () => {
      fixture = await startTestServer();
      const open = fixture.connection();
      const identified = open();
      identified.sendBytes(firstReport('r-0'));
      await identified.next();
      const unidentified = open();
      const late = open();
      late.sendBytes(firstReport('r-1'));
      await fixture.server.close(GRACE_MS);
      const tooLate = open();
      tooLate.sendBytes(firstReport('r-2'));
      for (const stream of [identified, unidentified, late, tooLate]) {
        expect(await stream.ended).to.deep.include({ code: status.UNAVAILABLE });
      }
      expect(fixture.applied).to.have.length(1);
    });

    it('destroys a connection that does not close within the grace period', async () => {
      const clock = new FakeClock();
      fixture = await startTestServer({ clock });
      const peer = await stubbornPeer(fixture.address);
      let closed = false;
      const closing = fixture.server.close(5000).then(() => (closed = true));
      await eventually('the stream of the peer is closed', () => peer.ended);
      clock.advance(4999);
      await roundTrip();
      expect(closed).to.equal(false);
      clock.advance(1);
      await closing;
      await bindAndFree(fixture.address);
      peer.session.destroy();
    });

    it('notifies health watchers, and disconnects them after the grace period', async () => {
      const clock = new FakeClock();
      fixture = await startTestServer({ clock });
      const health = healthClient(fixture.address);
      const states: string[] = [];
      let disconnected = false;
      const watch = health.watch({ service: '' });
      watch.on('data', ({ status: state }: { status: string }) => states.push(state));
      watch.on('error', () => {
        disconnected = true;
      });
      await eventually('the first state', () => states.length === 1);
      fixture.server.setServing(true);
      await eventually('the second state', () => states.length === 2);
      const closing = fixture.server.close(5000);
      await eventually('the last state', () => states.length === 3);
      expect(states).to.deep.equal(['NOT_SERVING', 'SERVING', 'NOT_SERVING']);
      expect(disconnected).to.equal(false);
      clock.advance(5000);
      await closing;
      await eventually('the watcher is disconnected', () => disconnected);
      health.close();
    });
  });

  describe('grpc.health.v1', () => {
    it('returns NOT_SERVING until setServing is called, for the server and for the service', async () => {
      fixture = await startTestServer();
      const health = healthClient(fixture.address);
      for (const service of ['', SERVICE]) {
        expect(await check(health, service)).to.equal('NOT_SERVING');
        fixture.server.setServing(true);
        expect(await check(health, service)).to.equal('SERVING');
        fixture.server.setServing(false);
        expect(await check(health, service)).to.equal('NOT_SERVING');
      }
      health.close();
    });

    it('answers a check of an unknown service with NOT_FOUND, and a watch with SERVICE_UNKNOWN', async () => {
      fixture = await startTestServer();
      const health = healthClient(fixture.address);
      const failure = await new Promise<ServiceError | null>((resolve) => {
        health.check({ service: 'another.Service' }, resolve);
      });
      expect(failure?.code).to.equal(status.NOT_FOUND);
      expect(failure?.details).to.equal('unknown service');
      const states: string[] = [];
      const watch = health.watch({ service: 'another.Service' });
      watch.on('data', ({ status: state }: { status: string }) => states.push(state));
      let ended = false;
      watch.on('error', () => (ended = true)).on('end', () => (ended = true));
      await eventually('a response', () => states.length > 0);
      fixture.server.setServing(true);
      // Later on the same connection.
      expect(await check(health, '')).to.equal('SERVING');
      expect({ states, ended }).to.deep.equal({ states: ['SERVICE_UNKNOWN'], ended: false });
      health.close();
    });

    it('does not keep the names of unknown services that were watched', async () => {
      fixture = await startTestServer();
      const health = healthClient(fixture.address);
      const watchOne = async (serial: number): Promise<void> => {
        const watch = health.watch({ service: `${serial}${'x'.repeat(200_000)}` });
        watch.on('error', () => {});
        await once(watch, 'data');
        watch.cancel();
      };
      for (let serial = 0; serial < 20; serial += 1) await watchOne(serial);
      const before = heapBytes();
      for (let serial = 20; serial < 320; serial += 1) await watchOne(serial);
      // 60 MB of names were sent.
      await eventually('memory is released', () => heapBytes() - before < 10_000_000);
      health.close();
    });
  });

  describe('unexpected clients', () => {
    it('serves streams after clients that send HTTP/1.1 or TLS, or close their connection', async () => {
      fixture = await startTestServer();
      const { hostname, port } = new URL(`tcp://${fixture.address}`);
      for (const bytes of ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc', '']) {
        const socket = connectTcp(Number(port), hostname);
        socket.on('error', () => {});
        await once(socket, 'connect');
        if (bytes === '') {
          socket.destroy();
        } else {
          socket.write(bytes, 'latin1');
          socket.resume();
          await once(socket, 'close');
        }
      }
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    });

    it('answers unknown methods with UNIMPLEMENTED', async () => {
      fixture = await startTestServer();
      const client = new Client(fixture.address, credentials.createInsecure());
      for (const path of [`/${SERVICE}/Nothing`, '/nothing', `/${SERVICE}`]) {
        const failure = await new Promise<ServiceError | null>((resolve) => {
          client.makeUnaryRequest(path, passThrough, passThrough, Buffer.alloc(0), (error) => resolve(error));
        });
        expect(failure?.code).to.equal(status.UNIMPLEMENTED);
      }
      client.close();
      expect(fixture.logged).to.deep.equal([]);
    });
  });
});

function passThrough(bytes: Buffer): Buffer {
  return bytes;
}

interface HealthClient extends Client {
  check(
    request: { service: string },
    done: (error: ServiceError | null, answer?: { status: string }) => void,
  ): void;
  watch(request: { service: string }): NodeJS.EventEmitter & { cancel(): void };
}

function healthClient(address: string): HealthClient {
  const { Health } = loadPackageDefinition({ Health: healthService }) as unknown as {
    Health: new (address: string, plain: ReturnType<typeof credentials.createInsecure>) => HealthClient;
  };
  return new Health(address, credentials.createInsecure());
}

function check(health: HealthClient, service: string): Promise<string | number | undefined> {
  return new Promise((resolve) => {
    health.check({ service }, (error, answer) => resolve(error === null ? answer?.status : error.code));
  });
}

/** Opens a peer that has one report ACKed and keeps its side open when the server closes the stream and connection. */
async function stubbornPeer(
  address: string,
): Promise<{ readonly session: ClientHttp2Session; readonly ended: boolean }> {
  const session = connectHttp2(`http://${address}`);
  session.on('error', () => {});
  const stream = session.request({
    ':method': 'POST',
    ':path': `/${SERVICE}/StreamReverseTunnels`,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', () => {});
  let ended = false;
  let acked = false;
  stream.on('data', () => {
    acked = true;
  });
  stream.on('trailers', () => {
    ended = true;
  });
  const report = firstReport('stubborn');
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(report.length, 1);
  stream.write(Buffer.concat([prefix, report]));
  await eventually('the ACK', () => acked);
  return {
    session,
    get ended() {
      return ended;
    },
  };
}

/** Waits for enough ticks of the event loop for a round trip over a socket within this process. */
async function roundTrip(): Promise<void> {
  for (let tick = 0; tick < 20; tick += 1) await new Promise((resolve) => setImmediate(resolve));
}
