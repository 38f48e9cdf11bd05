import { expect } from 'chai';
import { COMMON_FLAGS } from '../../src/cli/cluster.ts';
import { parseFlags } from '../../src/flags.ts';

const COMMAND = {
  usage: ['test'],
  description: '',
  flags: { ...COMMON_FLAGS, watch: { short: 'w', description: '' } },
  footer: '',
};

describe('common flags of the CLI commands', () => {
  it('uses the same defaults as kubectl, and text output', () => {
    expect(parseFlags(COMMAND, [])).to.deep.equal({
      values: {
        kubeconfig: undefined,
        context: undefined,
        namespace: undefined,
        output: 'text',
        watch: false,
      },
    });
  });

  it('accepts the short flags of kubectl, and the flags of the command', () => {
    const args = ['--kubeconfig', 'k', '--context', 'c', '-n', 'tunnels', '-o', 'json', '-w'];
    expect(parseFlags(COMMAND, args)).to.deep.equal({
      values: { kubeconfig: 'k', context: 'c', namespace: 'tunnels', output: 'json', watch: true },
    });
  });

  const invalid: readonly (readonly [readonly string[], string])[] = [
    [['--namespace', 'A_b'], '--namespace: "A_b" must be at most 63 lower-case letters, digits and dashes'],
    [['--kubeconfig='], '--kubeconfig: "" must not be empty'],
    [['--context='], '--context: "" must not be empty'],
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
