import { expect } from 'chai';
import * as fc from 'fast-check';
import { ackEncoder } from '../../src/grpc/encode-ack.ts';
import { loadReportingService, type ReportResponse } from '../../src/grpc/proto.ts';

const { responseSerialize, responseDeserialize } = loadReportingService().service.StreamReverseTunnels;
const encode = ackEncoder(responseSerialize);

const answer: fc.Arbitrary<ReportResponse> = fc.record(
  {
    node_id: fc.oneof(
      fc.string({ unit: 'grapheme', maxLength: 300 }),
      fc.constant('\u{1f600}'.repeat(256)),
      fc.constant(''),
    ),
    request_nonce: fc
      .oneof(fc.bigInt({ min: -2n, max: 300n }), fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }))
      .map(String),
    report_interval: fc.record({ seconds: fc.constant('5'), nanos: fc.constant(0) }),
    error_detail: fc.record({ code: fc.constant(3), message: fc.string() }),
  },
  { requiredKeys: ['node_id', 'request_nonce'] },
);

describe('the encoding of an answer', () => {
  it('is byte for byte that of the .proto, whatever is answered', () => {
    fc.assert(
      fc.property(answer, (response) => {
        expect(encode(response).toString('hex')).to.equal(responseSerialize(response).toString('hex'));
      }),
    );
  });

  it('loses no digit of a nonce beyond what a double holds', () => {
    const response = { node_id: 'r-0', request_nonce: '9007199254740993' };
    expect(responseDeserialize(encode(response))).to.deep.equal(response);
  });
});
