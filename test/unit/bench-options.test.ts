import { expect } from 'chai';
import { MEASUREMENT_NAMES } from '../../bench/measurements.ts';
import { helpText, parseOptions, type Options } from '../../bench/options.ts';

function options(...args: readonly string[]): Options {
  const parsed = parseOptions(args);
  if (!('options' in parsed)) throw new Error(JSON.stringify(parsed));
  return parsed.options;
}

describe('flags of the benchmark', () => {
  it('no flag: everything, in full size, three times', () => {
    expect(options()).to.deep.equal({
      selected: new Set(MEASUREMENT_NAMES),
      quick: false,
      runs: 3,
      profile: false,
      json: undefined,
    });
  });

  it('--quick: once, unless --runs says otherwise', () => {
    expect(options('--quick').runs).to.equal(1);
    expect(options('--quick', '--runs', '12').runs).to.equal(12);
  });

  it('--only, several times: those measurements', () => {
    const { selected } = options('--only', 'idle', '--only', 'push');
    expect([...selected]).to.deep.equal(['idle', 'push']);
  });

  it('a wrong flag or value: one line that names it', () => {
    const wrong: [readonly string[], RegExp][] = [
      [['--only', 'nonsense'], /^--only nonsense: must be one of .*\bidle\b/],
      [['--runs', '0'], /^--runs 0: must be a whole number from 1 to 99$/],
      [['--runs', '1.5'], /^--runs 1\.5: /],
      [['--profile', '--runs', '2'], /^--profile: /],
      [['--nonsense'], /--nonsense/],
      [['word'], /word/],
    ];
    for (const [args, line] of wrong) {
      const parsed = parseOptions(args);
      expect('problem' in parsed && parsed.problem, args.join(' '))
        .to.match(line)
        .and.not.include('\n');
    }
  });

  it('--help: names every measurement and every flag', () => {
    expect(parseOptions(['--help', '--quick'])).to.deep.equal({ help: true });
    for (const name of [...MEASUREMENT_NAMES, '--only', '--quick', '--runs', '--json', '--profile']) {
      expect(helpText()).to.include(`  ${name} `);
    }
  });
});
