import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import type { TokenReview } from '../../src/grpc/token-authenticator.ts';
import { createCertificateAuthority } from '../support/certificates.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { dial } from '../support/test-stream.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';
import { tunnel } from '../support/wire.ts';

const AUDIENCE = 'reverse-tunnel-operator';
const authority = createCertificateAuthority();

/** A token that is reviewed whoever signed it; each is another one. */
function token(serial: number): string {
  const claims = Buffer.from(JSON.stringify({ aud: AUDIENCE, jti: serial })).toString('base64url');
  return `e30.${claims}.c2ln`;
}

describe('a stream whose token is being reviewed', () => {
  let clock: FakeClock;
  let world: TestServer;
  let asked: ((review: TokenReview) => void)[];

  beforeEach(async () => {
    clock = new FakeClock();
    asked = [];
    world = await startTestServer({
      clock,
      limits: { pendingAuthentications: 6 },
      auth: {
        mode: 'token',
        tls: new TlsAcceptor(serverMaterial(authority), 'none'),
        audience: AUDIENCE,
        reviewToken: () => new Promise((resolve) => asked.push(resolve)),
      },
    });
  });
  afterEach(() => world.stop());

  const waiting = (count: number): Promise<void> =>
    eventually(`${count} reviews asked for`, () => asked.length === count);

  it('is not read: a report of 1 MB stays in the windows until the answer is there, then it is ACKed', async () => {
    let decoded = 0;
    onDecodeStart(0, () => (decoded += 1));
    const stream = world.open(peerCredentials(authority), token(0));
    const tunnels = Array.from({ length: 10_000 }, (_, i) => tunnel(`node-${i}`));
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: tunnels }));
    await waiting(1);
    expect({ decoded, responses: stream.responses.length }).to.deep.equal({ decoded: 0, responses: 0 });
    asked[0]?.({ authenticated: true, namespace: 'edge', serviceAccount: 'envoy' });
    await stream.next();
    expect(decoded).to.equal(1);
    expect(world.applied[0]?.report.added).to.have.length(10_000);
  });

  it('is refused when there is no response within 10 s, and when the operator shuts down', async () => {
    const late = world.open(peerCredentials(authority), token(0));
    await waiting(1);
    clock.advance(10_000);
    expect((await late.ended).code).to.equal(status.UNAVAILABLE);
    expect(await world.count('streamsRejected', 'review_timeout')).to.equal(1);
    const last = world.open(peerCredentials(authority), token(1));
    await waiting(2);
    const stopped = world.stop();
    expect((await last.ended).code).to.equal(status.UNAVAILABLE);
    await stopped;
    await eventually('no timer is left', () => clock.pendingTimersMs.length === 0);
  });

  it('is forgotten when its peer cancels it', async () => {
    const stream = world.open(peerCredentials(authority), token(0));
    await waiting(1);
    stream.cancel();
    await eventually('no deadline is left', () => !clock.pendingTimersMs.includes(10_000));
    asked[0]?.({ authenticated: true, namespace: 'edge', serviceAccount: 'envoy' });
    expect(world.peers).to.deep.equal([]);
  });

  it('is cut with its connection when too many of that connection wait; others go on', async () => {
    const other = world.open(peerCredentials(authority), token(100));
    other.sendBytes(firstReport('other'));
    await waiting(1);
    const open = world.connection(peerCredentials(authority), token(0));
    const crowd = Array.from({ length: 4 }, () => open());
    await Promise.all(crowd.map((stream) => stream.ended));
    expect(await world.count('connectionsRejected', 'pending_authentication')).to.equal(1);
    asked[0]?.({ authenticated: true, namespace: 'edge', serviceAccount: 'envoy' });
    await other.next();
    expect(world.connectionEvents).to.deep.equal(['other connected']);
  });

  it('is what reporting needs; who asks for the health of the service needs no token', async () => {
    const client = dial(world.address, peerCredentials(authority));
    world.server.setServing(true);
    const answer = await new Promise<Buffer>((resolve, reject) => {
      const asIs = (bytes: Buffer): Buffer => bytes;
      client.makeUnaryRequest('/grpc.health.v1.Health/Check', asIs, asIs, Buffer.alloc(0), (error, bytes) =>
        error === null && bytes !== undefined ? resolve(bytes) : reject(error ?? new Error('nothing')),
      );
    });
    client.close();
    // HealthCheckResponse: field 1, SERVING.
    expect([...answer]).to.deep.equal([0x08, 0x01]);
    const stream = world.open(peerCredentials(authority));
    expect((await stream.ended).code).to.equal(status.UNAUTHENTICATED);
  });
});
