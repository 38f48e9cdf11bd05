import { expect } from 'chai';
import { compareResults, formatComparisons, type DriverResult } from '../../bench/counterpart-table.ts';

function results(label: DriverResult['label'], key: string, values: readonly number[]): DriverResult[] {
  return values.map((value) => ({ label, scenario: 'cold', result: { [key]: value } }));
}

function verdict(key: string, counterpart: readonly number[], operator: readonly number[]): unknown {
  const [comparison] = compareResults([
    ...results('counterpart', key, counterpart),
    ...results('operator', key, operator),
  ]);
  return comparison?.verdict;
}

describe('comparison with the counterpart', () => {
  it('is ahead only if all runs of the operator are better than all runs of the counterpart', () => {
    expect(verdict('writes_per_s', [1000, 1100], [1200, 1300])).to.equal('ahead');
    expect(verdict('writes_per_s', [1200, 1300], [1000, 1100])).to.equal('behind');
    expect(verdict('writes_per_s', [1000, 1250], [1200, 1300])).to.equal('even');
    expect(verdict('rss_mib', [100, 110], [90, 95])).to.equal('ahead');
    expect(verdict('rss_mib', [90, 95], [100, 110])).to.equal('behind');
  });

  it('divides the medians', () => {
    const [comparison] = compareResults([
      ...results('counterpart', 'rss_mib', [100, 300, 200]),
      ...results('operator', 'rss_mib', [50, 150, 100]),
    ]);
    expect(comparison?.ratio).to.equal(0.5);
  });

  it('omits what only one of the two reported', () => {
    expect(compareResults(results('operator', 'rss_mib', [100]))).to.deep.equal([]);
  });

  it('shows the medians, the ratio, the verdict and both ranges in one line', () => {
    const table = formatComparisons(
      compareResults([
        ...results('counterpart', 'rss_mib', [100, 102]),
        ...results('operator', 'rss_mib', [150, 160]),
      ]),
    );
    expect(table).to.match(/RSS after the creates +101 MiB +155 MiB +1\.53 +behind +100 … 102 +150 … 160/);
  });

  it('computes the share of one core from the length of the idle window', () => {
    const idle = (label: DriverResult['label'], seconds: number): DriverResult => ({
      label,
      scenario: 'idle',
      result: { cpu_operator: seconds, window_s: 30 },
    });
    const [comparison] = compareResults([idle('counterpart', 0.6), idle('operator', 0.3)]);
    expect(comparison?.operator).to.deep.equal([1]);
  });
});
