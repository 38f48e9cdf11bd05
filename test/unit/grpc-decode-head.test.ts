import { expect } from 'chai';
import * as fc from 'fast-check';
import { decodeHead, decodeReport, MalformedReportError } from '../../src/grpc/decode.ts';
import { anyContent, anyReporter } from '../support/model-reports.ts';
import { fullPush, requestBytes } from '../support/wire.ts';

/** Runs it to its end; with the number of times that it rested. */
function whole<T>(work: Generator<undefined, T>): { value: T; rests: number } {
  for (let rests = 0; ; rests += 1) {
    const { done, value } = work.next();
    if (done === true) return { value, rests };
  }
}

describe('the head of a report', () => {
  it('is what the whole report says, whatever stands around it and in whatever order', () => {
    let seen = 0;
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
        for (const some of [bytes, bytes.subarray(0, cut)]) {
          let expected;
          try {
            expected = whole(decodeReport(some)).value;
          } catch {
            continue;
          }
          const { node, nonce } = whole(decodeHead(some)).value;
          expect(node).to.deep.equal(expected.node);
          expect(nonce).to.equal(expected.nonce);
          seen += node === undefined ? 0 : 1;
        }
      }),
      { numRuns: 1000 },
    );
    expect(seen).to.be.greaterThan(500);
  });

  it('is not there in what is no report', () => {
    for (const hex of ['ff', '0a05', '2804ff', '2880']) {
      expect(() => whole(decodeHead(Buffer.from(hex, 'hex'))), hex).to.throw(MalformedReportError);
    }
  });

  it('is looked for with rests, also among millions of empty fields', () => {
    expect(whole(decodeHead(requestBytes(fullPush(1000)))).rests).to.equal(0);
    expect(whole(decodeHead(Buffer.alloc(2_000_000, Buffer.from('1a00', 'hex')))).rests).to.be.greaterThan(
      50,
    );
  });
});
