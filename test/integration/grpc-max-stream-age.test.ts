import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { createMultiReplicaHarness } from '../support/multi-replica-harness.ts';
import type { TestStream } from '../support/test-stream.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';

/** Below the heartbeat timeout of 15 s, which would close the stream too. */
const AGE_MS = 10_000;

describe('a stream that reaches its maximum age', () => {
  let clock: FakeClock;
  let fixture: TestServer;
  let open: () => TestStream;
  const openIdentified = async (id = 'r-0'): Promise<TestStream> => {
    const stream = open();
    stream.sendBytes(firstReport(id));
    await stream.next();
    return stream;
  };

  beforeEach(async () => {
    clock = new FakeClock();
    fixture = await startTestServer({ clock, maxStreamAgeMs: AGE_MS, random: () => 0.5 });
    open = fixture.connection();
  });
  afterEach(() => fixture.stop());

  it('is closed at exactly that age, so that its reporter reconnects', async () => {
    const stream = await openIdentified();
    clock.advance(AGE_MS - 1);
    stream.send({ nonce: 2 });
    await stream.next();
    clock.advance(1);
    expect(await stream.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'maximum stream age reached; reconnect',
    });
    expect(await fixture.count('streamsClosed', 'max_age')).to.equal(1);
  });

  it('does not report a reporter as disconnected that reconnects within 10 s', async () => {
    await (async () => {
      const stream = await openIdentified();
      clock.advance(AGE_MS);
      await stream.ended;
    })();
    expect(fixture.server.connectedReporters).to.equal(0);
    clock.advance(5_000);
    await openIdentified();
    clock.advance(AGE_MS - 1);
    expect(fixture.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 connected']);
  });

  it('reports a reporter as disconnected that does not reconnect within 10 s', async () => {
    const stream = await openIdentified();
    clock.advance(AGE_MS);
    await stream.ended;
    clock.advance(9_999);
    expect(fixture.connectionEvents).to.deep.equal(['r-0 connected']);
    clock.advance(1);
    expect(fixture.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 disconnected']);
    expect(clock.pendingTimersMs.filter((waitMs) => waitMs === 10_000)).to.deep.equal([]);
  });

  it('drains its connection: the next stream uses a new one, other streams continue', async () => {
    const old = await openIdentified('old');
    clock.advance(AGE_MS - 1);
    const young = await openIdentified('young');
    clock.advance(1);
    await old.ended;
    young.send({ nonce: 2 });
    await young.next();
    const reconnected = await openIdentified('old');
    reconnected.send({ nonce: 2 });
    await reconnected.next();
    expect(fixture.connectionEvents).to.deep.equal(['old connected', 'young connected', 'old connected']);
  });

  it('leaves no timer when the server is closed during a grace period', async () => {
    const stream = await openIdentified();
    clock.advance(AGE_MS);
    await stream.ended;
    await fixture.stop();
    await eventually('no timer is left', () => clock.pendingTimersMs.length === 0);
    expect(fixture.connectionEvents).to.deep.equal(['r-0 connected']);
  });
});

describe('a reporter whose streams repeatedly reach their maximum age', () => {
  const replicas = createMultiReplicaHarness();
  const { clock } = replicas;
  let fixture: TestServer;
  let open: () => TestStream;

  before(async () => {
    const { intake } = replicas.replica('a');
    fixture = await startTestServer({
      clock,
      maxStreamAgeMs: AGE_MS,
      random: () => 0.5,
      reporterConnected: (reporter, envoy, peer, isReconnect) =>
        intake.reporterConnected(reporter, envoy, peer, isReconnect),
      reporterDisconnected: (reporter, why) => intake.reporterDisconnected(reporter, why),
      accept: (reporter, report, receivedMs) => intake.accept(reporter, report, receivedMs),
    });
    open = fixture.connection();
  });
  after(async () => {
    replicas.stop();
    await fixture.stop();
  });
  const openIdentified = async (): Promise<TestStream> => {
    const stream = open();
    stream.sendBytes(firstReport('r-0', { full_push: true }));
    await stream.next();
    await replicas.settle();
    return stream;
  };

  it('is not reported as a duplicate, unlike two Envoys that share an ID', async () => {
    for (let times = 0; times < 12; times += 1) {
      const stream = await openIdentified();
      expect(replicas.condition({ cluster: 'edge', id: 'r-0' }, 'Connected')).to.match(/^True/);
      expect(replicas.owner({ cluster: 'edge', id: 'r-0' })).to.equal('a');
      clock.advance(AGE_MS);
      await stream.ended;
      clock.advance(5000);
      await replicas.settle();
    }
    expect(replicas.events.filter((event) => event.includes('conflict'))).to.deep.equal([]);
    for (let times = 0; times < 5; times += 1) await openIdentified();
    expect(replicas.events.filter((event) => event.includes('conflict'))).to.deep.equal(['a conflict r-0']);
  });
});

describe('a connection with a client certificate', () => {
  const authority = createCertificateAuthority();
  let clock: FakeClock;
  let fixture: TestServer;

  beforeEach(async () => {
    clock = new FakeClock(Date.now());
    const tls = new TlsAcceptor(serverMaterial(authority, authority), 'required');
    fixture = await startTestServer({
      clock,
      maxStreamAgeMs: AGE_MS,
      random: () => 0.5,
      auth: { mode: 'mtls', tls },
    });
  });
  afterEach(() => fixture.stop());

  const connection = (): (() => TestStream) =>
    fixture.connection(peerCredentials(authority, authority.issue({ usage: 'client' })));
  const openIdentified = async (open: () => TestStream): Promise<TestStream> => {
    const stream = open();
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    return stream;
  };

  it('limits later streams to its remaining age', async () => {
    const open = connection();
    const first = await openIdentified(open);
    clock.advance(AGE_MS - 1000);
    first.end();
    await first.ended;
    const second = await openIdentified(open);
    clock.advance(1000);
    expect((await second.ended).code).to.equal(status.UNAVAILABLE);
    expect(await fixture.count('streamsClosed', 'max_age')).to.equal(1);
  });

  it('rejects streams beyond the maximum age and drains, so the peer uses a new connection', async () => {
    const open = connection();
    const first = await openIdentified(open);
    first.end();
    await first.ended;
    clock.advance(AGE_MS);
    const late = open();
    late.sendBytes(firstReport('r-0'));
    expect(await late.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'connection exceeded its maximum age; reconnect',
    });
    expect(await fixture.count('streamsRejected', 'connection_max_age')).to.equal(1);
    await openIdentified(open);
  });
});
