import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import {
  firstReport,
  startTestServer,
  type TestServer,
  type TestServerOptions,
} from '../support/reporting-server.ts';
import { fullPush, tunnel } from '../support/wire.ts';

describe('a stream of reports', () => {
  let world: TestServer;
  const serve = async (options?: TestServerOptions): Promise<void> => {
    world = await startTestServer(options);
  };

  afterEach(() => world.stop());

  it('is ACKed with the nonce and the node of the report, which is folded whole', async () => {
    await serve();
    const stream = world.open();
    stream.sendBytes(firstReport('r-0', { ...fullPush(3), removed_tunnel_names: ['gone'], nonce: 1 }));
    expect(await stream.next()).to.deep.equal({
      node_id: 'r-0',
      report_interval: { seconds: '5', nanos: 0 },
      request_nonce: '1',
    });
    expect(world.applied).to.have.length(1);
    const [{ reporter, report } = expect.fail('nothing was folded')] = world.applied;
    expect(reporter).to.deep.equal({ cluster: 'edge', id: 'r-0' });
    expect(report.fullPush).to.equal(true);
    expect(report.added.map(({ name }) => name)).to.deep.equal(['tunnel-0', 'tunnel-1', 'tunnel-2']);
    expect(report.removedNames).to.deep.equal(['gone']);
    expect(world.server.connectedReporters).to.equal(1);
  });

  it('needs node on the first report only', async () => {
    await serve();
    const stream = world.open();
    stream.sendBytes(firstReport('r-0'));
    stream.send({ nonce: 2, added_tunnels: [tunnel('a')] });
    stream.send({ nonce: 3 });
    await stream.next();
    expect(await stream.next()).to.deep.equal({ node_id: 'r-0', request_nonce: '2' });
    expect(await stream.next()).to.deep.equal({ node_id: 'r-0', request_nonce: '3' });
    expect(world.applied.map(({ reporter }) => reporter.id)).to.deep.equal(['r-0', 'r-0', 'r-0']);
  });

  it('may leave the cluster empty', async () => {
    await serve();
    const stream = world.open();
    stream.send({ node: { id: 'r-0' }, nonce: 1 });
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    expect(world.applied[0]?.reporter).to.deep.equal({ cluster: '', id: 'r-0' });
  });

  it('may say node in any number of parts, and fields of it that are not read', async () => {
    await serve();
    const stream = world.open();
    const half = firstReport('r-0', {
      node: { id: 'r-0', user_agent_name: 'envoy', locality: { zone: 'a' } },
    });
    stream.sendBytes(Buffer.concat([half, firstReport('', { node: { cluster: 'edge' }, nonce: 8 })]));
    expect(await stream.next()).to.deep.include({ node_id: 'r-0', request_nonce: '8' });
    expect(world.applied[0]?.reporter).to.deep.equal({ cluster: 'edge', id: 'r-0' });
  });

  for (const { intervalMs, told } of [
    { intervalMs: 25, told: { seconds: '0', nanos: 25_000_000 } },
    { intervalMs: 999, told: { seconds: '0', nanos: 999_000_000 } },
    { intervalMs: 1500, told: { seconds: '1', nanos: 500_000_000 } },
    { intervalMs: 3_600_000, told: { seconds: '3600', nanos: 0 } },
  ]) {
    it(`tells a report interval of ${intervalMs} ms once, to each stream anew`, async () => {
      await serve({ reportIntervalMs: () => intervalMs });
      for (const stream of [world.open(), world.open()]) {
        stream.sendBytes(firstReport('r-0'));
        stream.send({ nonce: 2 });
        expect(await stream.next()).to.deep.include({ report_interval: told });
        expect(await stream.next()).to.not.have.property('report_interval');
      }
    });
  }

  it('is told a report interval that changes while it is open, once, with the next ACK', async () => {
    let intervalMs = 5000;
    await serve({ reportIntervalMs: () => intervalMs });
    const stream = world.open();
    stream.sendBytes(firstReport('r-0'));
    expect(await stream.next()).to.deep.include({ report_interval: { seconds: '5', nanos: 0 } });
    intervalMs = 250;
    stream.send({ nonce: 2 });
    expect(await stream.next()).to.deep.include({ report_interval: { seconds: '0', nanos: 250_000_000 } });
    stream.send({ nonce: 3 });
    expect(await stream.next()).to.not.have.property('report_interval');
  });

  for (const { intervalMs, silenceMs } of [
    { intervalMs: 1000, silenceMs: 15_000 },
    { intervalMs: 20_000, silenceMs: 60_000 },
  ]) {
    it(`with an interval of ${intervalMs} ms ends after ${silenceMs} ms of silence, and not before`, async () => {
      const clock = new FakeClock();
      await serve({ reportIntervalMs: () => intervalMs, clock });
      const stream = world.open();
      stream.sendBytes(firstReport('r-0'));
      await stream.next();
      clock.advance(silenceMs - 1);
      stream.send({ nonce: 2 });
      await stream.next();
      clock.advance(silenceMs - 1);
      expect(world.server.connectedReporters).to.equal(1);
      clock.advance(1);
      expect(await stream.ended).to.deep.include({ code: status.DEADLINE_EXCEEDED });
      expect(world.server.connectedReporters).to.equal(0);
      expect(await world.count('streamsClosed', 'heartbeat_timeout')).to.equal(1);
    });
  }

  it('has every nonce ACKed as it came, and counts those that repeat or fall', async () => {
    await serve();
    const nonces = [
      '1',
      '1',
      '5',
      '3',
      '0',
      '0',
      '9007199254740993',
      '9223372036854775807',
      '2',
      '9223372036854775807',
    ];
    const stream = world.open();
    for (const nonce of nonces) stream.sendBytes(firstReport('r-0', { nonce }));
    const acked: (string | undefined)[] = [];
    for (const _ of nonces) acked.push((await stream.next()).request_nonce);
    expect(acked.map((nonce) => nonce ?? '0')).to.deep.equal(nonces);
    expect(await world.count('nonceAnomalies', 'repeated')).to.equal(2);
    expect(await world.count('nonceAnomalies', 'decreased')).to.equal(3);
    expect(await world.count('nonceAnomalies', 'skipped')).to.equal(4);
    expect(world.applied).to.have.length(nonces.length);
    expect(world.logged.filter(({ level }) => level >= 40)).to.deep.equal([]);
  });

  it('that begins with nonce 0 is ACKed', async () => {
    await serve();
    const stream = world.open();
    stream.sendBytes(firstReport('r-0', { nonce: 0 }));
    const { request_nonce: nonce } = await stream.next();
    expect(nonce ?? '0').to.equal('0');
    expect(world.applied).to.have.length(1);
  });

  it('has 1,000 reports that come at once folded and ACKed in their order', async () => {
    await serve();
    const stream = world.open();
    for (let nonce = 1; nonce <= 1000; nonce += 1) {
      stream.sendBytes(firstReport('r-0', { nonce, added_tunnels: [tunnel(`t-${nonce}`)] }));
    }
    const inOrder = Array.from({ length: 1000 }, (_, i) => i + 1);
    const acked: number[] = [];
    for (const _ of inOrder) acked.push(Number((await stream.next()).request_nonce));
    expect(acked).to.deep.equal(inOrder);
    expect(world.applied.map(({ report }) => report.added[0]?.name)).to.deep.equal(
      inOrder.map((n) => `t-${n}`),
    );
  });

  it('keeps its order when large reports, which rest, stand between small ones', async () => {
    await serve();
    const stream = world.open();
    const sizes = [1, 5000, 0, 3000, 1, 4000, 0];
    for (const [i, size] of sizes.entries())
      stream.sendBytes(firstReport('r-0', { ...fullPush(size), nonce: i + 1 }));
    const acked: (string | undefined)[] = [];
    for (const _ of sizes) acked.push((await stream.next()).request_nonce);
    expect(acked).to.deep.equal(sizes.map((_, i) => String(i + 1)));
    expect(world.applied.map(({ report }) => report.added.length)).to.deep.equal(sizes);
  });

  it('counts what was accepted by kind', async () => {
    await serve();
    const stream = world.open();
    stream.sendBytes(firstReport('r-0', { full_push: true }));
    stream.send({ nonce: 2, removed_tunnel_names: ['a'] });
    stream.send({ nonce: 3 });
    stream.send({ nonce: 4 });
    for (let i = 0; i < 4; i += 1) await stream.next();
    expect(await world.count('reports', 'full')).to.equal(1);
    expect(await world.count('reports', 'delta')).to.equal(1);
    expect(await world.count('reports', 'heartbeat')).to.equal(2);
    expect((await world.metrics.acks.get()).values[0]?.value).to.equal(4);
    const seconds = await world.metrics.ackSeconds.get();
    expect(seconds.values.find(({ metricName }) => metricName?.endsWith('_count'))?.value).to.equal(4);
  });

  it('half-closed by the peer right behind a large report: that is still ACKed, then the stream ends well', async () => {
    await serve();
    const stream = world.open();
    stream.sendBytes(firstReport('r-0', fullPush(20_000)));
    stream.end();
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    expect(await stream.ended).to.deep.include({ code: status.OK });
    expect(world.applied).to.have.length(1);
    expect(await world.count('streamsClosed', 'client_closed')).to.equal(1);
    expect(world.server.connectedReporters).to.equal(0);
  });

  it('that ends without a word is counted and leaves nothing behind', async () => {
    await serve();
    const stream = world.open();
    stream.end();
    expect(await stream.ended).to.deep.include({ code: status.OK });
    expect(await world.count('streamsClosed', 'client_closed')).to.equal(1);
    expect(world.applied).to.deep.equal([]);
    expect(world.logged).to.deep.equal([]);
  });

  it('reset by the peer: the reporter is disconnected', async () => {
    await serve();
    const stream = world.open();
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    stream.cancel();
    await eventually('the reporter is gone', () => world.server.connectedReporters === 0);
    expect(await world.count('streamsClosed', 'client_closed')).to.equal(1);
    expect((await world.metrics.reportersConnected.get()).values[0]?.value).to.equal(0);
    expect(world.logged.map(({ msg }) => msg)).to.deep.equal(['reporter connected', 'reporter disconnected']);
  });

  it('of a peer that takes no ACKs is read no further, and goes on when it takes them', async () => {
    await serve();
    const stream = world.open();
    // The longest id there can be, for ACKs of some 280 bytes: 5,000 are more than the windows take.
    const count = 5000;
    const heartbeat = firstReport('r'.repeat(256));
    stream.sendBytes(heartbeat);
    await stream.next();
    stream.pause();
    for (let i = 0; i < count; i += 1) stream.sendBytes(heartbeat);
    let folded = -1;
    let still = 0;
    await eventually(
      'the server reads no more',
      () => {
        still = world.applied.length === folded ? still + 1 : 0;
        folded = world.applied.length;
        return still > 100;
      },
      20_000,
    );
    expect(world.applied.length).to.be.lessThan(count / 2);
    stream.resume();
    await eventually('all are ACKed', () => stream.responses.length === count + 1, 30_000);
    expect(world.applied).to.have.length(count + 1);
  });

  it('whose report cannot be folded ends with INTERNAL, without a word of why to the peer', async () => {
    await serve({
      apply: () => {
        throw new Error('a secret of ours');
      },
    });
    const stream = world.open();
    stream.sendBytes(firstReport('r-0'));
    const { code, details } = await stream.ended;
    expect(code).to.equal(status.INTERNAL);
    expect(details).to.not.contain('secret');
    expect(stream.responses).to.deep.equal([]);
    expect(await world.count('streamsClosed', 'internal')).to.equal(1);
    expect(world.logged.filter(({ level }) => level >= 50)).to.have.length(1);
    expect(world.server.connectedReporters).to.equal(0);
  });
});
