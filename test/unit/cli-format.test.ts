import { expect } from 'chai';
import { formatAge } from '../../src/cli/format.ts';

describe('text output of the CLI commands', () => {
  for (const [ms, text] of [
    [-5_000, '0s'],
    [119_000, '119s'],
    [120_000, '2m'],
    [7_199_000, '119m'],
    [7_200_000, '2h'],
    [3 * 86_400_000, '3d'],
  ] as const) {
    it(`formats an age of ${ms} ms as ${text}`, () => {
      expect(formatAge(ms)).to.equal(text);
    });
  }
});
