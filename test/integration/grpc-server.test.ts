import { once } from 'node:events';
import { createServer, connect as connectTcp, type AddressInfo, type Server } from 'node:net';
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2';
import { Client, credentials, loadPackageDefinition, status, type ServiceError } from '@grpc/grpc-js';
import { expect } from 'chai';
import { service as healthService } from 'grpc-health-check';
import { ListenError } from '../../src/grpc/reporting-server.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { heapBytes } from '../support/heap.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { fullPush } from '../support/wire.ts';

const SERVICE =
  'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client.ReverseTunnelReportingService';
/** Far more than a shutdown takes; a test that comes to it shows that something did not end by itself. */
const GRACE_MS = 20_000;

/** Listens where another would, and stops again: succeeds only when the port is free. */
async function bindAndFree(address: string): Promise<void> {
  const other = createServer();
  const { hostname, port } = new URL(`tcp://${address}`);
  other.listen(Number(port), hostname.replace(/^\[|\]$/g, ''));
  await once(other, 'listening');
  other.close();
  await once(other, 'close');
}

describe('the reporting server', () => {
  let world: TestServer;

  afterEach(() => world.stop());

  describe('listens', () => {
    for (const host of ['127.0.0.1', '[::1]', 'localhost']) {
      it(`on ${host} with port 0, and says which port it is`, async () => {
        world = await startTestServer({ address: `${host}:0` });
        expect(world.address).to.match(new RegExp(`^${host.replaceAll(/[[\].]/g, '\\$&')}:[1-9]\\d+$`));
        const stream = world.open();
        stream.sendBytes(firstReport('r-0'));
        expect(await stream.next()).to.deep.include({ request_nonce: '1' });
      });
    }

    let occupant: Server;
    for (const { what, host, want } of [
      { what: 'a port that is in use', host: '127.0.0.1', want: /EADDRINUSE/ },
      { what: 'an address of another machine', host: '192.0.2.1', want: /EADDRNOTAVAIL/ },
      { what: 'a name that nobody has', host: 'no-such-host.invalid', want: /no-such-host\.invalid/ },
    ]) {
      it(`not on ${what}: one line says which address and why`, async () => {
        world = await startTestServer();
        occupant = createServer();
        occupant.listen(0, '127.0.0.1');
        await once(occupant, 'listening');
        const address = `${host}:${(occupant.address() as AddressInfo).port}`;
        const failure = await startTestServer({ address }).then(
          () => expect.fail('it listens'),
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

  describe('shuts down', () => {
    it('with every ACK out, then UNAVAILABLE, and the port is free', async () => {
      world = await startTestServer();
      const open = world.connection();
      const streams = [world.open(), open(), open(), open()];
      for (const [i, stream] of streams.entries()) {
        stream.sendBytes(firstReport(`r-${i}`));
        await stream.next();
        for (let nonce = 2; nonce <= 50; nonce += 1) stream.send({ nonce });
      }
      await eventually('all are folded', () => world.applied.length === 200, GRACE_MS);
      await world.server.close(GRACE_MS);
      for (const stream of streams) {
        expect(await stream.ended).to.deep.include({ code: status.UNAVAILABLE });
        expect(stream.responses.map(({ request_nonce: nonce }) => nonce)).to.deep.equal(
          Array.from({ length: 50 }, (_, i) => String(i + 1)),
        );
      }
      expect(await world.count('streamsClosed', 'shutdown')).to.equal(4);
      expect(world.server.connectedReporters).to.equal(0);
      await bindAndFree(world.address);
    });

    it('with nobody connected', async () => {
      world = await startTestServer();
      await world.server.close(GRACE_MS);
      await bindAndFree(world.address);
    });

    it('without a timer left behind', async () => {
      const clock = new FakeClock();
      world = await startTestServer({ clock });
      await world.server.close(GRACE_MS);
      expect(clock.pendingTimersMs).to.deep.equal([]);
    });

    it('in the middle of a large report, which is then not folded', async () => {
      world = await startTestServer();
      let shutDown: Promise<void> | undefined;
      onDecodeStart(1_000_000, () => {
        shutDown = world.server.close(GRACE_MS);
      });
      const stream = world.open();
      stream.sendBytes(firstReport('r-0', fullPush(100_000)));
      expect(await stream.ended).to.deep.include({ code: status.UNAVAILABLE });
      await shutDown;
      expect(world.applied).to.deep.equal([]);
      expect(stream.responses).to.deep.equal([]);
    });

    it('with a stream that has not said whose it is, one that comes just then, and one that comes too late', async () => {
      world = await startTestServer();
      const open = world.connection();
      const held = open();
      held.sendBytes(firstReport('r-0'));
      await held.next();
      const silent = open();
      const late = open();
      late.sendBytes(firstReport('r-1'));
      await world.server.close(GRACE_MS);
      const tooLate = open();
      tooLate.sendBytes(firstReport('r-2'));
      for (const stream of [held, silent, late, tooLate]) {
        expect(await stream.ended).to.deep.include({ code: status.UNAVAILABLE });
      }
      expect(world.applied).to.have.length(1);
    });

    it('cuts a connection that does not close within the grace', async () => {
      const clock = new FakeClock();
      world = await startTestServer({ clock });
      const peer = await stubbornPeer(world.address);
      let closed = false;
      const closing = world.server.close(5000).then(() => (closed = true));
      await eventually('the peer was told', () => peer.ended);
      clock.advance(4999);
      await roundTrip();
      expect(closed).to.equal(false);
      clock.advance(1);
      await closing;
      await bindAndFree(world.address);
      peer.session.destroy();
    });

    it('tells who watches its health, and cuts them after the grace', async () => {
      const clock = new FakeClock();
      world = await startTestServer({ clock });
      const health = healthClient(world.address);
      const seen: string[] = [];
      let cut = false;
      const watch = health.watch({ service: '' });
      watch.on('data', ({ status: state }: { status: string }) => seen.push(state));
      watch.on('error', () => {
        cut = true;
      });
      await eventually('the first state', () => seen.length === 1);
      world.server.setServing(true);
      await eventually('the second state', () => seen.length === 2);
      const closing = world.server.close(5000);
      await eventually('the last state', () => seen.length === 3);
      expect(seen).to.deep.equal(['NOT_SERVING', 'SERVING', 'NOT_SERVING']);
      expect(cut).to.equal(false);
      clock.advance(5000);
      await closing;
      await eventually('the watcher is cut', () => cut);
      health.close();
    });
  });

  describe('answers grpc.health.v1', () => {
    it('NOT_SERVING until it is said otherwise, for itself and for the service', async () => {
      world = await startTestServer();
      const health = healthClient(world.address);
      for (const service of ['', SERVICE]) {
        expect(await check(health, service)).to.equal('NOT_SERVING');
        world.server.setServing(true);
        expect(await check(health, service)).to.equal('SERVING');
        world.server.setServing(false);
        expect(await check(health, service)).to.equal('NOT_SERVING');
      }
      health.close();
    });

    it('of a service that there is not: NOT_FOUND without a word of its name, and to who watches, SERVICE_UNKNOWN', async () => {
      world = await startTestServer();
      const health = healthClient(world.address);
      const refused = await new Promise<ServiceError | null>((resolve) => {
        health.check({ service: 'another.Service' }, resolve);
      });
      expect(refused?.code).to.equal(status.NOT_FOUND);
      expect(refused?.details).to.equal('unknown service');
      const seen: string[] = [];
      const watch = health.watch({ service: 'another.Service' });
      watch.on('data', ({ status: state }: { status: string }) => seen.push(state));
      let ended = false;
      watch.on('error', () => (ended = true)).on('end', () => (ended = true));
      await eventually('an answer', () => seen.length > 0);
      world.server.setServing(true);
      // Later on the same connection.
      expect(await check(health, '')).to.equal('SERVING');
      expect({ seen, ended }).to.deep.equal({ seen: ['SERVICE_UNKNOWN'], ended: false });
      health.close();
    });

    it('and keeps nothing of services that there are not, when who watched them is gone', async () => {
      world = await startTestServer();
      const health = healthClient(world.address);
      const watchOne = async (serial: number): Promise<void> => {
        const watch = health.watch({ service: `${serial}${'x'.repeat(200_000)}` });
        watch.on('error', () => {});
        await once(watch, 'data');
        watch.cancel();
      };
      for (let serial = 0; serial < 20; serial += 1) await watchOne(serial);
      const before = heapBytes();
      for (let serial = 20; serial < 320; serial += 1) await watchOne(serial);
      // Of 60 MB.
      await eventually('memory is given back', () => heapBytes() - before < 10_000_000);
      health.close();
    });
  });

  describe('is left standing by a peer', () => {
    it('that speaks HTTP/1.1, TLS or nothing at all, or opens and closes', async () => {
      world = await startTestServer();
      const { hostname, port } = new URL(`tcp://${world.address}`);
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
      const stream = world.open();
      stream.sendBytes(firstReport('r-0'));
      expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    });

    it('that calls a method that there is not', async () => {
      world = await startTestServer();
      const client = new Client(world.address, credentials.createInsecure());
      for (const path of [`/${SERVICE}/Nothing`, '/nothing', `/${SERVICE}`]) {
        const failure = await new Promise<ServiceError | null>((resolve) => {
          client.makeUnaryRequest(path, asIs, asIs, Buffer.alloc(0), (error) => resolve(error));
        });
        expect(failure?.code).to.equal(status.UNIMPLEMENTED);
      }
      client.close();
      expect(world.logged).to.deep.equal([]);
    });
  });
});

function asIs(bytes: Buffer): Buffer {
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

/** A peer that has one report ACKed, and when the server ends the stream and the connection keeps its own side open. */
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

/** Enough turns of the event loop for a socket of this process. */
async function roundTrip(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
