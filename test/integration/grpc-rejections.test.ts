import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import {
  firstReport,
  startTestServer,
  type TestServer,
  type TestServerOptions,
} from '../support/reporting-server.ts';
import type { TestStream } from '../support/test-stream.ts';
import { fullPush, requestBytes, tunnel, type RequestFields, type TunnelFields } from '../support/wire.ts';

/** In the middle of two good tunnels, so that keeping the rest shows. */
function withInvalid(invalid: TunnelFields): RequestFields {
  return { added_tunnels: [tunnel('before'), invalid, tunnel('after')] };
}

describe('a report that is refused', () => {
  let world: TestServer;
  const serve = async (options?: TestServerOptions): Promise<void> => {
    world = await startTestServer(options);
  };
  const named = async (id = 'r-0'): Promise<TestStream> => {
    const stream = world.open();
    stream.sendBytes(firstReport(id));
    await stream.next();
    return stream;
  };

  afterEach(() => world.stop());

  describe('gets a NACK that names the field, and the stream ends', () => {
    const node = { id: 'r-0', cluster: 'edge' };
    for (const { what, first, message, reason, nodeId = '' } of [
      { what: 'no node', first: {}, message: /^node: .*required/, reason: 'missing' },
      { what: 'an empty node', first: { node: {} }, message: /^node\.id: .*empty/, reason: 'empty' },
      {
        what: 'an empty node.id',
        first: { node: { id: '', cluster: 'edge' } },
        message: /^node\.id: .*empty/,
        reason: 'empty',
      },
      {
        what: 'a node.id of 257 characters',
        first: { node: { id: 'x'.repeat(257) } },
        message: /^node\.id: .*exceeds 256 /,
        reason: 'too_long',
      },
      {
        what: 'a node.id with a line break',
        first: { node: { id: 'a\nb' } },
        message: /^node\.id: "a\\nb" .*U\+000A/,
        reason: 'forbidden_character',
      },
      {
        what: 'a node.cluster with a direction override',
        first: { node: { id: 'r-0', cluster: 'a\u202Eb' } },
        message: /^node\.cluster: "a\\u202eb" .*U\+202E/i,
        reason: 'forbidden_character',
      },
      {
        what: 'nonce -1',
        first: { node, nonce: '-1' },
        message: /^nonce: -1 .*negative/,
        reason: 'negative',
        nodeId: 'r-0',
      },
      {
        what: 'the least nonce',
        first: { node, nonce: '-9223372036854775808' },
        message: /^nonce: -9223372036854775808 .*negative/,
        reason: 'negative',
        nodeId: 'r-0',
      },
    ]) {
      it(`${what} on a stream's first report`, async () => {
        await serve();
        const stream = world.open();
        stream.send({ nonce: 7, ...first, ...fullPush(2) });
        // What comes behind it is not read any more.
        stream.sendBytes(firstReport('r-0', { nonce: 8 }));
        const nack = await stream.next();
        expect(nack.node_id ?? '').to.equal(nodeId);
        // request_nonce must not be negative, so a negative nonce is answered with 0.
        expect(nack.request_nonce).to.equal('nonce' in first ? '0' : '7');
        expect(nack).to.not.have.property('report_interval');
        expect(nack.error_detail?.code).to.equal(3);
        expect(nack.error_detail?.message).to.match(message);
        expect(await stream.ended).to.deep.include({ code: status.OK });
        expect(stream.responses).to.have.length(1);
        expect(world.applied).to.deep.equal([]);
        expect(world.server.connectedReporters).to.equal(0);
        expect(await world.count('nacks', reason)).to.equal(1);
        expect(await world.count('streamsClosed', 'nack')).to.equal(1);
        expect(world.logged.filter(({ level }) => level >= 40)).to.have.length(1);
      });
    }

    for (const { what, later, message, reason } of [
      {
        what: 'another node.id',
        later: { node: { id: 'r-1', cluster: 'edge' } },
        message: /^node\.id: changed from "r-0" to "r-1"/,
        reason: 'changed',
      },
      {
        what: 'another node.cluster',
        later: { node: { id: 'r-0', cluster: 'core' } },
        message: /^node\.cluster: changed from "edge" to "core"/,
        reason: 'changed',
      },
      {
        what: 'a node without its cluster',
        later: { node: { id: 'r-0' } },
        message: /^node\.cluster: changed from "edge" to ""/,
        reason: 'changed',
      },
      {
        what: 'an empty node',
        later: { node: {} },
        message: /^node\.id: changed from "r-0" to ""/,
        reason: 'changed',
      },
      { what: 'a negative nonce', later: { nonce: '-5' }, message: /^nonce: -5 /, reason: 'negative' },
    ]) {
      it(`${what} on a later report; what was folded before stays`, async () => {
        await serve();
        const stream = await named();
        stream.send({ nonce: 2, ...later, ...fullPush(1) });
        stream.sendBytes(firstReport('r-0', { nonce: 3 }));
        const nack = await stream.next();
        expect(nack.node_id).to.equal('r-0');
        expect(nack.request_nonce).to.equal('nonce' in later ? '0' : '2');
        expect(nack.error_detail).to.deep.include({ code: 3 });
        expect(nack.error_detail?.message).to.match(message);
        expect(await stream.ended).to.deep.include({ code: status.OK });
        expect(stream.responses).to.have.length(2);
        expect(world.applied).to.have.length(1);
        expect(await world.count('nacks', reason)).to.equal(1);
        expect(await world.count('streamsClosed', 'nack')).to.equal(1);
      });
    }

    it('and the reporter may come back at once', async () => {
      await serve();
      const stream = await named();
      stream.send({ nonce: '-1' });
      await stream.ended;
      const again = await named();
      expect(again.responses).to.have.length(1);
      expect(world.server.connectedReporters).to.equal(1);
    });
  });

  describe('a tunnel that breaks a rule', () => {
    const { identity } = tunnel('a');
    const cases: { what: string; invalid: TunnelFields; field: string; reason: string }[] = [
      {
        what: 'no identity',
        invalid: { name: 'bad' },
        field: 'added_tunnels[1].identity',
        reason: 'missing',
      },
      { what: 'no name', invalid: { identity }, field: 'added_tunnels[1].name', reason: 'empty' },
      {
        what: 'a tenant of 129 characters',
        invalid: { name: 'bad', identity: { ...identity, tenant_id: 'x'.repeat(129) } },
        field: 'added_tunnels[1].identity.tenant_id',
        reason: 'too_long',
      },
      {
        what: 'a NUL in its name',
        invalid: { name: 'b\0d', identity },
        field: 'added_tunnels[1].name',
        reason: 'forbidden_character',
      },
    ];

    for (const { what, invalid, field, reason } of cases) {
      it(`is rejected under skip: ${what}`, async () => {
        await serve({ onInvalid: 'skip' });
        const stream = world.open();
        stream.sendBytes(firstReport('r-0', withInvalid(invalid)));
        const ack = await stream.next();
        expect(ack).to.deep.include({ request_nonce: '1' }).and.not.have.property('error_detail');
        expect(world.applied[0]?.report.added.map(({ name }) => name)).to.deep.equal(['before', 'after']);
        expect(await world.count('tunnelRejections', reason)).to.equal(1);
        const warning = world.logged.find(({ level }) => level === 40);
        expect(warning?.['first']).to.have.length(1);
        expect(String(warning?.['first'])).to.match(new RegExp(`^${field.replaceAll(/[[\].]/g, '\\$&')}: `));
        stream.send({ nonce: 2 });
        expect(await stream.next()).to.deep.include({ request_nonce: '2' });
      });

      it(`has the whole report refused under nack: ${what}`, async () => {
        await serve({ onInvalid: 'nack' });
        const stream = await named();
        stream.send({ nonce: 2, ...withInvalid(invalid) });
        const nack = await stream.next();
        expect(nack.request_nonce).to.equal('2');
        expect(nack.error_detail?.code).to.equal(3);
        expect(nack.error_detail?.message).to.match(new RegExp(`^${field.replaceAll(/[[\].]/g, '\\$&')}: `));
        expect(await stream.ended).to.deep.include({ code: status.OK });
        expect(world.applied).to.have.length(1);
        expect(await world.count('nacks', reason)).to.equal(1);
        expect(await world.count('tunnelRejections', reason)).to.equal(0);
      });
    }

    it('a million times makes one log line, and the counter says how many', async () => {
      await serve();
      const stream = world.open();
      const nameless = Buffer.from([0x12, 0x00]);
      stream.sendBytes(Buffer.concat([firstReport('r-0'), Buffer.alloc(2_000_000, nameless)]));
      expect(await stream.next()).to.deep.include({ request_nonce: '1' });
      expect(await world.count('tunnelRejections', 'empty')).to.equal(1_000_000);
      const warnings = world.logged.filter(({ level }) => level >= 40);
      expect(warnings).to.have.length(1);
      expect(warnings[0]).to.deep.include({ count: 1_000_000 });
      expect(JSON.stringify(warnings[0]).length).to.be.lessThan(2000);
    });
  });

  describe('by the limit of tunnels', () => {
    it('gets a NACK, ends with RESOURCE_EXHAUSTED, and what was folded before stays', async () => {
      await serve({
        apply: (_, { added }) =>
          added.length > 3 ? { limit: 'tunnelsPerReporter', count: added.length, max: 3 } : undefined,
      });
      const stream = world.open();
      stream.sendBytes(firstReport('r-0', fullPush(3)));
      await stream.next();
      stream.send({ nonce: 2, ...fullPush(4) });
      const nack = await stream.next();
      expect(nack).to.deep.include({ node_id: 'r-0', request_nonce: '2' });
      expect(nack.error_detail?.code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(nack.error_detail?.message).to.match(/"r-0": would hold 4 tunnels, limit is 3$/);
      const { code, details } = await stream.ended;
      expect(code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(details).to.equal(nack.error_detail?.message);
      expect(world.applied).to.have.length(1);
      expect(await world.count('nacks', 'over_limit')).to.equal(1);
      expect(await world.count('streamsClosed', 'over_limit')).to.equal(1);
      expect(world.logged.filter(({ level }) => level === 40)).to.have.length(1);
    });

    it('as its peer would be too many reporters, in words', async () => {
      await serve({ apply: () => ({ limit: 'reportersPerPeer', count: 4, max: 3 }) });
      const stream = world.open();
      stream.sendBytes(firstReport('r-0'));
      expect(await stream.ended).to.deep.include({
        code: status.RESOURCE_EXHAUSTED,
        details: 'reporter "r-0": peer would report as 4 reporters, limit is 3',
      });
    });

    it('as all reporters together would hold too many tunnels, in words', async () => {
      await serve({ apply: () => ({ limit: 'tunnels', count: 4, max: 3 }) });
      const stream = world.open();
      stream.sendBytes(firstReport('r-0'));
      const { details } = await stream.ended;
      expect(details).to.equal('all reporters: would hold 4 tunnels, limit is 3');
    });

    it('on the first report of a stream: the interval is not told with the NACK', async () => {
      await serve({ apply: () => ({ limit: 'tunnelsPerReporter', count: 2, max: 1 }) });
      const stream = world.open();
      stream.sendBytes(firstReport('r-0', fullPush(2)));
      expect(await stream.next()).to.not.have.property('report_interval');
      expect(await stream.ended).to.deep.include({ code: status.RESOURCE_EXHAUSTED });
      expect(world.server.connectedReporters).to.equal(0);
    });
  });

  describe('by the limit of the message size', () => {
    const LIMIT = 100_000;

    it('ends its stream with RESOURCE_EXHAUSTED; the neighbour on the same connection is unharmed', async () => {
      await serve({ maxMessageSizeBytes: LIMIT });
      const open = world.connection();
      const big = open();
      const neighbour = open();
      big.sendBytes(firstReport('big'));
      neighbour.sendBytes(firstReport('neighbour'));
      await big.next();
      await neighbour.next();
      big.send({ nonce: 2, ...fullPush(2000) });
      const { code, details } = await big.ended;
      expect(code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(details).to.contain(String(LIMIT));
      expect(big.responses).to.have.length(1);
      neighbour.send({ nonce: 2 });
      expect(await neighbour.next()).to.deep.include({ request_nonce: '2' });
      expect(world.applied.map(({ reporter }) => reporter.id)).to.deep.equal([
        'big',
        'neighbour',
        'neighbour',
      ]);
      expect(world.server.connectedReporters).to.equal(1);
    });

    it('is counted as over_limit and logged once, with the reporter', async () => {
      await serve({ maxMessageSizeBytes: LIMIT });
      const stream = await named();
      stream.send({ nonce: 2, ...fullPush(2000) });
      await stream.ended;
      expect(await world.count('streamsClosed', 'over_limit')).to.equal(1);
      const warnings = world.logged.filter(({ level }) => level >= 40);
      expect(warnings).to.have.length(1);
      expect(warnings[0]?.['reporter']).to.deep.equal({ cluster: 'edge', id: 'r-0' });
    });

    it('a report of exactly that size is taken', async () => {
      await serve({ maxMessageSizeBytes: LIMIT });
      const stream = world.open();
      const report = firstReport('r-0');
      // Field 9, unknown, with a length of 3 bytes: filled up to the limit.
      const fill = LIMIT - report.length - 4;
      const padding = Buffer.concat([
        Buffer.from([0x4a, (fill & 0x7f) | 0x80, ((fill >> 7) & 0x7f) | 0x80, fill >> 14]),
        Buffer.alloc(fill),
      ]);
      const bytes = Buffer.concat([report, padding]);
      expect(bytes).to.have.length(LIMIT);
      stream.sendBytes(bytes);
      expect(await stream.next()).to.deep.include({ request_nonce: '1' });
      stream.sendBytes(Buffer.concat([bytes, Buffer.from([0x30, 0])]));
      expect(await stream.ended).to.deep.include({ code: status.RESOURCE_EXHAUSTED });
    });
  });

  it('for listing more than twice the tunnels a reporter may hold ends with RESOURCE_EXHAUSTED, nothing taken', async () => {
    await serve({ maxTunnelsPerReporter: 10 });
    const stream = await named();
    stream.send({ nonce: 2, removed_tunnel_names: Array.from({ length: 21 }, () => 'x') });
    expect(await stream.ended).to.deep.include({ code: status.RESOURCE_EXHAUSTED });
    expect(world.applied).to.have.length(1);
    expect(await world.count('streamsClosed', 'over_limit')).to.equal(1);
  });

  describe('as bytes that are no report', () => {
    for (const { what, bytes } of [
      { what: 'text', bytes: Buffer.from('GET / HTTP/1.1\r\n\r\n') },
      { what: 'a report cut short', bytes: firstReport('r-0', fullPush(5000)).subarray(0, -1) },
      {
        what: 'a report with a byte behind it',
        bytes: Buffer.concat([firstReport('r-0'), Buffer.from([0x12])]),
      },
      { what: 'a node that is none', bytes: Buffer.from([0x0a, 0x02, 0x22, 0x7f]) },
      { what: 'a node with field number 0', bytes: Buffer.from([0x0a, 0x02, 0x07, 0x00]) },
    ]) {
      it(`ends with INVALID_ARGUMENT, that stream only: ${what}`, async () => {
        await serve();
        const open = world.connection();
        const bad = open();
        const good = open();
        bad.sendBytes(bytes);
        bad.sendBytes(firstReport('r-0'));
        const { code, details } = await bad.ended;
        expect(code).to.equal(status.INVALID_ARGUMENT);
        expect(details).to.match(/^[^\n]{10,300}$/);
        expect(bad.responses).to.deep.equal([]);
        good.sendBytes(firstReport('good'));
        expect(await good.next()).to.deep.include({ node_id: 'good' });
        expect(world.applied.map(({ reporter }) => reporter.id)).to.deep.equal(['good']);
        expect(await world.count('streamsClosed', 'malformed')).to.equal(1);
        expect(world.logged.filter(({ level }) => level >= 40)).to.have.length(1);
        expect(world.logged.filter(({ level }) => level >= 50)).to.deep.equal([]);
      });
    }

    it('after good ones: what was folded stays, the reporter is disconnected', async () => {
      await serve();
      const stream = await named();
      stream.sendBytes(Buffer.from([0xff]));
      expect(await stream.ended).to.deep.include({ code: status.INVALID_ARGUMENT });
      expect(world.applied).to.have.length(1);
      expect(world.server.connectedReporters).to.equal(0);
    });

    it('that is empty is a heartbeat, and has no node on a first report', async () => {
      await serve();
      const stream = await named();
      stream.sendBytes(Buffer.alloc(0));
      expect(await stream.next())
        .to.deep.include({ node_id: 'r-0' })
        .and.not.have.property('error_detail');
      const other = world.open();
      other.sendBytes(Buffer.alloc(0));
      expect((await other.next()).error_detail?.message).to.match(/^node: /);
    });
  });

  it('a wrong field far beyond the others is found however large the report', async () => {
    await serve({ onInvalid: 'nack' });
    const stream = world.open();
    const { added_tunnels: good = [] } = fullPush(30_000);
    stream.sendBytes(
      requestBytes({ node: { id: 'r-0' }, nonce: 1, added_tunnels: [...good, { name: 'bad' }] }),
    );
    expect((await stream.next()).error_detail?.message).to.match(/^added_tunnels\[30000\]\.identity: /);
    expect(world.applied).to.deep.equal([]);
  });
});
