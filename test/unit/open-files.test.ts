import { expect } from 'chai';
import { fitOpenFiles, openFileLimit } from '../../src/open-files.ts';

describe('connections within the limit of open files', () => {
  const wanted = { api: 88, reporters: 10_000 };
  for (const [limit, expected] of [
    [undefined, wanted],
    [1_048_576, wanted],
    [10_168, wanted],
    [10_167, { api: 88, reporters: 9_999 }],
    [1024, { api: 88, reporters: 856 }],
    [256, { api: 88, reporters: 88 }],
    [128, { api: 24, reporters: 24 }],
    [82, { api: 1, reporters: 1 }],
    [10, { api: 1, reporters: 1 }],
  ] as const) {
    it(`are ${expected.api} to the API server and ${expected.reporters} of reporters, of ${limit ?? 'unlimited'} files`, () => {
      expect(fitOpenFiles(limit, wanted)).to.deep.equal(expected);
    });
  }

  it('are derived from the limit of this process', function () {
    if (process.platform !== 'linux') expect(openFileLimit()).to.equal(undefined);
    else expect(openFileLimit()).to.be.greaterThan(63);
  });
});
