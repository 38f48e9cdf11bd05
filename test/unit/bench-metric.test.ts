import { expect } from 'chai';
import { summarizeRuns, percentile, type Metric, type Target, formatTable } from '../../bench/metric.ts';

function metrics(name: string, target: Target | undefined, ...values: readonly number[]): Metric[] {
  const about = { name, unit: 'ms', ...(target && { target }) };
  return values.map((value) => Object.assign({ value }, about));
}

describe('metrics of the benchmark', () => {
  it('interpolates percentiles linearly', () => {
    const sorted = [10, 20, 30, 40, 50];
    expect([0, 50, 75, 90, 100].map((percent) => percentile(sorted, percent))).to.deep.equal([
      10, 30, 40, 46, 50,
    ]);
    expect(percentile([7], 99)).to.equal(7);
    expect(percentile([], 50)).to.be.NaN;
  });

  it('summarizes several runs per name, in the order of the first run, with median and range', () => {
    const results = summarizeRuns([
      ...metrics('b', undefined, 3),
      ...metrics('a', undefined, 1),
      ...metrics('b', undefined, 1, 2),
    ]);
    expect(results.map(({ name }) => name)).to.deep.equal(['b', 'a']);
    expect(results[0]).to.deep.include({ values: [3, 1, 2], min: 1, median: 2, max: 3, met: undefined });
  });

  it('compares the median with a limit, but every run with an exact count', () => {
    const isMet = (target: Target, ...values: readonly number[]): boolean | undefined =>
      summarizeRuns(metrics('x', target, ...values))[0]?.met;
    expect(isMet({ atMost: 2 }, 1, 2, 9)).to.equal(true);
    expect(isMet({ atMost: 2 }, 1, 2.1, 9)).to.equal(false);
    expect(isMet({ atLeast: 0.85 }, 0.1, 0.85, 0.9)).to.equal(true);
    expect(isMet({ atLeast: 0.85 }, 0.8, 0.84, 0.9)).to.equal(false);
    expect(isMet({ exactly: 0 }, 0, 0, 0)).to.equal(true);
    expect(isMet({ exactly: 0 }, 0, 0, 1)).to.equal(false);
  });
});

describe('the table of the benchmark', () => {
  const results = summarizeRuns([
    ...metrics('fast', { atMost: 2 }, 1.2345, 1.5, 1),
    ...metrics('slow', { atLeast: 10 }, 3),
    ...metrics('writes', { exactly: 0 }, 0),
    ...metrics('baseline', undefined, 12_345.6),
  ]);

  it('shows three significant digits, the target, whether it is met, and the range of several runs', () => {
    expect(formatTable(results, true).split('\n')).to.deep.equal([
      'metric      median     target          min … max',
      'fast        1.23 ms    ≤ 2     met     1 … 1.50',
      'slow        3 ms       ≥ 10    MISSED',
      'writes      0 ms       = 0     met',
      '  baseline  12,346 ms',
    ]);
  });

  it('omits the verdicts of a quick run', () => {
    expect(formatTable(results, false)).not.to.match(/\bmet\b|MISSED/);
  });
});
