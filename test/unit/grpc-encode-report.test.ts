import { fileURLToPath } from 'node:url';
import { loadSync, type MessageTypeDefinition } from '@grpc/proto-loader';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { encodeReport } from '../../src/grpc/encode-report.ts';
import type { ReportMessage } from '../../src/grpc/report-message.ts';

const PACKAGE = 'envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client';
const definitions = loadSync(`${PACKAGE.replaceAll('.', '/')}/stream_reverse_tunnels.proto`, {
  includeDirs: [fileURLToPath(new URL('../../proto', import.meta.url))],
  longs: String,
  defaults: true,
});
const request = definitions[`${PACKAGE}.StreamReverseTunnelsRequest`] as MessageTypeDefinition<
  object,
  object
>;

/** The message that the generic decoder must find in the bytes, `node` left aside. */
function expected(report: ReportMessage): object {
  return {
    addedTunnels: report.added.map(({ name, tenantID, clusterID, nodeID, createdAt }) => ({
      name,
      identity: { tenantId: tenantID, clusterId: clusterID, nodeId: nodeID },
      createdAt: { seconds: String(createdAt.seconds), nanos: createdAt.nanos },
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
      createdAt: fc.record({
        seconds: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.maxSafeNat()),
        nanos: fc.integer({ min: 0, max: 999_999_999 }),
      }),
    }),
    { maxLength: 20 },
  ),
  removedNames: fc.array(text, { maxLength: 20 }),
  fullPush: fc.boolean(),
  nonce: fc.oneof(fc.bigInt({ min: 0n, max: 300n }), fc.bigInt({ min: 0n, max: 2n ** 63n - 1n })),
});

describe('the encoding of a report', () => {
  it('is read back by the .proto as it was meant, whatever texts, lengths and numbers', () => {
    fc.assert(
      fc.property(report, (sent) => {
        const { node, ...rest } = request.deserialize(encodeReport(sent)) as {
          node: { id: string; cluster: string } | null;
        };
        expect(rest).to.deep.equal(expected(sent));
        expect(node && { id: node.id, cluster: node.cluster }).to.deep.equal(sent.node ?? null);
      }),
      { numRuns: 300 },
    );
  });

  it('loses no digit of the greatest nonce', () => {
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
