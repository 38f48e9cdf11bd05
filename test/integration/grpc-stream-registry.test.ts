import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import type { TestStream } from '../support/test-stream.ts';
import { fullPush, tunnel } from '../support/wire.ts';

/** Decoding it yields about forty times. */
const LARGE = fullPush(40_000);
/** Less than the size of LARGE, and more than that of any other report here. */
const LARGE_BYTES = 1_000_000;

/** Sends the stream's first report and waits for its ACK. */
async function identify(stream: TestStream, id = 'r-0'): Promise<TestStream> {
  stream.sendBytes(firstReport(id));
  await stream.next();
  return stream;
}

describe('StreamRegistry', () => {
  let fixture: TestServer;

  afterEach(() => fixture.stop());

  const reported = (): unknown[] =>
    fixture.applied.map(({ reporter, report }) => `${reporter.id} ${report.added.length}`);

  describe('with several streams of one reporter', () => {
    beforeEach(async () => {
      fixture = await startTestServer();
    });

    for (const { where, isShared } of [
      { where: 'separate connections', isShared: false },
      { where: 'one connection', isShared: true },
    ]) {
      it(`serves the newer stream and ends the older one with ABORTED, on ${where}`, async () => {
        const open = isShared ? fixture.connection() : () => fixture.open();
        const older = await identify(open());
        const newer = open();
        newer.sendBytes(firstReport('r-0', fullPush(2)));
        expect(await newer.next()).to.deep.include({ request_nonce: '1' });
        const { code, details } = await older.ended;
        expect(code).to.equal(status.ABORTED);
        expect(details).to.match(/newer stream/);
        newer.send({ nonce: 2 });
        expect(await newer.next()).to.deep.include({ request_nonce: '2' });
        expect(reported()).to.deep.equal(['r-0 0', 'r-0 2', 'r-0 0']);
        expect(fixture.server.connectedReporters).to.equal(1);
        expect(await fixture.count('streamsClosed', 'superseded')).to.equal(1);
      });
    }

    it('keeps the newer stream registered when the older one ends late', async () => {
      const older = await identify(fixture.open());
      const newer = await identify(fixture.open());
      await older.ended;
      older.cancel();
      // A whole other stream is a full round trip through the server after the late end.
      const other = await identify(fixture.open(), 'other');
      other.end();
      await other.ended;
      expect(fixture.server.connectedReporters).to.equal(1);
      expect((await fixture.metrics.reportersConnected.get()).values[0]?.value).to.equal(1);
      expect(await fixture.count('streamsClosed', 'superseded')).to.equal(1);
      newer.cancel();
      await eventually('the newer one is closed', () => fixture.server.connectedReporters === 0);
      expect(fixture.logged.map(({ msg }) => msg)).to.deep.equal([
        'reporter connected',
        'newer stream of this reporter supersedes the older one',
        'reporter connected',
        'reporter disconnected',
        'reporter disconnected',
      ]);
    });

    it('serves the last of ten streams and ends the others', async () => {
      const open = fixture.connection();
      const streams: TestStream[] = [];
      for (let i = 0; i < 10; i += 1) streams.push(await identify(open()));
      const last = streams.pop();
      for (const { ended } of streams) expect(await ended).to.deep.include({ code: status.ABORTED });
      last?.send({ nonce: 2 });
      expect(await last?.next()).to.deep.include({ request_nonce: '2' });
      expect(fixture.server.connectedReporters).to.equal(1);
      expect(await fixture.count('streamsClosed', 'superseded')).to.equal(9);
    });

    it('identifies a reporter by cluster and ID together', async () => {
      const reporters = [
        { cluster: 'edge', id: 'r-0' },
        { cluster: 'core', id: 'r-0' },
        { cluster: '', id: 'edger-0' },
        { cluster: 'edger', id: '-0' },
        { cluster: '', id: '4:edger-0' },
      ];
      const open = fixture.connection();
      const streams: TestStream[] = [];
      for (const node of reporters) {
        const stream = open();
        stream.send({ node, nonce: 1 });
        await stream.next();
        streams.push(stream);
      }
      for (const stream of streams) stream.send({ nonce: 2 });
      for (const stream of streams) expect(await stream.next()).to.deep.include({ request_nonce: '2' });
      expect(fixture.server.connectedReporters).to.equal(reporters.length);
    });

    it('reports each stream as connected, and the end of the last one as disconnected', async () => {
      const older = await identify(fixture.open());
      const newer = await identify(fixture.open());
      await older.ended;
      expect(fixture.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 connected']);
      newer.end();
      await newer.ended;
      expect(fixture.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 connected', 'r-0 disconnected']);
    });
  });

  for (const { violation, onInvalid, fields } of [
    { violation: 'an empty node.id', onInvalid: 'skip', fields: { node: { cluster: 'edge' } } },
    { violation: 'a negative nonce', onInvalid: 'skip', fields: { nonce: -1 } },
    { violation: 'an invalid tunnel', onInvalid: 'nack', fields: { added_tunnels: [{ name: 'bad' }] } },
  ] as const) {
    it(`keeps the older stream if the newer one is rejected for ${violation}`, async () => {
      fixture = await startTestServer({ onInvalid });
      const older = await identify(fixture.open());
      const rejected = fixture.open();
      rejected.sendBytes(firstReport('r-0', fields));
      expect(await rejected.next()).to.have.property('error_detail');
      await rejected.ended;
      older.send({ nonce: 2 });
      expect(await older.next()).to.deep.include({ request_nonce: '2' });
      expect(fixture.server.connectedReporters).to.equal(1);
      expect(fixture.connectionEvents).to.deep.equal(['r-0 connected']);
      expect(await fixture.count('streamsClosed', 'superseded')).to.equal(0);
    });
  }

  describe('while a full push of 40,000 tunnels is decoded', () => {
    it('ACKs a small report on another stream first', async () => {
      fixture = await startTestServer();
      const small = await identify(fixture.open(), 'small');
      const large = fixture.open();
      onDecodeStart(LARGE_BYTES, () => small.send({ nonce: 2, added_tunnels: [tunnel('a')] }));
      large.sendBytes(firstReport('large', LARGE));
      expect(await small.next()).to.deep.include({ request_nonce: '2' });
      expect(reported()).to.deep.equal(['small 0', 'small 1']);
      expect(await large.next()).to.deep.include({ request_nonce: '1' });
      expect(reported()).to.deep.equal(['small 0', 'small 1', 'large 40000']);
    });

    it('does not apply the full push if the peer cancels its stream', async () => {
      fixture = await startTestServer();
      const large = fixture.open();
      onDecodeStart(LARGE_BYTES, () => large.cancel());
      large.sendBytes(firstReport('large', LARGE));
      expect(await large.ended).to.deep.include({ code: status.CANCELLED });
      // When a report of the same size has been decoded, the first one would have been decoded too.
      const next = fixture.open();
      next.sendBytes(firstReport('next', LARGE));
      await next.next();
      expect(reported()).to.deep.equal(['next 40000']);
      expect(fixture.server.connectedReporters).to.equal(1);
      expect(await fixture.count('streamsClosed', 'client_closed')).to.equal(1);
    });

    it('does not apply the full push if its reporter opens a newer stream', async () => {
      fixture = await startTestServer();
      const older = await identify(fixture.open());
      const newer = fixture.open();
      onDecodeStart(LARGE_BYTES, () => newer.sendBytes(firstReport('r-0', fullPush(1))));
      older.send({ nonce: 2, ...LARGE });
      expect(await newer.next()).to.deep.include({ request_nonce: '1' });
      expect(await older.ended).to.deep.include({ code: status.ABORTED });
      const other = fixture.open();
      other.sendBytes(firstReport('other', LARGE));
      await other.next();
      expect(reported()).to.deep.equal(['r-0 0', 'r-0 1', 'other 40000']);
      expect(older.responses).to.have.length(1);
    });

    it('keeps the newer stream if the full push is the first report of an older stream', async () => {
      fixture = await startTestServer();
      const older = fixture.open();
      const opened = new Promise<TestStream>((resolve) => {
        onDecodeStart(LARGE_BYTES, () => resolve(fixture.open()));
      });
      older.sendBytes(firstReport('r-0', LARGE));
      const newer = await identify(await opened);
      expect(await older.ended).to.deep.include({ code: status.ABORTED });
      newer.send({ nonce: 2 });
      expect(await newer.next()).to.deep.include({ request_nonce: '2' });
      expect(reported()).to.deep.equal(['r-0 0', 'r-0 0']);
      expect(fixture.connectionEvents).to.deep.equal(['r-0 connected']);
      expect(older.responses).to.deep.equal([]);
    });
  });

  it('processes the next report of a stream after a full push of 100,000 tunnels', async () => {
    fixture = await startTestServer();
    const stream = fixture.open();
    stream.sendBytes(firstReport('r-0', fullPush(100_000)));
    stream.send({ nonce: 2 });
    expect(await stream.next()).to.deep.include({ request_nonce: '1' });
    expect(await stream.next()).to.deep.include({ request_nonce: '2' });
    expect(reported()).to.deep.equal(['r-0 100000', 'r-0 0']);
  });
});
