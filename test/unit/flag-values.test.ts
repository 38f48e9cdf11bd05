import { expect } from 'chai';
import * as fc from 'fast-check';
import { formatDuration, parseDuration } from '../../src/flag-values.ts';

describe('durations', () => {
  for (const [text, ms] of [
    ['250ms', 250],
    ['30s', 30_000],
    ['5m', 300_000],
    ['1h', 3_600_000],
    ['1h30m', 5_400_000],
    ['1.5s', 1500],
    ['0', 0],
    ['0s', 0],
    [' 5s ', 5000],
  ] as const) {
    it(`parses ${text} as ${ms} ms`, () => {
      expect(parseDuration(text)).to.deep.equal({ ms });
    });
  }

  for (const text of [
    '',
    '5',
    '5 s',
    '-5s',
    '5S',
    '5d',
    's',
    '1e3s',
    '.5s',
    '5s,',
    '9'.repeat(400) + 'h',
    '3000000h1',
  ]) {
    it(`rejects "${text.slice(0, 20)}" with an error that quotes the text`, () => {
      const parsed = parseDuration(text);
      expect(parsed).to.have.property('error').that.includes(`"${text}"`);
    });
  }

  it('parses what it formats', () => {
    fc.assert(
      fc.property(fc.nat(), fc.constantFrom(1, 1000, 60_000, 3_600_000), (count, unit) => {
        expect(parseDuration(formatDuration(count * unit))).to.deep.equal({ ms: count * unit });
      }),
    );
  });
});
