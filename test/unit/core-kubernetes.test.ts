import { expect } from 'chai';
import * as fc from 'fast-check';
import { compareResourceVersions } from '../../src/core/kubernetes.ts';

describe('compareResourceVersions', () => {
  it('orders versions as numbers of any size', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 1n, max: 2n ** 80n }), fc.bigInt({ min: 1n, max: 2n ** 80n }), (a, b) => {
        expect(Math.sign(compareResourceVersions(String(a), String(b)))).to.equal(a < b ? -1 : a > b ? 1 : 0);
      }),
    );
  });

  it('orders versions whose text order differs, and versions beyond exact doubles', () => {
    expect(compareResourceVersions('999', '1000')).to.be.below(0);
    expect(compareResourceVersions('9007199254740993', '9007199254740992')).to.be.above(0);
    expect(compareResourceVersions('77', '77')).to.equal(0);
  });
});
