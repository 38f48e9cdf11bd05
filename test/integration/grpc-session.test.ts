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
import { FRAME, frame, grpcMessage, openingFrame, openRawPeer } from '../support/raw-http2.ts';
import { fullPush, requestBytes, tunnel } from '../support/wire.ts';

describe('Session', () => {
  let fixture: TestServer;
  const serve = async (options?: TestServerOptions): Promise<void> => {
    fixture = await startTestServer(options);
  };

  afterEach(() => fixture.stop());

  it('applies a report and ACKs it with its nonce and node', async () => {
    await serve();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0', { ...fullPush(3), removed_tunnel_names: ['gone'], nonce: 1 }));
    expect(await stream.next()).to.deep.equal({
      node_id: 'r-0',
      report_interval: { seconds: '5', nanos: 0 },
      request_nonce: '1',
    });
    expect(fixture.applied).to.have.length(1);
    const [{ reporter, report } = expect.fail('no report was applied')] = fixture.applied;
    expect(reporter).to.deep.equal({ cluster: 'edge', id: 'r-0' });
    expect(report.fullPush).to.equal(true);
    expect(report.added.map(({ name }) => name)).to.deep.equal(['tunnel-0', 'tunnel-1', 'tunnel-2']);
    expect(report.removedNames).to.deep.equal(['gone']);
    expect(fixture.server.connectedReporters).to.equal(1);
  });

  it('keeps the tunnels in memory that a reporter reports again when it reconnects', async () => {
    await serve();
    const before = fullPush(500);
    const after = { ...before, added_tunnels: before.added_tunnels?.toSpliced(400, 1) ?? [] };
    for (const report of [before, after]) {
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0', { ...report, nonce: 1 }));
      await stream.next();
    }
    const [first = [], second = []] = fixture.applied.map(({ report }) => report.added);
    expect(second.map(({ name }) => name)).to.deep.equal(
      first.map(({ name }) => name).filter((name) => name !== 'tunnel-400'),
    );
    expect(second.slice(0, 400).every((tunnel, index) => tunnel === first[index])).to.equal(true);
  });

  it('requires node in the first report only', async () => {
    await serve();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0'));
    stream.send({ nonce: 2, added_tunnels: [tunnel('a')] });
    stream.send({ nonce: 3 });
    await stream.next();
    expect(await stream.next()).to.deep.equal({ node_id: 'r-0', request_nonce: '2' });
    expect(await stream.next()).to.deep.equal({ node_id: 'r-0', request_nonce: '3' });
    expect(fixture.applied.map(({ reporter }) => reporter.id)).to.deep.equal(['r-0', 'r-0', 'r-0']);
  });

  it('applies thousands of reports that arrive in one frame', async () => {
    await serve();
    const peer = await openRawPeer(fixture.address);
    const heartbeats = Array.from({ length: 6000 }, (_, i) => grpcMessage(requestBytes({ nonce: i + 2 })));
    await peer.write(openingFrame(1));
    await peer.sendData(1, Buffer.concat([grpcMessage(firstReport('r-0')), ...heartbeats]));
    await eventually('all reports are applied', () => fixture.applied.length === 1 + heartbeats.length);
    peer.destroy();
  });

  it('announces reports of more than 2 KiB before they are decoded', async () => {
    const announced: number[] = [];
    await serve({
      onLargeReport: (bytes) => {
        expect(fixture.applied, 'reports applied before').to.have.length(announced.length + 1);
        announced.push(bytes);
      },
    });
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0', { ...fullPush(3), nonce: 1 }));
    await stream.next();
    const large = requestBytes({ ...fullPush(1000), nonce: 2 });
    stream.sendBytes(large);
    await stream.next();
    expect(announced).to.deep.equal([large.length]);
  });

  it('accepts an empty node.cluster', async () => {
    await serve();
    const stream = fixture.open();
    stream.send({ node: { id: 'r-0' }, nonce: 1 });
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    expect(fixture.applied[0]?.reporter).to.deep.equal({ cluster: '', id: 'r-0' });
  });

  it('accepts a node that is split into parts and has unknown fields', async () => {
    await serve();
    const stream = fixture.open();
    const firstPart = firstReport('r-0', {
      node: { id: 'r-0', user_agent_name: 'envoy', locality: { zone: 'a' } },
    });
    stream.sendBytes(Buffer.concat([firstPart, firstReport('', { node: { cluster: 'edge' }, nonce: 8 })]));
    expect(await stream.next()).to.deep.include({ node_id: 'r-0', request_nonce: '8' });
    expect(fixture.applied[0]?.reporter).to.deep.equal({ cluster: 'edge', id: 'r-0' });
  });

  for (const { intervalMs, sent } of [
    { intervalMs: 25, sent: { seconds: '0', nanos: 25_000_000 } },
    { intervalMs: 999, sent: { seconds: '0', nanos: 999_000_000 } },
    { intervalMs: 1500, sent: { seconds: '1', nanos: 500_000_000 } },
    { intervalMs: 3_600_000, sent: { seconds: '3600', nanos: 0 } },
  ]) {
    it(`sends a report interval of ${intervalMs} ms once per stream`, async () => {
      await serve({ reportIntervalMs: () => intervalMs });
      for (const stream of [fixture.open(), fixture.open()]) {
        stream.sendBytes(firstReport('r-0'));
        stream.send({ nonce: 2 });
        expect(await stream.next()).to.deep.include({ report_interval: sent });
        expect(await stream.next()).to.not.have.property('report_interval');
      }
    });
  }

  it('sends a changed report interval once, with the next ACK', async () => {
    let intervalMs = 5000;
    await serve({ reportIntervalMs: () => intervalMs });
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0'));
    expect(await stream.next()).to.deep.include({ report_interval: { seconds: '5', nanos: 0 } });
    intervalMs = 250;
    stream.send({ nonce: 2 });
    expect(await stream.next()).to.deep.include({ report_interval: { seconds: '0', nanos: 250_000_000 } });
    stream.send({ nonce: 3 });
    expect(await stream.next()).to.not.have.property('report_interval');
  });

  for (const { intervalMs, timeoutMs } of [
    { intervalMs: 1000, timeoutMs: 15_000 },
    { intervalMs: 20_000, timeoutMs: 60_000 },
  ]) {
    it(`times out after exactly ${timeoutMs} ms without a report at an interval of ${intervalMs} ms`, async () => {
      const clock = new FakeClock();
      await serve({ reportIntervalMs: () => intervalMs, clock });
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      await stream.next();
      clock.advance(timeoutMs - 1);
      stream.send({ nonce: 2 });
      await stream.next();
      clock.advance(timeoutMs - 1);
      expect(fixture.server.connectedReporters).to.equal(1);
      clock.advance(1);
      expect(await stream.ended).to.deep.include({ code: status.DEADLINE_EXCEEDED });
      expect(fixture.server.connectedReporters).to.equal(0);
      expect(await fixture.count('streamsClosed', 'heartbeat_timeout')).to.equal(1);
    });
  }

  describe('a report on a slow line', () => {
    /** Opens a stream with a first report, and returns functions that send parts of the second one. */
    async function startReport(clock: FakeClock) {
      await serve({ clock });
      const peer = await openRawPeer(fixture.address);
      await peer.write(openingFrame(1));
      await peer.sendData(1, grpcMessage(firstReport('r-0')));
      await eventually('the first report is applied', () => fixture.applied.length === 1);
      let pings = 0;
      return {
        peer,
        /** Sends a part; resolves when the server has received it, which the response to a ping proves. */
        send: async (part: Buffer): Promise<void> => {
          await peer.sendData(1, part);
          pings += 1;
          await peer.write(frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
          await peer.waitUntil(() => peer.received(FRAME.ping) >= pings);
        },
      };
    }

    it('is accepted although 0.8 MB take 22 s', async () => {
      const clock = new FakeClock();
      const { peer, send } = await startReport(clock);
      const added = Array.from({ length: 6000 }, (_, index) => ({
        name: `tunnel-${index}-${'x'.repeat(100)}`,
        identity: { tenant_id: 'acme', cluster_id: 'eu-1', node_id: `node-${index}` },
      }));
      const message = grpcMessage(requestBytes({ nonce: 2, added_tunnels: added }));
      expect(message.length).to.be.greaterThan(800_000);
      const partBytes = Math.ceil(message.length / 22);
      for (let at = 0; at < message.length; at += partBytes) {
        clock.advance(1000);
        await send(message.subarray(at, at + partBytes));
      }
      await eventually('the second report is applied', () => fixture.applied.length === 2);
      expect(fixture.server.connectedReporters).to.equal(1);
      peer.destroy();
    });

    it('ends 5 minutes after its first byte, if a byte arrives every 10 s', async () => {
      const clock = new FakeClock();
      const { peer, send } = await startReport(clock);
      await send(grpcMessage(Buffer.alloc(0), 1000));
      let seconds = 0;
      for (; seconds < 600 && fixture.server.connectedReporters === 1; seconds += 10) {
        await send(Buffer.alloc(1));
        clock.advance(10_000);
      }
      expect(seconds).to.equal(300);
      expect(await fixture.count('streamsClosed', 'heartbeat_timeout')).to.equal(1);
      peer.destroy();
    });

    it('ends when no byte arrives for 15 s', async () => {
      const clock = new FakeClock();
      const { peer, send } = await startReport(clock);
      clock.advance(10_000);
      await send(grpcMessage(Buffer.alloc(10), 1000));
      clock.advance(14_999);
      expect(fixture.server.connectedReporters).to.equal(1);
      clock.advance(1);
      expect(fixture.server.connectedReporters).to.equal(0);
      peer.destroy();
    });
  });

  it('ACKs every nonce unchanged, and counts repeated, decreased and skipped nonces', async () => {
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
    const stream = fixture.open();
    for (const nonce of nonces) stream.sendBytes(firstReport('r-0', { nonce }));
    const acked: (string | undefined)[] = [];
    for (const _ of nonces) acked.push((await stream.next()).request_nonce);
    expect(acked.map((nonce) => nonce ?? '0')).to.deep.equal(nonces);
    expect(await fixture.count('nonceAnomalies', 'repeated')).to.equal(2);
    expect(await fixture.count('nonceAnomalies', 'decreased')).to.equal(3);
    expect(await fixture.count('nonceAnomalies', 'skipped')).to.equal(4);
    expect(fixture.applied).to.have.length(nonces.length);
    expect(fixture.logged.filter(({ level }) => level >= 40)).to.deep.equal([]);
  });

  it('ACKs a first report with nonce 0', async () => {
    await serve();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0', { nonce: 0 }));
    const { request_nonce: nonce } = await stream.next();
    expect(nonce ?? '0').to.equal('0');
    expect(fixture.applied).to.have.length(1);
  });

  it('applies and ACKs 1,000 reports sent at once, in order', async () => {
    await serve();
    const stream = fixture.open();
    for (let nonce = 1; nonce <= 1000; nonce += 1) {
      stream.sendBytes(firstReport('r-0', { nonce, added_tunnels: [tunnel(`t-${nonce}`)] }));
    }
    const inOrder = Array.from({ length: 1000 }, (_, i) => i + 1);
    const acked: number[] = [];
    for (const _ of inOrder) acked.push(Number((await stream.next()).request_nonce));
    expect(acked).to.deep.equal(inOrder);
    expect(fixture.applied.map(({ report }) => report.added[0]?.name)).to.deep.equal(
      inOrder.map((n) => `t-${n}`),
    );
  });

  it('keeps the order of small reports and large ones, which yield', async () => {
    await serve();
    const stream = fixture.open();
    const sizes = [1, 5000, 0, 3000, 1, 4000, 0];
    for (const [i, size] of sizes.entries())
      stream.sendBytes(firstReport('r-0', { ...fullPush(size), nonce: i + 1 }));
    const acked: (string | undefined)[] = [];
    for (const _ of sizes) acked.push((await stream.next()).request_nonce);
    expect(acked).to.deep.equal(sizes.map((_, i) => String(i + 1)));
    expect(fixture.applied.map(({ report }) => report.added.length)).to.deep.equal(sizes);
  });

  it('counts accepted reports by kind', async () => {
    await serve();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0', { full_push: true }));
    stream.send({ nonce: 2, removed_tunnel_names: ['a'] });
    stream.send({ nonce: 3 });
    stream.send({ nonce: 4 });
    for (let i = 0; i < 4; i += 1) await stream.next();
    expect(await fixture.count('reports', 'full')).to.equal(1);
    expect(await fixture.count('reports', 'delta')).to.equal(1);
    expect(await fixture.count('reports', 'heartbeat')).to.equal(2);
    expect((await fixture.metrics.acks.get()).values[0]?.value).to.equal(4);
    const seconds = await fixture.metrics.ackSeconds.get();
    expect(seconds.values.find(({ metricName }) => metricName?.endsWith('_count'))?.value).to.equal(4);
  });

  it('ACKs a large report that is followed by a half-close, then ends with OK', async () => {
    await serve();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0', fullPush(20_000)));
    stream.end();
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    expect(await stream.ended).to.deep.include({ code: status.OK });
    expect(fixture.applied).to.have.length(1);
    expect(await fixture.count('streamsClosed', 'client_closed')).to.equal(1);
    expect(fixture.server.connectedReporters).to.equal(0);
  });

  it('counts a stream that ends without a report, and logs nothing', async () => {
    await serve();
    const stream = fixture.open();
    stream.end();
    expect(await stream.ended).to.deep.include({ code: status.OK });
    expect(await fixture.count('streamsClosed', 'client_closed')).to.equal(1);
    expect(fixture.applied).to.deep.equal([]);
    expect(fixture.logged).to.deep.equal([]);
  });

  it('disconnects the reporter when the peer resets the stream', async () => {
    await serve();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    stream.cancel();
    await eventually('the reporter is disconnected', () => fixture.server.connectedReporters === 0);
    expect(await fixture.count('streamsClosed', 'client_closed')).to.equal(1);
    expect((await fixture.metrics.reportersConnected.get()).values[0]?.value).to.equal(0);
    expect(fixture.logged.map(({ msg }) => msg)).to.deep.equal([
      'reporter connected',
      'reporter disconnected',
    ]);
  });

  it('stops reading from a peer that does not read ACKs, and continues when it does', async () => {
    await serve();
    const stream = fixture.open();
    // The longest possible ID, for ACKs of some 280 bytes: 5,000 of them exceed the flow-control windows.
    const count = 5000;
    const heartbeat = firstReport('r'.repeat(256));
    stream.sendBytes(heartbeat);
    await stream.next();
    stream.pause();
    for (let i = 0; i < count; i += 1) stream.sendBytes(heartbeat);
    let lastCount = -1;
    let stablePolls = 0;
    await eventually(
      'the server stops reading',
      () => {
        stablePolls = fixture.applied.length === lastCount ? stablePolls + 1 : 0;
        lastCount = fixture.applied.length;
        return stablePolls > 100;
      },
      60_000,
      5,
    );
    expect(fixture.applied.length).to.be.lessThan(count / 2);
    stream.resume();
    await eventually('all are ACKed', () => stream.responses.length === count + 1, 30_000);
    expect(fixture.applied).to.have.length(count + 1);
  });

  it('ends the stream with INTERNAL after an unexpected error, without details for the peer', async () => {
    await serve({
      accept: () => {
        throw new Error('an internal secret');
      },
    });
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0'));
    const { code, details } = await stream.ended;
    expect(code).to.equal(status.INTERNAL);
    expect(details).to.not.contain('secret');
    expect(stream.responses).to.deep.equal([]);
    expect(await fixture.count('streamsClosed', 'internal')).to.equal(1);
    expect(fixture.logged.filter(({ level }) => level >= 50)).to.have.length(1);
    expect(fixture.server.connectedReporters).to.equal(0);
  });
});
