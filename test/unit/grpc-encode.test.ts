import { fileURLToPath } from 'node:url';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { decodeResponse } from '../../src/grpc/decode-response.ts';
import { encodeReport, encodeResponse } from '../../src/grpc/encode.ts';
import type { ReportResponse } from '../../src/grpc/messages.ts';
import type { ReportMessage } from '../../src/grpc/report-message.ts';

const PACKAGE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client';
const definitions = loadSync(`${PACKAGE.replaceAll('.', '/')}/stream_reverse_tunnels.proto`, {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  longs: String,
  defaults: true,
});
const withoutDefaults = loadSync(`${PACKAGE.replaceAll('.', '/')}/stream_reverse_tunnels.proto`, {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  longs: String,
  keepCase: true,
});
const responseType = withoutDefaults[`${PACKAGE}.StreamReverseTunnelsResponse`] as MessageTypeDefinition<
  object,
  object
>;
const request = definitions[`${PACKAGE}.StreamReverseTunnelsRequest`] as MessageTypeDefinition<
  object,
  object
>;

/** The message that the generic decoder must find in the bytes, without `node`. */
function expected(report: ReportMessage): object {
  return {
    addedTunnels: report.added.map(({ name, tenantID, clusterID, nodeID, createdAt }) => ({
      name,
      identity: { tenantId: tenantID, clusterId: clusterID, nodeId: nodeID },
      createdAt:
        createdAt === undefined ? null : { seconds: String(createdAt.seconds), nanos: createdAt.nanos },
    })),
    removedTunnelNames: report.removedNames,
    fullPush: report.fullPush,
    nonce: String(report.nonce),
  };
}

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ minLength: 100, maxLength: 300 }),
  fc.constant('x'.repeat(20_000)),
);

const report: fc.Arbitrary<ReportMessage> = fc.record({
  node: fc.option(fc.record({ cluster: text, id: text }), { nil: undefined }),
  added: fc.array(
    fc.record({
      name: text,
      tenantID: text,
      clusterID: text,
      nodeID: text,
      createdAt: fc.option(
        fc.record({
          seconds: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.maxSafeNat()),
          nanos: fc.integer({ min: 0, max: 999_999_999 }),
        }),
        { nil: undefined },
      ),
    }),
    { maxLength: 20 },
  ),
  removedNames: fc.array(text, { maxLength: 20 }),
  fullPush: fc.boolean(),
  nonce: fc.oneof(fc.bigInt({ min: 0n, max: 300n }), fc.bigInt({ min: 0n, max: 2n ** 63n - 1n })),
});

const response: fc.Arbitrary<ReportResponse> = fc.record(
  {
    node_id: fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 300 }),
      fc.constant('\u{1f600}'.repeat(256)),
      fc.constant(''),
    ),
    request_nonce: fc
      .oneof(fc.bigInt({ min: -2n, max: 300n }), fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }))
      .map(String),
    report_interval: fc.record({
      seconds: fc.integer({ min: 0, max: 3600 }).map(String),
      nanos: fc.integer({ min: 0, max: 999_999_999 }),
    }),
    error_detail: fc.record({ code: fc.nat(16), message: fc.string({ unit: 'binary' }) }),
  },
  { requiredKeys: ['node_id', 'request_nonce'] },
);

describe('grpc/encode encodeReport', () => {
  it('writes what the .proto decodes to the same report, for any texts, lengths and numbers', () => {
    fc.assert(
      fc.property(report, (sent) => {
        const { node, ...fields } = request.deserialize(encodeReport(sent)) as {
          node: { id: string; cluster: string } | null;
        };
        expect(fields).to.deep.equal(expected(sent));
        expect(node && { id: node.id, cluster: node.cluster }).to.deep.equal(sent.node ?? null);
      }),
      { numRuns: 300 },
    );
  });

  it('preserves all digits of the maximum nonce', () => {
    const bytes = encodeReport({
      node: undefined,
      added: [],
      removedNames: [],
      fullPush: false,
      nonce: 9_223_372_036_854_775_807n,
    });
    expect(request.deserialize(bytes)).to.include({ nonce: '9223372036854775807' });
  });
});

describe('grpc/encode encodeResponse', () => {
  it('writes the same bytes as the .proto, for any response', () => {
    fc.assert(
      fc.property(response, (sent) => {
        expect(encodeResponse(sent).toString('hex')).to.equal(responseType.serialize(sent).toString('hex'));
      }),
    );
  });

  it('writes what decodeResponse and the .proto decode to the same response', () => {
    fc.assert(
      fc.property(response, (sent) => {
        const bytes = encodeResponse(sent);
        expect(decodeResponse(bytes)).to.deep.equal(responseType.deserialize(bytes));
      }),
    );
  });

  it('preserves all digits of a nonce that a double cannot represent', () => {
    const sent = { node_id: 'r-0', request_nonce: '9007199254740993' };
    expect(decodeResponse(encodeResponse(sent))).to.deep.equal(sent);
  });
});
