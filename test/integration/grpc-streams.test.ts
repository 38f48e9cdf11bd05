import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import type { TestStream } from '../support/test-stream.ts';
import { fullPush, tunnel } from '../support/wire.ts';

/** Decoding it rests some hundred times. */
const LARGE = fullPush(100_000);
/** Less than LARGE has, and more than any other report here. */
const LARGE_BYTES = 1_000_000;

/** Has the stream's first report ACKed. */
async function named(stream: TestStream, id = 'r-0'): Promise<TestStream> {
  stream.sendBytes(firstReport(id));
  await stream.next();
  return stream;
}

describe('several streams', () => {
  let world: TestServer;

  afterEach(() => world.stop());

  const reported = (): unknown[] =>
    world.applied.map(({ reporter, report }) => `${reporter.id} ${report.added.length}`);

  describe('of one reporter', () => {
    beforeEach(async () => {
      world = await startTestServer();
    });

    for (const { where, together } of [
      { where: 'connections of their own', together: false },
      { where: 'one connection', together: true },
    ]) {
      it(`on ${where}: the newer one is served, the older one ends with ABORTED`, async () => {
        const open = together ? world.connection() : () => world.open();
        const older = await named(open());
        const newer = open();
        newer.sendBytes(firstReport('r-0', fullPush(2)));
        expect(await newer.next()).to.deep.include({ request_nonce: '1' });
        const { code, details } = await older.ended;
        expect(code).to.equal(status.ABORTED);
        expect(details).to.match(/newer stream/);
        newer.send({ nonce: 2 });
        expect(await newer.next()).to.deep.include({ request_nonce: '2' });
        expect(reported()).to.deep.equal(['r-0 0', 'r-0 2', 'r-0 0']);
        expect(world.server.connectedReporters).to.equal(1);
        expect(await world.count('streamsClosed', 'superseded')).to.equal(1);
      });
    }

    it('the late end of the older one does not unregister the newer', async () => {
      const older = await named(world.open());
      const newer = await named(world.open());
      await older.ended;
      older.cancel();
      // Another stream, from its opening to its end, is a full round through the server after the late end.
      const other = await named(world.open(), 'other');
      other.end();
      await other.ended;
      expect(world.server.connectedReporters).to.equal(1);
      expect((await world.metrics.reportersConnected.get()).values[0]?.value).to.equal(1);
      expect(await world.count('streamsClosed', 'superseded')).to.equal(1);
      newer.cancel();
      await eventually('the newer one is gone', () => world.server.connectedReporters === 0);
      expect(world.logged.map(({ msg }) => msg)).to.deep.equal([
        'reporter connected',
        'newer stream of this reporter supersedes the older one',
        'reporter connected',
        'reporter disconnected',
        'reporter disconnected',
      ]);
    });

    it('ten, one after the other: the last is served, nine were ended', async () => {
      const open = world.connection();
      const streams: TestStream[] = [];
      for (let i = 0; i < 10; i += 1) streams.push(await named(open()));
      const last = streams.pop();
      for (const { ended } of streams) expect(await ended).to.deep.include({ code: status.ABORTED });
      last?.send({ nonce: 2 });
      expect(await last?.next()).to.deep.include({ request_nonce: '2' });
      expect(world.server.connectedReporters).to.equal(1);
      expect(await world.count('streamsClosed', 'superseded')).to.equal(9);
    });

    it('that are named alike but not equal are not one: cluster and id belong together', async () => {
      const reporters = [
        { cluster: 'edge', id: 'r-0' },
        { cluster: 'core', id: 'r-0' },
        { cluster: '', id: 'edger-0' },
        { cluster: 'edger', id: '-0' },
        { cluster: '', id: '4:edger-0' },
      ];
      const open = world.connection();
      const streams: TestStream[] = [];
      for (const node of reporters) {
        const stream = open();
        stream.send({ node, nonce: 1 });
        await stream.next();
        streams.push(stream);
      }
      for (const stream of streams) stream.send({ nonce: 2 });
      for (const stream of streams) expect(await stream.next()).to.deep.include({ request_nonce: '2' });
      expect(world.server.connectedReporters).to.equal(reporters.length);
    });

    it('is connected with the first report that is taken of each stream, and to the end of the last', async () => {
      const older = await named(world.open());
      const newer = await named(world.open());
      await older.ended;
      expect(world.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 connected']);
      newer.end();
      await newer.ended;
      expect(world.connectionEvents).to.deep.equal(['r-0 connected', 'r-0 connected', 'r-0 disconnected']);
    });
  });

  for (const { what, onInvalid, fields } of [
    { what: 'an empty node.id', onInvalid: 'skip', fields: { node: { cluster: 'edge' } } },
    { what: 'a negative nonce', onInvalid: 'skip', fields: { nonce: -1 } },
    { what: 'an invalid tunnel', onInvalid: 'nack', fields: { added_tunnels: [{ name: 'bad' }] } },
  ] as const) {
    it(`of one reporter, the newer one refused for ${what}: the older one is left alone`, async () => {
      world = await startTestServer({ onInvalid });
      const older = await named(world.open());
      const refused = world.open();
      refused.sendBytes(firstReport('r-0', fields));
      expect(await refused.next()).to.have.property('error_detail');
      await refused.ended;
      older.send({ nonce: 2 });
      expect(await older.next()).to.deep.include({ request_nonce: '2' });
      expect(world.server.connectedReporters).to.equal(1);
      expect(world.connectionEvents).to.deep.equal(['r-0 connected']);
      expect(await world.count('streamsClosed', 'superseded')).to.equal(0);
    });
  }

  describe('while a full push of 100,000 tunnels is decoded', () => {
    it('a small report on another stream is ACKed first', async () => {
      world = await startTestServer();
      const small = await named(world.open(), 'small');
      const large = world.open();
      onDecodeStart(LARGE_BYTES, () => small.send({ nonce: 2, added_tunnels: [tunnel('a')] }));
      large.sendBytes(firstReport('large', LARGE));
      expect(await small.next()).to.deep.include({ request_nonce: '2' });
      expect(reported()).to.deep.equal(['small 0', 'small 1']);
      expect(await large.next()).to.deep.include({ request_nonce: '1' });
      expect(reported()).to.deep.equal(['small 0', 'small 1', 'large 100000']);
    });

    it('the peer cancels: nothing of it is folded', async () => {
      world = await startTestServer();
      const large = world.open();
      onDecodeStart(LARGE_BYTES, () => large.cancel());
      large.sendBytes(firstReport('large', LARGE));
      expect(await large.ended).to.deep.include({ code: status.CANCELLED });
      // By the time that as large a report was decoded, the first one would have been.
      const next = world.open();
      next.sendBytes(firstReport('next', LARGE));
      await next.next();
      expect(reported()).to.deep.equal(['next 100000']);
      expect(world.server.connectedReporters).to.equal(1);
      expect(await world.count('streamsClosed', 'client_closed')).to.equal(1);
    });

    it('its reporter opens a newer stream: the older report is never folded over the newer', async () => {
      world = await startTestServer();
      const older = await named(world.open());
      const newer = world.open();
      onDecodeStart(LARGE_BYTES, () => newer.sendBytes(firstReport('r-0', fullPush(1))));
      older.send({ nonce: 2, ...LARGE });
      expect(await newer.next()).to.deep.include({ request_nonce: '1' });
      expect(await older.ended).to.deep.include({ code: status.ABORTED });
      const other = world.open();
      other.sendBytes(firstReport('other', LARGE));
      await other.next();
      expect(reported()).to.deep.equal(['r-0 0', 'r-0 1', 'other 100000']);
      expect(older.responses).to.have.length(1);
    });

    it('as the first report of a stream that was opened before: it comes too late, the newer stream stays', async () => {
      world = await startTestServer();
      const older = world.open();
      const opened = new Promise<TestStream>((resolve) => {
        onDecodeStart(LARGE_BYTES, () => resolve(world.open()));
      });
      older.sendBytes(firstReport('r-0', LARGE));
      const newer = await named(await opened);
      expect(await older.ended).to.deep.include({ code: status.ABORTED });
      newer.send({ nonce: 2 });
      expect(await newer.next()).to.deep.include({ request_nonce: '2' });
      expect(reported()).to.deep.equal(['r-0 0', 'r-0 0']);
      expect(world.connectionEvents).to.deep.equal(['r-0 connected']);
      expect(older.responses).to.deep.equal([]);
    });

    it('a second report behind it waits for it', async () => {
      world = await startTestServer();
      const stream = world.open();
      stream.sendBytes(firstReport('r-0', LARGE));
      stream.send({ nonce: 2 });
      expect(await stream.next()).to.deep.include({ request_nonce: '1' });
      expect(await stream.next()).to.deep.include({ request_nonce: '2' });
      expect(reported()).to.deep.equal(['r-0 100000', 'r-0 0']);
    });
  });
});
