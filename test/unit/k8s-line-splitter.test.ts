import { expect } from 'chai';
import { createLineSplitter, LineTooLongError } from '../../src/k8s/watch-once.ts';
import * as fc from 'fast-check';

const LIMIT = 1 << 20;

describe('line splitter of a watch', () => {
  it('returns the same lines for any division into chunks, even within a character', () => {
    const line = fc.string({ unit: 'binary' }).map((text) => text.toWellFormed().replaceAll('\n', ''));
    fc.assert(
      fc.property(
        fc.array(line),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        (lines, cuts) => {
          const bytes = Buffer.from(lines.map((text) => `${text}\n`).join(''));
          const seen: string[] = [];
          const take = createLineSplitter(LIMIT, (text) => seen.push(text));
          for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
            const size = cuts[turn % cuts.length] ?? 1;
            take(bytes.subarray(at, at + size));
            at += size;
          }
          expect(seen).to.deep.equal(lines.filter((text) => text !== ''));
        },
      ),
    );
  });

  it("keeps an incomplete line when the chunk's buffer is reused", () => {
    const seen: string[] = [];
    const take = createLineSplitter(LIMIT, (text) => seen.push(text));
    const chunk = Buffer.from('{"a":');
    take(chunk);
    chunk.fill('x');
    expect(seen).to.deep.equal([]);
    take(Buffer.from('1}\n{"b"'));
    expect(seen).to.deep.equal(['{"a":1}']);
    take(Buffer.from(':2}\n'));
    expect(seen).to.deep.equal(['{"a":1}', '{"b":2}']);
  });

  it('accepts a line of exactly the limit and rejects one byte more, in one chunk or in many', () => {
    for (const size of [16, 17]) {
      for (const step of [1, 5, 100]) {
        const bytes = Buffer.from(`${'x'.repeat(size)}\n`);
        const seen: number[] = [];
        const take = createLineSplitter(16, (text) => seen.push(text.length));
        const run = (): void => {
          for (let at = 0; at < bytes.length; at += step) take(bytes.subarray(at, at + step));
        };
        if (size > 16) expect(run, `${size} by ${step}`).to.throw(LineTooLongError, '16 bytes');
        else run();
        expect(seen).to.deep.equal(size > 16 ? [] : [16]);
      }
    }
  });

  it('takes linear instead of quadratic time for a long line in small chunks', () => {
    const piece = Buffer.alloc(64, 'x');
    let length = 0;
    const take = createLineSplitter(64 << 20, (text) => {
      length = text.length;
    });
    const startedMs = performance.now();
    // Copying everything with each piece would copy 8 TiB for these 32 MiB.
    for (let i = 0; i < 524_288; i += 1) take(piece);
    take(Buffer.from('\n'));
    expect(length).to.equal(32 << 20);
    expect(performance.now() - startedMs).to.be.below(60_000);
  });
});
