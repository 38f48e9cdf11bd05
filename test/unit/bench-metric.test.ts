import { expect } from 'chai';
import { summarizeRuns, percentile, type Metric, type Target, formatTable } from '../../bench/metric.ts';

function figures(name: string, target: Target | undefined, ...values: readonly number[]): Metric[] {
  const about = { name, unit: 'ms', ...(target && { target }) };
  return values.map((value) => Object.assign({ value }, about));
}

describe('figures of the benchmark', () => {
  it('percentile: lies between two neighbours in proportion, and is one of the values at the ends', () => {
    const sorted = [10, 20, 30, 40, 50];
    expect([0, 50, 75, 90, 100].map((percent) => percentile(sorted, percent))).to.deep.equal([
      10, 30, 40, 46, 50,
    ]);
    expect(percentile([7], 99)).to.equal(7);
    expect(percentile([], 50)).to.be.NaN;
  });

  it('several runs: one result a name, in the order of the first run, with middle and spread', () => {
    const results = summarizeRuns([
      ...figures('b', undefined, 3),
      ...figures('a', undefined, 1),
      ...figures('b', undefined, 1, 2),
    ]);
    expect(results.map(({ name }) => name)).to.deep.equal(['b', 'a']);
    expect(results[0]).to.deep.include({ values: [3, 1, 2], min: 1, median: 2, max: 3, met: undefined });
  });

  it('a speed is judged by the middle run, a count by every run', () => {
    const held = (target: Target, ...values: readonly number[]): boolean | undefined =>
      summarizeRuns(figures('x', target, ...values))[0]?.met;
    expect(held({ atMost: 2 }, 1, 2, 9)).to.equal(true);
    expect(held({ atMost: 2 }, 1, 2.1, 9)).to.equal(false);
    expect(held({ atLeast: 0.85 }, 0.1, 0.85, 0.9)).to.equal(true);
    expect(held({ atLeast: 0.85 }, 0.8, 0.84, 0.9)).to.equal(false);
    expect(held({ exactly: 0 }, 0, 0, 0)).to.equal(true);
    expect(held({ exactly: 0 }, 0, 0, 1)).to.equal(false);
  });
});

describe('the table of the benchmark', () => {
  const results = summarizeRuns([
    ...figures('fast', { atMost: 2 }, 1.2345, 1.5, 1),
    ...figures('slow', { atLeast: 10 }, 3),
    ...figures('writes', { exactly: 0 }, 0),
    ...figures('bare', undefined, 12_345.6),
  ]);

  it('shows three digits that count, the target, the verdict, and the spread where there were several runs', () => {
    expect(formatTable(results, true).split('\n')).to.deep.equal([
      'figure  middle     target          least … most',
      'fast    1.23 ms    ≤ 2     held    1 … 1.50',
      'slow    3 ms       ≥ 10    MISSED',
      'writes  0 ms       = 0     held',
      '  bare  12,346 ms',
    ]);
  });

  it('judges nothing after a quick run', () => {
    expect(formatTable(results, false)).not.to.match(/held|MISSED/);
  });
});
