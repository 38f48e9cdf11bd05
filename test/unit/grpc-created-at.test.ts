import { expect } from 'chai';
import * as fc from 'fast-check';

import { formatCreatedAt } from '../../src/grpc/created-at.ts';

const YEAR_1 = -62_135_596_800;
const YEAR_9999_END = 253_402_300_799;

/** Parses RFC 3339 without the millisecond precision of `Date`. */
function parseTime(text: string): [seconds: number, nanos: number] {
  const [, wholeSeconds, fraction] = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:\.(\d+))?Z$/.exec(text) ?? [];
  if (wholeSeconds === undefined) throw new Error(`${text} is not RFC 3339 in UTC`);
  return [Date.parse(`${wholeSeconds}Z`) / 1000, Number((fraction ?? '').padEnd(9, '0'))];
}

describe('formatCreatedAt', () => {
  const times: [seconds: number, nanos: number, text: string | undefined, why: string][] = [
    [0, 0, '1970-01-01T00:00:00Z', 'a whole second'],
    [1_795_410_000, 123_456_789, '2026-11-23T05:00:00.123456789Z', 'nanoseconds'],
    [1_795_410_000, 123_456_000, '2026-11-23T05:00:00.123456Z', 'microseconds, as Envoy sends them'],
    [1_795_410_000, 123_000_000, '2026-11-23T05:00:00.123Z', 'milliseconds'],
    [1_795_410_000, 100_000_000, '2026-11-23T05:00:00.100Z', 'a tenth'],
    [1_795_410_000, 1, '2026-11-23T05:00:00.000000001Z', 'one nanosecond'],
    [1_795_410_000, 999_999_999, '2026-11-23T05:00:00.999999999Z', 'the last nanosecond of a second'],
    [
      -1,
      999_999_999,
      '1969-12-31T23:59:59.999999999Z',
      'a time just before 1970, from which nanos count forward',
    ],
    [951_782_400, 0, '2000-02-29T00:00:00Z', 'a leap day'],
    [YEAR_1, 0, '0001-01-01T00:00:00Z', 'the minimum'],
    [YEAR_9999_END, 999_999_999, '9999-12-31T23:59:59.999999999Z', 'the maximum'],
    [YEAR_1 - 1, 999_999_999, undefined, 'year 0'],
    [YEAR_9999_END + 1, 0, undefined, 'year 10000'],
    [0, -1, undefined, 'negative nanos'],
    [0, 1_000_000_000, undefined, '1e9 nanos'],
    [0, 2_147_483_647, undefined, 'the maximum int32 of nanos'],
    [2 ** 63, 0, undefined, 'the maximum int64 of seconds'],
    [-(2 ** 63), 0, undefined, 'the minimum int64 of seconds'],
    [Number.NaN, 0, undefined, 'NaN seconds'],
    [0, Number.NaN, undefined, 'NaN nanos'],
  ];
  for (const [seconds, nanos, text, why] of times) {
    it(`formats ${why} as ${text ?? 'undefined'}`, () => {
      expect(formatCreatedAt(seconds, nanos)).to.equal(text);
    });
  }

  const anySeconds = fc.integer({ min: YEAR_1, max: YEAR_9999_END });
  const anyNanos = fc.oneof(
    fc.integer({ min: 0, max: 999_999_999 }),
    fc.integer({ min: 0, max: 999_999 }).map((micros) => micros * 1000),
    fc.integer({ min: 0, max: 999 }).map((millis) => millis * 1_000_000),
  );

  it('preserves every time in range', () => {
    fc.assert(
      fc.property(anySeconds, anyNanos, (seconds, nanos) => {
        expect(parseTime(formatCreatedAt(seconds, nanos) ?? '')).to.deep.equal([seconds, nanos]);
      }),
    );
  });

  it('formats times of the same day and of other days in any order', () => {
    const daysAndSeconds = fc.tuple(fc.integer({ min: -3, max: 3 }), fc.integer({ min: 0, max: 86_399 }));
    fc.assert(
      fc.property(fc.array(daysAndSeconds), (times) => {
        for (const [day, second] of times) {
          const seconds = day * 86_400 + second;
          const expected = new Date(seconds * 1000).toISOString().replace('.000Z', 'Z');
          expect(formatCreatedAt(seconds, 0)).to.equal(expected);
        }
      }),
    );
  });

  it('uses the fewest of 0, 3, 6 or 9 fraction digits', () => {
    fc.assert(
      fc.property(anySeconds, anyNanos, (seconds, nanos) => {
        const digits = /\.(\d+)Z$/.exec(formatCreatedAt(seconds, nanos) ?? '')?.[1] ?? '';
        expect(digits.length % 3).to.equal(0);
        expect(digits.endsWith('000')).to.equal(false);
      }),
    );
  });
});
