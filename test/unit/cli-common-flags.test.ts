import { expect } from 'chai';
import { COMMON_FLAGS, CONNECTION_FLAGS, toOverrides } from '../../src/cli/kubectl-flags.ts';
import { parseFlags } from '../../src/flags.ts';

const COMMAND = {
  usage: ['test'],
  description: '',
  flags: { ...COMMON_FLAGS, watch: { short: 'w', description: '' }, ...CONNECTION_FLAGS },
  footer: '',
};

describe('common flags of the CLI commands', () => {
  function read(args: readonly string[]) {
    const parsed = parseFlags(COMMAND, args);
    if (!('values' in parsed)) throw new Error(JSON.stringify(parsed));
    return parsed.values;
  }

  it('replaces nothing in a kubeconfig by default, and prints text', () => {
    const values = read([]);
    expect(values).to.include({ kubeconfig: undefined, namespace: undefined, output: 'text', watch: false });
    expect(values['request-timeout']).to.equal(undefined);
    expect(JSON.parse(JSON.stringify(toOverrides(values)))).to.deep.equal({
      clusterFields: {},
      userFields: { 'as-groups': [] },
    });
  });

  it('accepts the short flags of kubectl, and the flags of the command', () => {
    const args = [
      '--kubeconfig',
      'k',
      '--context',
      'c',
      '-n',
      'tunnels',
      '-o',
      'json',
      '-w',
      '-s',
      'https://a',
    ];
    expect(read(args)).to.include({
      kubeconfig: 'k',
      context: 'c',
      namespace: 'tunnels',
      output: 'json',
      watch: true,
      server: 'https://a',
    });
  });

  it('ignores empty values, as kubectl does', () => {
    const values = read(['--kubeconfig=', '--context=', '-n', '', '--token', '']);
    expect(values).to.include({
      kubeconfig: undefined,
      context: undefined,
      namespace: undefined,
      token: undefined,
    });
  });

  it('accepts the notations of kubectl for switches, durations and repeated values', () => {
    const values = read([
      ...['--insecure-skip-tls-verify=false', '--disable-compression=true', '--request-timeout', '5'],
      ...[
        '--as',
        'a',
        '--as-group',
        'g1',
        '--as-group=g2',
        '--as-user-extra',
        'k=v=w',
        '--as-user-extra=k=x',
      ],
    ]);
    expect(values['insecure-skip-tls-verify']).to.equal(false);
    expect(values['disable-compression']).to.equal(true);
    expect(values['request-timeout']).to.equal(5_000);
    expect(read(['--request-timeout=1m30s'])['request-timeout']).to.equal(90_000);
    expect(toOverrides(values).userFields).to.deep.include({
      as: 'a',
      'as-groups': ['g1', 'g2'],
      'as-user-extra': { k: ['v=w', 'x'] },
    });
  });

  const invalid: readonly (readonly [readonly string[], string])[] = [
    [['--namespace', 'A_b'], '--namespace: "A_b" must be at most 63 lower-case letters, digits and dashes'],
    [['--request-timeout', 'soon'], '--request-timeout: "soon" must be whole seconds or a duration'],
    [['-o', 'yaml'], '--output: "yaml" must be one of text, json'],
    [['--nonsense'], "unknown option '--nonsense'"],
    [['tunnels'], 'too many arguments'],
  ];
  for (const [args, message] of invalid) {
    it(`rejects ${args.join(' ')} with one line`, () => {
      const parsed = parseFlags(COMMAND, args);
      expect('errors' in parsed ? parsed.errors[0] : undefined).to.include(message);
    });
  }
});
