import { expect } from 'chai';
import { decodeReport, MalformedReportError, type DecodedReport } from '../../src/grpc/decode.ts';
import { group, int64, concat, lengthDelimited, text, varint } from '../support/wire-writer.ts';
import { fullPush, requestBytes, tunnel, type RequestFields } from '../support/wire.ts';

const NODE = 1;
const ADDED = 2;
const REMOVED = 3;
const FULL_PUSH = 4;
const NONCE = 5;

/** Decodes a report and counts the yields. */
function decodeCounting(bytes: Buffer): { report: DecodedReport; yields: number } {
  const work = decodeReport(bytes);
  for (let yields = 0; ; yields += 1) {
    const step = work.next();
    if (step.done === true) return { report: step.value, yields };
  }
}

function decode(bytes: Buffer): DecodedReport {
  return decodeCounting(bytes).report;
}

function decodeFields(fields: RequestFields): DecodedReport {
  return decode(requestBytes(fields));
}

/** Encodes a tunnel: its name, followed by the given fields. */
function tunnelBytes(name: string, ...rest: Buffer[]): Buffer {
  return lengthDelimited(ADDED, concat(text(1, name), ...rest));
}

function identityBytes(...parts: Buffer[]): Buffer {
  return lengthDelimited(2, concat(...parts));
}

const COMPLETE_IDENTITY = identityBytes(text(1, 'acme'), text(2, 'eu-1'), text(3, 'node-17'));

