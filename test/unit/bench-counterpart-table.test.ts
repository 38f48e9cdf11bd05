import { expect } from 'chai';
import { driverFailure, withRetries } from '../../bench/counterpart.ts';
import {
  compareResults,
  formatComparisons,
  markdownTable,
  type DriverResult,
} from '../../bench/counterpart-table.ts';
import { comparisonSection, replaceSection, type ComparisonFile } from '../../bench/publish.ts';

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

function file(commit: string, counterpart: readonly number[], operator: readonly number[]): ComparisonFile {
  const measured = [
    ...results('counterpart', 'rss_mib', counterpart),
    ...results('operator', 'rss_mib', operator),
  ];
  return {
    date: '2026-11-28T00:00:00Z',
    commit,
    machine: { cores: 2, processor: 'x', memoryGiB: 8, node: 'v24' },
    quick: false,
    runs: operator.length,
    foreignCpuSeconds: 0.5,
    comparisons: compareResults(measured),
    results: measured,
  };
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

  it('has a form for Markdown with medians and ranges', () => {
    const comparisons = compareResults([
      ...results('counterpart', 'rss_mib', [100, 102]),
      ...results('operator', 'rss_mib', [150, 160]),
    ]);
    const [header, rule, row] = markdownTable(comparisons).split('\n');
    expect(header).to.match(/^\| measurement +\| counterpart in Go +\| operator +\| ratio \|/);
    expect(rule).to.match(/^\| -+ \| -+ \| -+ \| -+ \| -+ +\|$/);
    expect(row).to.match(
      /^\| – RSS after the creates \| 101 MiB \(100 … 102\) \| 155 MiB \(150 … 160\) \| 1\.53 +\| \*\*behind\*\* +\|$/,
    );
  });

  it('has a column for the minimal program only if it was measured', () => {
    const compared = [...results('counterpart', 'rss_mib', [100]), ...results('operator', 'rss_mib', [150])];
    const comparisons = compareResults([
      ...compared,
      ...results('minimal', 'rss_mib', [120, 130]),
      ...results('counterpart', 'last_ack_ms', [20]),
      ...results('operator', 'last_ack_ms', [30]),
    ]);
    const [header, , lastAck, rss] = markdownTable(comparisons).split('\n');
    expect(header).to.match(/\| minimal program +\|$/);
    expect(lastAck).to.match(/\| +\|$/);
    expect(rss).to.match(/\| 125 MiB \(120 … 130\) \|$/);
    expect(formatComparisons(comparisons)).to.match(/minimal program\n(.*\n)*.*RSS after .* 125 MiB/);
    expect(markdownTable(compareResults(compared))).not.to.contain('minimal');
  });

  it('replaces what an earlier comparison has written into a page', () => {
    const section = (rss: number): string => comparisonSection([file('abc1234', [1], [rss])]);
    const marks = [
      '<!-- comparison: written by `npm run bench -- --publish FILE` -->',
      '<!-- end of the comparison -->',
    ];
    const empty = `before\n${marks.join('\n')}\nafter\n`;
    const page = replaceSection(replaceSection(empty, section(7)), section(9));
    expect(page)
      .to.match(/^before\n<!--/)
      .and.to.match(/-->\nafter\n$/);
    expect(page)
      .to.contain('Commit abc1234 (2026-11-28); 1 run(s)')
      .and.to.contain('9 MiB')
      .and.not.to.contain('7 MiB');
    expect(() => replaceSection('a page without marks', section(7))).to.throw('does not contain');
  });

  it('names the least and the greatest number of runs if the scenarios differ', () => {
    const big: DriverResult[] = (['counterpart', 'operator'] as const).map((label) => ({
      label,
      scenario: 'big',
      result: { ack_ms: 30 },
    }));
    const other = { ...file('aaa', [], []), results: big };
    expect(comparisonSection([file('aaa', [1, 2, 3], [4, 5, 6]), other])).to.contain('; 1 to 3 runs: median');
  });

  it('combines the runs of several files', () => {
    const section = comparisonSection([file('aaa', [1, 3], [10, 30]), file('bbb', [2], [20])]);
    expect(section).to.contain('Commit aaa (2026-11-28), bbb (2026-11-28); 3 run(s): median');
    expect(section).to.contain('| 2 MiB (1 … 3)').and.to.contain('| 20 MiB (10 … 30)');
  });

  it('combines only files of the same size and machine', () => {
    const first = file('aaa', [1], [2]);
    const second = file('bbb', [1], [2]);
    expect(() => comparisonSection([first, { ...second, quick: true }])).to.throw(
      'bbb: measured in another size than aaa',
    );
    const machine = { ...second.machine, cores: 8 };
    expect(() => comparisonSection([first, { ...second, machine }])).to.throw(
      'bbb: measured on another machine than aaa',
    );
  });

  it('repeats a measurement that fails, up to the limit', async () => {
    const messages: string[] = [];
    const failing = (failures: number) => {
      let left = failures;
      return () => {
        left -= 1;
        return left < 0 ? Promise.resolve('measured') : Promise.reject(new Error(`failure ${left}`));
      };
    };
    expect(await withRetries(failing(2), 3, (message) => messages.push(message))).to.equal('measured');
    expect(messages).to.deep.equal(['failure 1', 'failure 0']);
    const failure: unknown = await withRetries(failing(3), 3, () => {}).catch((error: unknown) => error);
    expect(failure).to.include({ message: 'failure 0' });
  });

  it('explains why the watch of the driver has ended', () => {
    const ended = driverFailure(
      '12:00:00 fill\n12:00:09 FAILED: unexpected EOF\n12:00:10 stopped after 0.50 s\n',
    );
    expect(ended).to.match(/^the API server ended the watch.*FAILED: unexpected EOF/);
    const late = driverFailure('12:00:09 FAILED: saw 3 of 9 A events in 1m0s\n');
    expect(late).to.match(/^the driver failed: .*saw 3 of 9/);
  });
});
