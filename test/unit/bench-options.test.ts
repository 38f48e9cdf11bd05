import { expect } from 'chai';
import { MEASUREMENT_NAMES } from '../../bench/measurements.ts';
import { helpText, parseOptions, type Options } from '../../bench/options.ts';

function options(...args: readonly string[]): Options {
  const parsed = parseOptions(args);
  if (!('options' in parsed)) throw new Error(JSON.stringify(parsed));
  return parsed.options;
}

describe('flags of the benchmark', () => {
  it('run everything three times in full size by default', () => {
    expect(options()).to.deep.equal({
      selected: new Set(MEASUREMENT_NAMES),
      quick: false,
      runs: 3,
      profile: false,
      memoryCurve: undefined,
      sliceTunnels: undefined,
      counterpart: undefined,
      minimal: false,
      publish: [],
      json: undefined,
    });
  });

  it('run once with --quick unless --runs is given', () => {
    expect(options('--quick').runs).to.equal(1);
    expect(options('--quick', '--runs', '12').runs).to.equal(12);
  });

  it('select the measurements given with --only', () => {
    const { selected } = options('--only', 'idle', '--only', 'push');
    expect([...selected]).to.deep.equal(['idle', 'push']);
  });

  it('measure a million tunnels with --slices unless --tunnels is given', () => {
    expect(options('--slices').sliceTunnels).to.equal(1_000_000);
    expect(options('--slices', '--tunnels', '20000').sliceTunnels).to.equal(20_000);
    expect(options().sliceTunnels).to.equal(undefined);
  });

  it('compare the operator with the counterpart in the given folder with --peer', () => {
    expect(options('--peer', '--peer-folder', '/nowhere').counterpart).to.equal('/nowhere');
    expect(options('--peer').counterpart).to.match(/\/shared\/peer$/);
    expect(options('--peer', '--minimal').minimal).to.equal(true);
    expect(options('--peer').selected).to.deep.equal(new Set(['cold', 'resident', 'big']));
    expect(options('--peer', '--only', 'cold').selected).to.deep.equal(new Set(['cold']));
  });

  it('write the table of a result into the documentation with --publish', () => {
    expect(options('--publish', '/nowhere/a.json').publish).to.deep.equal(['/nowhere/a.json']);
    expect(options('--publish=/nowhere/a.json', '--publish', '/b.json').publish).to.deep.equal([
      '/nowhere/a.json',
      '/b.json',
    ]);
  });

  it('draw the memory for the given minutes with --memory-curve', () => {
    expect(options('--memory-curve', '60')).to.include({ memoryCurve: 60, counterpart: undefined });
    expect(options('--memory-curve', '3', '--quick').quick).to.equal(true);
  });

  it('report an unknown flag or an invalid value in one line that quotes it', () => {
    const invalid: [readonly string[], RegExp][] = [
      [['--memory-curve', '0'], /^--memory-curve 0: must be a whole number of minutes from 1 to 1440$/],
      [['--memory-curve', '1441'], /^--memory-curve 1441: /],
      [['--slices', '--quick'], /^--slices: can be combined only with --tunnels and --json$/],
      [['--slices', '--only', 'idle'], /^--slices: /],
      [
        ['--slices', '--tunnels', '1500'],
        /^--tunnels 1500: must be a multiple of 1000 from 1000 to 1000000$/,
      ],
      [['--slices', '--tunnels', '2000000'], /^--tunnels 2000000: /],
      [['--tunnels', '1000'], /^--tunnels: requires --slices$/],
      [['--memory-curve', '3', '--peer'], /^--memory-curve: can be combined only with --quick and --json$/],
      [['--only', 'nonsense'], /^--only nonsense: must be one of .*\bidle\b/],
      [['--runs', '0'], /^--runs 0: must be a whole number from 1 to 99$/],
      [['--runs', '1.5'], /^--runs 1\.5: /],
      [['--profile', '--runs', '2'], /^--profile: /],
      [['--peer', '--only', 'idle'], /^--only idle: must be one of cold, resident, big$/],
      [['--only', 'cold'], /^--only cold: must be one of /],
      [['--publish', 'a.json', '--peer'], /^--publish: cannot be combined with other flags$/],
      [['--quick', '--publish=a.json'], /^--publish: /],
      [['--peer-folder', '/nowhere'], /^--peer-folder: requires --peer$/],
      [['--minimal'], /^--minimal: requires --peer$/],
      [['--publish', 'a.json', '--minimal'], /^--publish: cannot be combined with other flags$/],
      [['--nonsense'], /--nonsense/],
      [['word'], /word/],
    ];
    for (const [args, line] of invalid) {
      const parsed = parseOptions(args);
      expect('error' in parsed && parsed.error, args.join(' '))
        .to.match(line)
        .and.not.include('\n');
    }
  });

  it('list every measurement and every flag in --help', () => {
    expect(parseOptions(['--help', '--quick'])).to.deep.equal({ help: true });
    for (const name of [
      ...MEASUREMENT_NAMES,
      '--only',
      '--quick',
      '--runs',
      '--json',
      '--profile',
      '--slices',
      '--tunnels',
      '--peer',
      '--peer-folder',
      '--minimal',
    ]) {
      expect(helpText()).to.include(`  ${name} `);
    }
  });
});