describe('decodeReport', () => {
  describe('fields', () => {
    it('decodes an empty message as a heartbeat without node and with nonce 0', () => {
      expect(decode(Buffer.alloc(0))).to.deep.equal({
        node: undefined,
        fullPush: false,
        nonce: 0n,
        added: [],
        removedNames: [],
        rejected: { count: 0, byReason: new Map(), first: [] },
      });
    });

    it('decodes every field of a report, with lists in the order of the wire', () => {
      const report = decodeFields({
        node: { id: 'responder-0', cluster: 'edge' },
        added_tunnels: [tunnel('b'), tunnel('a'), tunnel('b')],
        removed_tunnel_names: ['z', 'b', 'z'],
        full_push: true,
        nonce: 7,
      });
      expect(report.added.map(({ name }) => name)).to.deep.equal(['b', 'a', 'b']);
      expect(report.added[0]).to.deep.equal({
        name: 'b',
        tenantID: 'acme-corporation',
        clusterID: 'eu-central-1-production',
        nodeID: 'node-of-b',
        createdAt: '2026-09-21T14:13:20.123456Z',
      });
      expect(report.removedNames).to.deep.equal(['z', 'b', 'z']);
      expect(report.fullPush).to.equal(true);
      expect(report.nonce).to.equal(7n);
      expect(Buffer.from(report.node ?? [])).to.deep.equal(concat(text(1, 'responder-0'), text(2, 'edge')));
    });

    for (const nonce of [
      0n,
      1n,
      2n ** 31n,
      2n ** 32n - 1n,
      2n ** 53n - 1n,
      2n ** 53n + 1n,
      2n ** 63n - 1n,
      -1n,
      -(2n ** 53n) - 1n,
      -(2n ** 63n),
    ]) {
      it(`preserves all digits of nonce ${nonce}`, () => {
        expect(decodeFields({ nonce: String(nonce) }).nonce).to.equal(nonce);
      });
    }

    for (const { given, want } of [
      { given: undefined, want: undefined },
      { given: {}, want: '1970-01-01T00:00:00Z' },
      { given: { seconds: -62_135_596_800 }, want: '0001-01-01T00:00:00Z' },
      { given: { seconds: -62_135_596_801, nanos: 999_999_999 }, want: undefined },
      { given: { seconds: 253_402_300_799, nanos: 999_999_999 }, want: '9999-12-31T23:59:59.999999999Z' },
      { given: { seconds: 253_402_300_800 }, want: undefined },
      { given: { seconds: -1, nanos: 1 }, want: '1969-12-31T23:59:59.000000001Z' },
      { given: { seconds: 1, nanos: -1 }, want: undefined },
      { given: { seconds: 1, nanos: 1_000_000_000 }, want: undefined },
      { given: { seconds: 1, nanos: 2_147_483_647 }, want: undefined },
      { given: { seconds: 1, nanos: -2_147_483_648 }, want: undefined },
      { given: { seconds: '9223372036854775807' }, want: undefined },
      { given: { seconds: '-9223372036854775808' }, want: undefined },
      // 2^53 + 1 is the first integer that a double cannot hold.
      { given: { seconds: '9007199254740993' }, want: undefined },
    ]) {
      it(`decodes created_at ${JSON.stringify(given)} as ${want ?? 'undefined'}`, () => {
        const { created_at: _, ...bare } = tunnel('a');
        const report = decodeFields({
          added_tunnels: [given === undefined ? bare : { ...bare, created_at: given }],
        });
        expect(report.added).to.have.length(1);
        expect(report.added[0]?.createdAt).to.equal(want);
      });
    }

    for (const name of [
      '__proto__',
      'constructor',
      'toString',
      '🚇',
      'a/b',
      'A',
      'trailing---',
      'x'.repeat(512),
    ]) {
      it(`accepts the tunnel name ${name.slice(0, 20)}`, () => {
        const report = decodeFields({ added_tunnels: [tunnel(name)], removed_tunnel_names: [name] });
        expect(report.added.map((added) => added.name)).to.deep.equal([name]);
        expect(report.removedNames).to.deep.equal([name]);
        expect(report.rejected.count).to.equal(0);
      });
    }

    it('replaces bytes that are not UTF-8 with U+FFFD', () => {
      for (const [bytes, want] of [
        [[0xff], '\uFFFD'],
        [[0x61, 0xc3], 'a\uFFFD'],
        // A lone surrogate in CESU-8: three bytes, all of them invalid.
        [[0xed, 0xa0, 0x80], '\uFFFD\uFFFD\uFFFD'],
        [[0xc0, 0x80], '\uFFFD\uFFFD'],
        [[0xf0, 0x9f, 0x9a], '\uFFFD'],
      ] as const) {
        const raw = Buffer.from(bytes);
        const name = lengthDelimited(1, raw);
        const identity = identityBytes(
          lengthDelimited(1, raw),
          lengthDelimited(2, raw),
          lengthDelimited(3, raw),
        );
        const report = decode(
          concat(lengthDelimited(ADDED, concat(name, identity)), lengthDelimited(REMOVED, raw)),
        );
        expect(report.added).to.deep.equal([
          { name: want, tenantID: want, clusterID: want, nodeID: want, createdAt: undefined },
        ]);
        expect(report.removedNames).to.deep.equal([want]);
      }
    });
  });

  describe('protobuf rules', () => {
    it('skips unknown fields anywhere, including nested groups', () => {
      const unknown = concat(
        varint(6, 2n ** 64n - 1n),
        lengthDelimited(7, Buffer.from('ignored')),
        Buffer.from([(8 << 3) | 1, 1, 2, 3, 4, 5, 6, 7, 8]),
        Buffer.from([(9 << 3) | 5, 1, 2, 3, 4]),
        group(10, concat(varint(1, 1n), group(2, lengthDelimited(3, Buffer.alloc(200))))),
        varint(536_870_911, 0n),
      );
      const report = decode(
        concat(
          unknown,
          tunnelBytes(
            'a',
            unknown,
            identityBytes(unknown, text(1, 'acme'), unknown, text(2, 'eu-1'), text(3, 'node-17'), unknown),
            lengthDelimited(3, concat(unknown, varint(1, 1n), unknown)),
            unknown,
          ),
          varint(NONCE, 9n),
          unknown,
        ),
      );
      expect(report.added).to.deep.equal([
        {
          name: 'a',
          tenantID: 'acme',
          clusterID: 'eu-1',
          nodeID: 'node-17',
          createdAt: '1970-01-01T00:00:01Z',
        },
      ]);
      expect(report.nonce).to.equal(9n);
    });

    it('treats a known field number with another wire type as unknown', () => {
      const report = decode(
        concat(
          varint(NODE, 1n),
          varint(ADDED, 1n),
          varint(REMOVED, 1n),
          lengthDelimited(FULL_PUSH, Buffer.from([1])),
          Buffer.from([(NONCE << 3) | 5, 1, 0, 0, 0]),
          tunnelBytes('a', varint(1, 5n), COMPLETE_IDENTITY, varint(2, 5n), varint(3, 5n)),
        ),
      );
      expect(report).to.deep.include({ node: undefined, fullPush: false, nonce: 0n, removedNames: [] });
      expect(report.added.map(({ name }) => name)).to.deep.equal(['a']);
    });

    it('uses the last of several equal fields', () => {
      const report = decode(
        concat(
          varint(FULL_PUSH, 1n),
          varint(NONCE, 1n),
          tunnelBytes('first', COMPLETE_IDENTITY, text(1, 'last')),
          varint(FULL_PUSH, 0n),
          varint(NONCE, 2n),
        ),
      );
      expect(report).to.deep.include({ fullPush: false, nonce: 2n });
      expect(report.added.map(({ name }) => name)).to.deep.equal(['last']);
    });

    it('merges repeated messages: identity, created_at and node', () => {
      const report = decode(
        concat(
          lengthDelimited(NODE, text(1, 'first')),
          tunnelBytes(
            'a',
            identityBytes(text(1, 'acme'), text(3, 'old')),
            lengthDelimited(3, varint(2, 5n)),
            identityBytes(text(2, 'eu-1'), text(3, 'new')),
            lengthDelimited(3, varint(1, 7n)),
          ),
          lengthDelimited(NODE, text(2, 'edge')),
          lengthDelimited(NODE, text(1, 'last')),
        ),
      );
      expect(report.added).to.deep.equal([
        {
          name: 'a',
          tenantID: 'acme',
          clusterID: 'eu-1',
          nodeID: 'new',
          createdAt: '1970-01-01T00:00:07.000000005Z',
        },
      ]);
      expect(Buffer.from(report.node ?? [])).to.deep.equal(
        concat(text(1, 'first'), text(2, 'edge'), text(1, 'last')),
      );
    });

    it('decodes any varint except 0 as true', () => {
      expect(decode(varint(FULL_PUSH, 2n)).fullPush).to.equal(true);
      expect(decode(varint(FULL_PUSH, 2n ** 31n)).fullPush).to.equal(true);
    });

    it('does not change the input bytes', () => {
      const bytes = concat(
        lengthDelimited(NODE, text(1, 'a')),
        varint(NONCE, 1n),
        lengthDelimited(NODE, text(1, 'b')),
      );
      const before = Buffer.from(bytes);
      decode(bytes);
      expect(bytes).to.deep.equal(before);
    });
  });

  describe('malformed reports', () => {
    for (const [what, bytes] of [
      ['a tag without a value', [0x12]],
      ['an unterminated tag', [0x92, 0x80]],
      ['an unterminated length', [0x12, 0x80]],
      ['a length beyond the message', [0x12, 0x05, 0x0a]],
      ['a length of 4 GiB', [0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]],
      ['a name beyond its tunnel', [0x12, 0x02, 0x0a, 0x05, 0x61, 0x62, 0x63, 0x64, 0x65]],
      ['an identity beyond its tunnel', [0x12, 0x02, 0x12, 0x03, 0x0a, 0x01, 0x61]],
      ['a tenant beyond its identity', [0x12, 0x05, 0x12, 0x02, 0x0a, 0x05, 0x61, 0x28, 0x01]],
      ['a created_at beyond its tunnel', [0x12, 0x02, 0x1a, 0x02, 0x08, 0x01]],
      ['a varint beyond its created_at', [0x12, 0x04, 0x1a, 0x02, 0x08, 0x80, 0x01]],
      ['an unknown varint beyond its tunnel', [0x12, 0x02, 0x30, 0x80, 0x01]],
      ['an unknown field beyond its tunnel', [0x12, 0x02, 0x32, 0x03, 0x28, 0x01, 0x00]],
      ['a removed name beyond the message', [0x1a, 0x05, 0x61]],
      ['a node beyond the message', [0x0a, 0x05, 0x61]],
      ['a varint of 11 bytes', [0x28, ...Array<number>(10).fill(0xff), 0x01]],
      ['a nonce truncated after 3 bytes', [0x28, 0xff, 0xff, 0xff]],
      ['a nonce truncated after 4 bytes', [0x28, 0xff, 0xff, 0xff, 0xff]],
      ['a nonce truncated after 9 bytes', [0x28, ...Array<number>(9).fill(0xff)]],
      ['seconds truncated at the end', [0x12, 0x06, 0x1a, 0x04, 0x08, 0xff, 0xff, 0xff]],
      ['field number 0', [0x00, 0x01]],
      ['field number 0 in a tunnel', [0x12, 0x02, 0x00, 0x01]],
      ['wire type 4 without a group', [0x34]],
      ['wire type 6', [0x36, 0x00]],
      ['wire type 7', [0x37, 0x00]],
      ['an unterminated group', [0x33, 0x30, 0x01]],
      ['a truncated fixed64', [0x31, 1, 2, 3, 4, 5, 6, 7]],
      ['a truncated fixed32', [0x35, 1, 2, 3]],
      ['text', [...Buffer.from('GET / HTTP/1.1\r\n\r\n')]],
    ] as const) {
      it(`throws MalformedReportError for ${what}`, () => {
        expect(() => decode(Buffer.from(bytes)))
          .to.throw(MalformedReportError, /^cannot decode StreamReverseTunnelsRequest: [^\n]+$/)
          .with.property('cause');
      });
    }

    it('throws MalformedReportError for groups nested 100,000 levels deep', () => {
      expect(() => decode(Buffer.alloc(100_000, 0x33))).to.throw(MalformedReportError);
    });
  });

  describe('violations', () => {
    const { identity } = tunnel('a');
    for (const { what, fields, field, reason } of [
      { what: 'an empty name', fields: { identity }, field: 'added_tunnels[1].name', reason: 'empty' },
      {
        what: 'a name of 513 characters',
        fields: { name: 'é'.repeat(513), identity },
        field: 'added_tunnels[1].name',
        reason: 'too_long',
      },
      {
        what: 'a name with a line break',
        fields: { name: 'a\nb', identity },
        field: 'added_tunnels[1].name',
        reason: 'forbidden_character',
      },
      { what: 'no identity', fields: { name: 'b' }, field: 'added_tunnels[1].identity', reason: 'missing' },
      {
        what: 'an empty identity',
        fields: { name: 'b', identity: {} },
        field: 'added_tunnels[1].identity.tenant_id',
        reason: 'empty',
      },
      {
        what: 'a tenant of 129 characters',
        fields: { name: 'b', identity: { ...identity, tenant_id: 'x'.repeat(129) } },
        field: 'added_tunnels[1].identity.tenant_id',
        reason: 'too_long',
      },
      {
        what: 'a cluster with NUL',
        fields: { name: 'b', identity: { ...identity, cluster_id: 'a\0b' } },
        field: 'added_tunnels[1].identity.cluster_id',
        reason: 'forbidden_character',
      },
      {
        what: 'a node with a direction override',
        fields: { name: 'b', identity: { ...identity, node_id: 'a\u202Eb' } },
        field: 'added_tunnels[1].identity.node_id',
        reason: 'forbidden_character',
      },
    ] as const) {
      it(`rejects a tunnel with ${what} as ${field}, and keeps the others`, () => {
        const report = decodeFields({ added_tunnels: [tunnel('a'), fields, tunnel('c')] });
        expect(report.added.map(({ name }) => name)).to.deep.equal(['a', 'c']);
        expect(report.rejected.count).to.equal(1);
        expect([...report.rejected.byReason]).to.deep.equal([[reason, 1]]);
        expect(report.rejected.first).to.have.length(1);
        expect(report.rejected.first[0]).to.deep.include({ field, reason });
        expect(report.rejected.first[0]?.message).to.match(
          new RegExp(`^${field.replaceAll(/[[\].]/g, '\\$&')}: \\P{Cc}+$`, 'u'),
        );
      });
    }

    it('rejects removed names that no tunnel can have', () => {
      const tooLong = 'x'.repeat(513);
      const report = decodeFields({ removed_tunnel_names: [tooLong, 'a\u0000b', 'kept'] });
      expect(report.removedNames).to.deep.equal(['kept']);
      expect(report.rejected.first.map(({ field, reason }) => [field, reason])).to.deep.equal([
        ['removed_tunnel_names[0]', 'too_long'],
        ['removed_tunnel_names[1]', 'forbidden_character'],
      ]);
    });

    it('rejects an empty removed name with its index among the removed names', () => {
      const report = decodeFields({
        added_tunnels: [tunnel('a')],
        removed_tunnel_names: ['x', 'y', '', 'z'],
      });
      expect(report.removedNames).to.deep.equal(['x', 'y', 'z']);
      expect(report.rejected).to.deep.equal({
        count: 1,
        byReason: new Map([['empty', 1]]),
        first: [
          {
            field: 'removed_tunnel_names[2]',
            reason: 'empty',
            message: 'removed_tunnel_names[2]: must not be empty',
          },
        ],
      });
    });

    it('counts all violations by reason, and keeps the first five', () => {
      const report = decodeFields({
        added_tunnels: [
          ...Array.from({ length: 3000 }, () => ({ identity })),
          ...Array.from({ length: 2000 }, () => ({ name: 'b' })),
          tunnel('kept'),
        ],
        removed_tunnel_names: ['', ''],
      });
      expect(report.added.map(({ name }) => name)).to.deep.equal(['kept']);
      expect(report.rejected.count).to.equal(5002);
      expect(Object.fromEntries(report.rejected.byReason)).to.deep.equal({ empty: 3002, missing: 2000 });
      expect(report.rejected.first.map(({ field }) => field)).to.deep.equal(
        [0, 1, 2, 3, 4].map((index) => `added_tunnels[${index}].name`),
      );
    });

    it('rejects a late tunnel with its own index', () => {
      const added = Array.from({ length: 12_345 }, (_, i) => tunnel(`n${i}`));
      const report = decodeFields({ added_tunnels: [...added, { name: 'b' }] });
      expect(report.added).to.have.length(12_345);
      expect(report.rejected.first.map(({ field }) => field)).to.deep.equal([
        'added_tunnels[12345].identity',
      ]);
    });

    it('truncates a very long text in the message', () => {
      const [violation] = decodeFields({ added_tunnels: [{ name: 'x'.repeat(100_000), identity }] }).rejected
        .first;
      expect(violation?.reason).to.equal('too_long');
      expect(violation?.message.length).to.be.lessThan(300);
    });
  });

  describe('yielding', () => {
    it('yields often during a full push of 100,000 tunnels, without losing or duplicating any', () => {
      const { report, yields } = decodeCounting(requestBytes(fullPush(100_000)));
      expect(report.added).to.have.length(100_000);
      expect(new Set(report.added.map(({ name }) => name)).size).to.equal(100_000);
      expect(report.added.at(-1)?.name).to.equal('tunnel-99999');
      expect(yields).to.be.within(200, 500);
    });

    it('does not yield during a small report', () => {
      expect(decodeCounting(requestBytes(fullPush(100))).yields).to.equal(0);
    });

    const minYields = 10;
    for (const { what, unit, count } of [
      { what: 'removed names', unit: text(REMOVED, 'some-node'), count: 200_000 },
      { what: 'invalid tunnels', unit: lengthDelimited(ADDED, Buffer.alloc(0)), count: 1_000_000 },
      { what: 'unknown fields', unit: varint(6, 1n), count: 1_000_000 },
      { what: 'nonces', unit: varint(NONCE, 1n), count: 1_000_000 },
      { what: 'names that are too long', unit: tunnelBytes('x'.repeat(100_000)), count: 50 },
      // Concatenating them one by one would take quadratic time: minutes for these 2 MB.
      { what: 'parts of a node', unit: lengthDelimited(NODE, text(2, '')), count: 500_000 },
    ]) {
      it(`yields during a report of ${count} ${what}`, () => {
        const { yields } = decodeCounting(withFinalNonce(Buffer.alloc(unit.length * count, unit)));
        expect(yields).to.be.at.least(minYields);
      });
    }
  });
});

/** Appends a nonce, which is decoded only if the decoder reaches it at a field boundary. */
function withFinalNonce(bytes: Buffer): Buffer {
  return concat(bytes, int64(NONCE, 1n));
}
