import { expect } from 'chai';
import { enumOf, hostPort, nonEmpty, numberInRange } from '../../src/flag-values.ts';
import { endWithUsage, formatHelp, parseFlags } from '../../src/flags.ts';

const COMMAND = {
  usage: ['tool check [FLAG ...]', 'kubectl tool check [FLAG ...]'],
  description: 'Checks things.',
  flags: {
    kubeconfig: { metavar: 'FILE', description: 'kubeconfig', read: nonEmpty },
    output: {
      short: 'o',
      metavar: 'text|json',
      description: 'output format',
      default: 'text',
      read: enumOf(['text', 'json']),
    },
    top: { metavar: 'N', description: 'lines', default: '20', read: numberInRange(0, 99) },
    'http-address': { metavar: 'HOST:PORT', description: 'port', repeatable: true, read: hostPort(1) },
    watch: { short: 'w', description: 'redraw' },
  },
  footer: 'Exit codes: 0 success.',
} as const;

function errorsOf(...argv: string[]): readonly string[] {
  const parsed = parseFlags(COMMAND, argv);
  return 'errors' in parsed ? parsed.errors : [];
}

describe('flags', () => {
  it('have defaults', () => {
    expect(parseFlags(COMMAND, [])).to.deep.equal({
      values: { kubeconfig: undefined, output: 'text', top: 20, 'http-address': [], watch: false },
      operands: [],
    });
  });

  it('can be given by their long and short names', () => {
    const argv = ['--kubeconfig=k', '-o', 'json', '-w', '--top', '5', '--http-address', 'a:1'];
    expect(parseFlags(COMMAND, [...argv, '--http-address=b:2', '--top=7'])).to.deep.equal({
      values: { kubeconfig: 'k', output: 'json', top: 7, 'http-address': ['a:1', 'b:2'], watch: true },
      operands: [],
    });
  });

  it('can be mixed with the operands of a command that has some', () => {
    const command = { ...COMMAND, operand: { metavar: 'NAME', description: 'what is checked' } };
    const parsed = parseFlags(command, ['a', '-w', 'b', '--top', '5', 'c', '--', '-d']);
    expect('operands' in parsed ? parsed.operands : parsed).to.deep.equal(['a', 'b', 'c', '-d']);
    expect(formatHelp(command)).to.include('  NAME\n        what is checked\n');
  });

  it('can begin with "no-"', () => {
    const command = { ...COMMAND, flags: { 'no-headers': { description: 'omit the header' } } };
    for (const [argv, isSet] of [
      [[], false],
      [['--no-headers'], true],
      [['--no-headers=true'], true],
      [['--no-headers=false'], false],
    ] as const)
      expect(parseFlags(command, argv)).to.deep.equal({ values: { 'no-headers': isSet }, operands: [] });
  });

  for (const { argv, error } of [
    { argv: ['-o', 'yaml'], error: '--output: "yaml" must be one of text, json' },
    { argv: ['--kubeconfig='], error: '--kubeconfig: "" must not be empty' },
    { argv: ['--top', '-5'], error: '--top: "-5" must be a whole number from 0 to 99' },
    { argv: ['--top', '--watch'], error: '--top: requires a value' },
    { argv: ['--nothing=k'], error: "unknown option '--nothing=k'" },
    { argv: ['--watc'], error: "unknown option '--watc' (Did you mean --watch?)" },
    { argv: ['--watch=yes'], error: "unknown option '--watch=yes'" },
    {
      argv: ['now', 'then'],
      error: 'too many arguments. Expected 0 arguments but got 2: now, then.',
    },
    {
      argv: ['--http-address=a:1', '--http-address=a:0'],
      error:
        '--http-address: "a:0" must be host:port with a port from 1 to 65535, such as 127.0.0.1:18000 or [::1]:18000',
    },
  ]) {
    it(`reject ${argv.join(' ')} with one line`, () => {
      expect(errorsOf(...argv)).to.deep.equal([error]);
    });
  }

  it('are all checked before errors are reported', () => {
    expect(errorsOf('--top=x', '--output=x', '--http-address=x')).to.have.length(3);
  });

  it('are described by --help, which takes precedence over errors', () => {
    for (const argv of [['--help'], ['-h', '--top', 'x'], ['--nothing', '--help']]) {
      expect(parseFlags(COMMAND, argv)).to.deep.equal({ help: formatHelp(COMMAND) });
    }
    expect(formatHelp(COMMAND).split('\n')).to.deep.equal([
      'Usage: tool check [FLAG ...]',
      '       kubectl tool check [FLAG ...]',
      '',
      'Checks things.',
      '',
      'Options:',
      '  --kubeconfig FILE',
      '        kubeconfig',
      '  -o, --output text|json',
      '        output format (default: text)',
      '  --top N',
      '        lines (default: 20)',
      '  --http-address HOST:PORT',
      '        port',
      '  -w, --watch',
      '        redraw',
      '  -h, --help',
      '        print this help',
      '',
      'Exit codes: 0 success.',
      '',
    ]);
  });

  it('format their errors with the name of the command', () => {
    let written = '';
    const output = { out: () => {}, err: (text: string) => void (written += text) };
    expect(endWithUsage('check', { errors: ['--top: x'] }, output)).to.equal(2);
    expect(written).to.equal('check: --top: x\ncheck: see --help for all flags\n');
  });
});
