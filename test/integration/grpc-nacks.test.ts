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

/** Puts the tunnel between two valid ones, to show that the others are kept. */
function withInvalid(invalid: TunnelFields): RequestFields {
  return { added_tunnels: [tunnel('before'), invalid, tunnel('after')] };
}

describe('rejected reports', () => {
  let fixture: TestServer;
  const serve = async (options?: TestServerOptions): Promise<void> => {
    fixture = await startTestServer(options);
  };
  const openIdentified = async (id = 'r-0'): Promise<TestStream> => {
    const stream = fixture.open();
    stream.sendBytes(firstReport(id));
    await stream.next();
    return stream;
  };

  afterEach(() => fixture.stop());

  describe('with a violation of the contract', () => {
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
        what: 'the minimum nonce',
        first: { node, nonce: '-9223372036854775808' },
        message: /^nonce: -9223372036854775808 .*negative/,
        reason: 'negative',
        nodeId: 'r-0',
      },
    ]) {
      it(`answers ${what} in the first report with a NACK that names the field, and ends the stream`, async () => {
        await serve();
        const stream = fixture.open();
        stream.send({ nonce: 7, ...first, ...fullPush(2) });
        // A report after the rejected one is not read.
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
        expect(fixture.applied).to.deep.equal([]);
        expect(fixture.server.connectedReporters).to.equal(0);
        expect(await fixture.count('nacks', reason)).to.equal(1);
        expect(await fixture.count('streamsClosed', 'nack')).to.equal(1);
        expect(fixture.logged.filter(({ level }) => level >= 40)).to.have.length(1);
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
      it(`answers ${what} in a later report with a NACK, and keeps earlier reports`, async () => {
        await serve();
        const stream = await openIdentified();
        stream.send({ nonce: 2, ...later, ...fullPush(1) });
        stream.sendBytes(firstReport('r-0', { nonce: 3 }));
        const nack = await stream.next();
        expect(nack.node_id).to.equal('r-0');
        expect(nack.request_nonce).to.equal('nonce' in later ? '0' : '2');
        expect(nack.error_detail).to.deep.include({ code: 3 });
        expect(nack.error_detail?.message).to.match(message);
        expect(await stream.ended).to.deep.include({ code: status.OK });
        expect(stream.responses).to.have.length(2);
        expect(fixture.applied).to.have.length(1);
        expect(await fixture.count('nacks', reason)).to.equal(1);
        expect(await fixture.count('streamsClosed', 'nack')).to.equal(1);
      });
    }

    it('lets the reporter reconnect immediately after a NACK', async () => {
      await serve();
      const stream = await openIdentified();
      stream.send({ nonce: '-1' });
      await stream.ended;
      const reconnected = await openIdentified();
      expect(reconnected.responses).to.have.length(1);
      expect(fixture.server.connectedReporters).to.equal(1);
    });
  });

  describe('with an invalid tunnel', () => {
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
      it(`accepts the other tunnels if onInvalid is skip: ${what}`, async () => {
        await serve({ onInvalid: 'skip' });
        const stream = fixture.open();
        stream.sendBytes(firstReport('r-0', withInvalid(invalid)));
        const ack = await stream.next();
        expect(ack).to.deep.include({ request_nonce: '1' }).and.not.have.property('error_detail');
        expect(fixture.applied[0]?.report.added.map(({ name }) => name)).to.deep.equal(['before', 'after']);
        expect(await fixture.count('tunnelRejections', reason)).to.equal(1);
        const warning = fixture.logged.find(({ level }) => level === 40);
        expect(warning?.['first']).to.have.length(1);
        expect(String(warning?.['first'])).to.match(new RegExp(`^${field.replaceAll(/[[\].]/g, '\\$&')}: `));
        stream.send({ nonce: 2 });
        expect(await stream.next()).to.deep.include({ request_nonce: '2' });
      });

      it(`rejects the report if onInvalid is nack: ${what}`, async () => {
        await serve({ onInvalid: 'nack' });
        const stream = await openIdentified();
        stream.send({ nonce: 2, ...withInvalid(invalid) });
        const nack = await stream.next();
        expect(nack.request_nonce).to.equal('2');
        expect(nack.error_detail?.code).to.equal(3);
        expect(nack.error_detail?.message).to.match(new RegExp(`^${field.replaceAll(/[[\].]/g, '\\$&')}: `));
        expect(await stream.ended).to.deep.include({ code: status.OK });
        expect(fixture.applied).to.have.length(1);
        expect(await fixture.count('nacks', reason)).to.equal(1);
        expect(await fixture.count('tunnelRejections', reason)).to.equal(0);
      });
    }

    it('logs one line for a million invalid tunnels, and counts all of them', async () => {
      await serve();
      const stream = fixture.open();
      const nameless = Buffer.from([0x12, 0x00]);
      stream.sendBytes(Buffer.concat([firstReport('r-0'), Buffer.alloc(2_000_000, nameless)]));
      expect(await stream.next()).to.deep.include({ request_nonce: '1' });
      expect(await fixture.count('tunnelRejections', 'empty')).to.equal(1_000_000);
      const warnings = fixture.logged.filter(({ level }) => level >= 40);
      expect(warnings).to.have.length(1);
      expect(warnings[0]).to.deep.include({ count: 1_000_000 });
      expect(JSON.stringify(warnings[0]).length).to.be.lessThan(2000);
    });
  });

  describe('over a tunnel limit', () => {
    it('answers with a NACK and RESOURCE_EXHAUSTED, and keeps earlier reports', async () => {
      await serve({
        accept: (_, { added }) =>
          added.length > 3 ? { limit: 'tunnelsPerReporter', count: added.length, max: 3 } : undefined,
      });
      const stream = fixture.open();
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
      expect(fixture.applied).to.have.length(1);
      expect(await fixture.count('nacks', 'over_limit')).to.equal(1);
      expect(await fixture.count('streamsClosed', 'over_limit')).to.equal(1);
      expect(fixture.logged.filter(({ level }) => level === 40)).to.have.length(1);
    });

    it('names the limit of reporters per peer in the message', async () => {
      await serve({ accept: () => ({ limit: 'reportersPerPeer', count: 4, max: 3 }) });
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      expect(await stream.ended).to.deep.include({
        code: status.RESOURCE_EXHAUSTED,
        details: 'reporter "r-0": peer would report as 4 reporters, limit is 3',
      });
    });

    it('names the limit for all reporters together in the message', async () => {
      await serve({ accept: () => ({ limit: 'tunnels', count: 4, max: 3 }) });
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0'));
      const { details } = await stream.ended;
      expect(details).to.equal('all reporters: would hold 4 tunnels, limit is 3');
    });

    it('does not send a report interval with the NACK of a first report', async () => {
      await serve({ accept: () => ({ limit: 'tunnelsPerReporter', count: 2, max: 1 }) });
      const stream = fixture.open();
      stream.sendBytes(firstReport('r-0', fullPush(2)));
      expect(await stream.next()).to.not.have.property('report_interval');
      expect(await stream.ended).to.deep.include({ code: status.RESOURCE_EXHAUSTED });
      expect(fixture.server.connectedReporters).to.equal(0);
    });
  });

  describe('over the message size limit', () => {
    const LIMIT = 100_000;
    const TOO_LARGE =
      /^report of 1\d{5} bytes exceeds the limit of 100000 bytes; increase --max-message-size \(config.maxMessageSize in the chart\), or distribute the tunnels over more reporters$/;

    it('ends its stream with RESOURCE_EXHAUSTED, and keeps other streams of the connection', async () => {
      await serve({ maxMessageSizeBytes: LIMIT });
      const open = fixture.connection();
      const large = open();
      const neighbor = open();
      large.sendBytes(firstReport('large'));
      neighbor.sendBytes(firstReport('neighbor'));
      await large.next();
      await neighbor.next();
      large.send({ nonce: 2, ...fullPush(2000) });
      const { code, details } = await large.ended;
      expect(code).to.equal(status.RESOURCE_EXHAUSTED);
      expect(details).to.match(TOO_LARGE);
      expect(large.responses).to.have.length(1);
      neighbor.send({ nonce: 2 });
      expect(await neighbor.next()).to.deep.include({ request_nonce: '2' });
      expect(fixture.applied.map(({ reporter }) => reporter.id)).to.deep.equal([
        'large',
        'neighbor',
        'neighbor',
      ]);
      expect(fixture.server.connectedReporters).to.equal(1);
    });

    it('counts the stream as over_limit, and logs the reporter and how to fix it once', async () => {
      await serve({ maxMessageSizeBytes: LIMIT });
      const stream = await openIdentified();
      stream.send({ nonce: 2, ...fullPush(2000) });
      await stream.ended;
      expect(await fixture.count('streamsClosed', 'over_limit')).to.equal(1);
      const warnings = fixture.logged.filter(({ level }) => level >= 40);
      expect(warnings).to.have.length(1);
      expect(warnings[0]?.['reporter']).to.deep.equal({ cluster: 'edge', id: 'r-0' });
      expect(warnings[0]?.['error']).to.match(TOO_LARGE);
    });

    it('accepts a report of exactly the maximum size', async () => {
      await serve({ maxMessageSizeBytes: LIMIT });
      const stream = fixture.open();
      const report = firstReport('r-0');
      // Unknown field 9, with a length of 3 bytes, pads the report to the limit.
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

  it('ends a stream with RESOURCE_EXHAUSTED if a report lists more than twice the maximum number of tunnels', async () => {
    await serve({ maxTunnelsPerReporter: 10 });
    const stream = await openIdentified();
    stream.send({ nonce: 2, removed_tunnel_names: Array.from({ length: 21 }, () => 'x') });
    const { code, details } = await stream.ended;
    expect(code).to.equal(status.RESOURCE_EXHAUSTED);
    expect(details).to.equal(
      'report lists more than 20 tunnels and names; increase --max-tunnels-per-reporter, of which this is twice the value',
    );
    expect(fixture.applied).to.have.length(1);
    expect(await fixture.count('streamsClosed', 'over_limit')).to.equal(1);
  });

  describe('that cannot be decoded', () => {
    for (const { what, bytes } of [
      { what: 'text', bytes: Buffer.from('GET / HTTP/1.1\r\n\r\n') },
      { what: 'a truncated report', bytes: firstReport('r-0', fullPush(5000)).subarray(0, -1) },
      {
        what: 'a report followed by one more byte',
        bytes: Buffer.concat([firstReport('r-0'), Buffer.from([0x12])]),
      },
      { what: 'a malformed node', bytes: Buffer.from([0x0a, 0x02, 0x22, 0x7f]) },
      { what: 'a node with field number 0', bytes: Buffer.from([0x0a, 0x02, 0x07, 0x00]) },
    ]) {
      it(`ends only its stream, with INVALID_ARGUMENT: ${what}`, async () => {
        await serve();
        const open = fixture.connection();
        const malformed = open();
        const valid = open();
        malformed.sendBytes(bytes);
        malformed.sendBytes(firstReport('r-0'));
        const { code, details } = await malformed.ended;
        expect(code).to.equal(status.INVALID_ARGUMENT);
        expect(details).to.match(/^[^\n]{10,300}$/);
        expect(malformed.responses).to.deep.equal([]);
        valid.sendBytes(firstReport('valid'));
        expect(await valid.next()).to.deep.include({ node_id: 'valid' });
        expect(fixture.applied.map(({ reporter }) => reporter.id)).to.deep.equal(['valid']);
        expect(await fixture.count('streamsClosed', 'malformed')).to.equal(1);
        expect(fixture.logged.filter(({ level }) => level >= 40)).to.have.length(1);
        expect(fixture.logged.filter(({ level }) => level >= 50)).to.deep.equal([]);
      });
    }

    it('disconnects the reporter, and keeps earlier reports', async () => {
      await serve();
      const stream = await openIdentified();
      stream.sendBytes(Buffer.from([0xff]));
      expect(await stream.ended).to.deep.include({ code: status.INVALID_ARGUMENT });
      expect(fixture.applied).to.have.length(1);
      expect(fixture.server.connectedReporters).to.equal(0);
    });

    it('decodes an empty report as a heartbeat without a node', async () => {
      await serve();
      const stream = await openIdentified();
      stream.sendBytes(Buffer.alloc(0));
      expect(await stream.next())
        .to.deep.include({ node_id: 'r-0' })
        .and.not.have.property('error_detail');
      const other = fixture.open();
      other.sendBytes(Buffer.alloc(0));
      expect((await other.next()).error_detail?.message).to.match(/^node: /);
    });
  });

  it('rejects a large report for an invalid field at its end', async () => {
    await serve({ onInvalid: 'nack' });
    const stream = fixture.open();
    const { added_tunnels: valid = [] } = fullPush(30_000);
    stream.sendBytes(
      requestBytes({ node: { id: 'r-0' }, nonce: 1, added_tunnels: [...valid, { name: 'bad' }] }),
    );
    expect((await stream.next()).error_detail?.message).to.match(/^added_tunnels\[30000\]\.identity: /);
    expect(fixture.applied).to.deep.equal([]);
  });
});
