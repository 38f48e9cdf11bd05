import { expect } from 'chai';
import * as fc from 'fast-check';
import { decodeHead, decodeReport, MalformedReportError } from '../../src/grpc/decode.ts';
import { anyContent, anyReporter } from '../support/model-reports.ts';
import { fullPush, requestBytes } from '../support/wire.ts';

/** Runs a generator to completion and counts its yields. */
function run<T>(work: Generator<undefined, T>): { value: T; yields: number } {
  for (let yields = 0; ; yields += 1) {
    const { done, value } = work.next();
    if (done === true) return { value, yields };
  }
}

describe('decodeHead', () => {
  it('returns the same node and nonce as decodeReport, whatever the other fields and the order', () => {
    let nodes = 0;
    const nonce = fc.constantFrom('0', '1', '-1', '9223372036854775807');
    const part = fc.oneof(
      fc.record({ node: anyReporter }),
      fc.record({ nonce }),
      anyContent,
      fc.constant({}),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), fc.nat({ max: 400 }), (parts, cut) => {
        const bytes = Buffer.concat(parts.map(requestBytes));
        for (const input of [bytes, bytes.subarray(0, cut)]) {
          let expected;
          try {
            expected = run(decodeReport(input)).value;
          } catch {
            continue;
          }
          const { node, nonce } = run(decodeHead(input)).value;
          expect(node).to.deep.equal(expected.node);
          expect(nonce).to.equal(expected.nonce);
          nodes += node === undefined ? 0 : 1;
        }
      }),
      { numRuns: 1000 },
    );
    expect(nodes).to.be.greaterThan(500);
  });

  it('throws for bytes that are not a report', () => {
    for (const hex of ['ff', '0a05', '2804ff', '2880']) {
      expect(() => run(decodeHead(Buffer.from(hex, 'hex'))), hex).to.throw(MalformedReportError);
    }
  });

  it('yields among millions of empty fields', () => {
    expect(run(decodeHead(requestBytes(fullPush(1000)))).yields).to.equal(0);
    expect(run(decodeHead(Buffer.alloc(2_000_000, Buffer.from('1a00', 'hex')))).yields).to.be.greaterThan(50);
  });
});
