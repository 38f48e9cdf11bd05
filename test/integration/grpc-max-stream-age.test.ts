import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import { createCertificateAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import { createMultiReplicaHarness } from '../support/multi-replica-harness.ts';
import type { TestStream } from '../support/test-stream.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';

/** Below the silence of 15 s, which would end the stream too. */
const AGE_MS = 10_000;

describe('a stream that comes of age', () => {
  let clock: FakeClock;
  let world: TestServer;
  let open: () => TestStream;
  const named = async (id = 'r-0'): Promise<TestStream> => {
    const stream = open();
    stream.sendBytes(firstReport(id));
    await stream.next();
    return stream;
  };

  beforeEach(async () => {
    clock = new FakeClock();
    world = await startTestServer({ clock, maxStreamAgeMs: AGE_MS, random: () => 0.5 });
    open = world.connection();
  });
  afterEach(() => world.stop());

  it('is ended for its reporter to come back, and not a moment before', async () => {
    const stream = await named();
    clock.advance(AGE_MS - 1);
    stream.send({ nonce: 2 });
    await stream.next();
    clock.advance(1);
    expect(await stream.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'maximum stream age reached; reconnect',
    });
    expect(await world.count('streamsClosed', 'max_age')).to.equal(1);
  });

  it('leaves nothing to be said of a reporter that comes back within 10 s', async () => {
    await (async () => {
      const stream = await named();
      clock.advance(AGE_MS);
      await stream.ended;
    })();
    expect(world.server.connectedReporters).to.equal(0);
    clock.advance(5_000);
    await named();
    clock.advance(AGE_MS - 1);
    expect(world.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 connected']);
  });

  it('is said to be lost when it does not come back within 10 s', async () => {
    const stream = await named();
    clock.advance(AGE_MS);
    await stream.ended;
    clock.advance(9_999);
    expect(world.connectionEvents).to.deep.equal(['r-0 connected']);
    clock.advance(1);
    expect(world.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 disconnected']);
    expect(clock.pendingTimersMs.filter((waitMs) => waitMs === 10_000)).to.deep.equal([]);
  });

  it('takes its connection out of use: the next stream comes on a new one, others on it go on', async () => {
    const old = await named('old');
    clock.advance(AGE_MS - 1);
    const young = await named('young');
    clock.advance(1);
    await old.ended;
    young.send({ nonce: 2 });
    await young.next();
    const again = await named('old');
    again.send({ nonce: 2 });
    await again.next();
    expect(world.connectionEvents).to.deep.equal(['old connected', 'young connected', 'old connected']);
  });

  it('leaves no timer when the server closes while a reporter is on its way back', async () => {
    const stream = await named();
    clock.advance(AGE_MS);
    await stream.ended;
    await world.stop();
    await eventually('no timer is left', () => clock.pendingTimersMs.length === 0);
    expect(world.connectionEvents).to.deep.equal(['r-0 connected']);
  });
});

describe('a reporter whose streams come of age again and again', () => {
  const replicas = createMultiReplicaHarness();
  const { clock } = replicas;
  let world: TestServer;
  let open: () => TestStream;

  before(async () => {
    const { enqueuer: mirror } = replicas.replica('a');
    world = await startTestServer({
      clock,
      maxStreamAgeMs: AGE_MS,
      random: () => 0.5,
      reporterConnected: (reporter, envoy, _peer, isExpected) =>
        mirror.reporterConnected(reporter, envoy, isExpected),
      reporterDisconnected: (reporter, why) => mirror.reporterDisconnected(reporter, why),
      apply: (reporter, report, receivedMs) => mirror.apply(reporter, report, receivedMs),
    });
    open = world.connection();
  });
  after(async () => {
    replicas.stop();
    await world.stop();
  });
  const named = async (): Promise<TestStream> => {
    const stream = open();
    stream.sendBytes(firstReport('r-0', { full_push: true }));
    await stream.next();
    await replicas.settle();
    return stream;
  };

  it('is not taken for two Envoys that share its id, nor held back; two that do are told apart all the same', async () => {
    for (let times = 0; times < 12; times += 1) {
      const stream = await named();
      expect(replicas.condition({ cluster: 'edge', id: 'r-0' }, 'Connected')).to.match(/^True/);
      expect(replicas.owner({ cluster: 'edge', id: 'r-0' })).to.equal('a');
      clock.advance(AGE_MS);
      await stream.ended;
      clock.advance(5000);
      await replicas.settle();
    }
    expect(replicas.events.filter((event) => event.includes('conflict'))).to.deep.equal([]);
    for (let times = 0; times < 5; times += 1) await named();
    expect(replicas.events.filter((event) => event.includes('conflict'))).to.deep.equal(['a conflict r-0']);
  });
});

describe('a connection whose peer has shown a certificate', () => {
  const authority = createCertificateAuthority();
  let clock: FakeClock;
  let world: TestServer;

  beforeEach(async () => {
    clock = new FakeClock(Date.now());
    const tls = new TlsAcceptor(serverMaterial(authority, authority), 'required');
    world = await startTestServer({
      clock,
      maxStreamAgeMs: AGE_MS,
      random: () => 0.5,
      auth: { mode: 'mtls', tls },
    });
  });
  afterEach(() => world.stop());

  const connection = (): (() => TestStream) =>
    world.connection(peerCredentials(authority, authority.issue({ usage: 'client' })));
  const named = async (open: () => TestStream): Promise<TestStream> => {
    const stream = open();
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    return stream;
  };

  it('comes of age also when its peer ends each stream before that: a later stream lives only to its end', async () => {
    const open = connection();
    const first = await named(open);
    clock.advance(AGE_MS - 1000);
    first.end();
    await first.ended;
    const second = await named(open);
    clock.advance(1000);
    expect((await second.ended).code).to.equal(status.UNAVAILABLE);
    expect(await world.count('streamsClosed', 'max_age')).to.equal(1);
  });

  it('takes no stream beyond that age, and is taken out of use: the peer comes back on a new one', async () => {
    const open = connection();
    const first = await named(open);
    first.end();
    await first.ended;
    clock.advance(AGE_MS);
    const late = open();
    late.sendBytes(firstReport('r-0'));
    expect(await late.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'connection exceeded its maximum age; reconnect',
    });
    expect(await world.count('streamsRejected', 'connection_max_age')).to.equal(1);
    await named(open);
  });
});
