import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import type { TokenReview } from '../../src/grpc/token-authenticator.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { dial } from '../support/test-stream.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';
import { tunnel } from '../support/wire.ts';

const AUDIENCE = 'reverse-tunnel-operator';
const authority = createCertificateAuthority();

/** Returns a token whose claims are valid; a different one per serial number. */
function token(serial: number): string {
  const claims = Buffer.from(JSON.stringify({ aud: AUDIENCE, jti: serial })).toString('base64url');
  return `e30.${claims}.c2ln`;
}

describe('a stream with a pending token review', () => {
  let clock: FakeClock;
  let fixture: TestServer;
  let reviews: ((review: TokenReview) => void)[];

  beforeEach(async () => {
    clock = new FakeClock();
    reviews = [];
    fixture = await startTestServer({
      clock,
      limits: { pendingAuthentications: 6 },
      auth: {
        mode: 'token',
        tls: new TlsAcceptor(serverMaterial(authority), 'none'),
        audience: AUDIENCE,
        reviewToken: () => new Promise((resolve) => reviews.push(resolve)),
      },
    });
  });
  afterEach(() => fixture.stop());

  const awaitReviews = (count: number): Promise<void> =>
    eventually(`${count} reviews`, () => reviews.length === count);

  it('is not read: a report of 1 MB is decoded only after the review', async () => {
    let decoded = 0;
    onDecodeStart(0, () => (decoded += 1));
    const stream = fixture.open(peerCredentials(authority), token(0));
    const tunnels = Array.from({ length: 10_000 }, (_, i) => tunnel(`node-${i}`));
    stream.sendBytes(firstReport('r-0', { full_push: true, added_tunnels: tunnels }));
    await awaitReviews(1);
    expect({ decoded, responses: stream.responses.length }).to.deep.equal({ decoded: 0, responses: 0 });
    reviews[0]?.({ authenticated: true, namespace: 'edge', serviceAccount: 'envoy' });
    await stream.next();
    expect(decoded).to.equal(1);
    expect(fixture.applied[0]?.report.added).to.have.length(10_000);
  });

  it('is rejected if the review takes longer than 10 s, or if the server shuts down', async () => {
    const late = fixture.open(peerCredentials(authority), token(0));
    await awaitReviews(1);
    clock.advance(10_000);
    expect((await late.ended).code).to.equal(status.UNAVAILABLE);
    expect(await fixture.count('streamsRejected', 'review_timeout')).to.equal(1);
    const last = fixture.open(peerCredentials(authority), token(1));
    await awaitReviews(2);
    const stopped = fixture.stop();
    expect((await last.ended).code).to.equal(status.UNAVAILABLE);
    await stopped;
    await eventually('no timer is left', () => clock.pendingTimersMs.length === 0);
  });

  it('leaves no timer when its peer cancels it', async () => {
    const stream = fixture.open(peerCredentials(authority), token(0));
    await awaitReviews(1);
    stream.cancel();
    await eventually('no deadline is left', () => !clock.pendingTimersMs.includes(10_000));
    reviews[0]?.({ authenticated: true, namespace: 'edge', serviceAccount: 'envoy' });
    expect(fixture.peers).to.deep.equal([]);
  });

  it('is closed with its connection if that has too many of them; others continue', async () => {
    const other = fixture.open(peerCredentials(authority), token(100));
    other.sendBytes(firstReport('other'));
    await awaitReviews(1);
    const open = fixture.connection(peerCredentials(authority), token(0));
    const crowd = Array.from({ length: 4 }, () => open());
    await Promise.all(crowd.map((stream) => stream.ended));
    expect(await fixture.count('connectionsRejected', 'pending_authentication')).to.equal(1);
    reviews[0]?.({ authenticated: true, namespace: 'edge', serviceAccount: 'envoy' });
    await other.next();
    expect(fixture.connectionEvents).to.deep.equal(['other connected']);
  });

  it('is required for reporting, but not for health checks', async () => {
    const client = dial(fixture.address, peerCredentials(authority));
    fixture.server.setServing(true);
    const response = await new Promise<Buffer>((resolve, reject) => {
      const passThrough = (bytes: Buffer): Buffer => bytes;
      client.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        passThrough,
        passThrough,
        Buffer.alloc(0),
        (error, bytes) =>
          error === null && bytes !== undefined ? resolve(bytes) : reject(error ?? new Error('no response')),
      );
    });
    client.close();
    // HealthCheckResponse: field 1, SERVING.
    expect([...response]).to.deep.equal([0x08, 0x01]);
    const stream = fixture.open(peerCredentials(authority));
    expect((await stream.ended).code).to.equal(status.UNAUTHENTICATED);
  });
});
