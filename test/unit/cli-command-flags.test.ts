import { expect } from 'chai';
import { formatAge } from '../../src/cli/age.ts';
import { parseCommonFlags } from '../../src/cli/command-flags.ts';

describe('flags of the hand tools', () => {
  it('nothing given: found where kubectl finds it, as text', () => {
    expect(parseCommonFlags([], {})).to.deep.equal({
      flags: { kubeconfig: undefined, context: undefined, namespace: undefined, output: 'text' },
      extra: {},
    });
  });

  it('as kubectl has them, and those of the tool', () => {
    const args = ['--kubeconfig', 'k', '--context', 'c', '-n', 'tunnels', '-o', 'json', '-w'];
    expect(parseCommonFlags(args, { watch: { type: 'boolean', short: 'w' } })).to.deep.equal({
      flags: { kubeconfig: 'k', context: 'c', namespace: 'tunnels', output: 'json' },
      extra: { watch: true },
    });
  });

  const wrong: readonly (readonly [readonly string[], string])[] = [
    [['--namespace', 'A_b'], '--namespace: "A_b" must be at most 63 lower-case letters, digits and dashes'],
    [['--kubeconfig='], '--kubeconfig: must not be empty'],
    [['--context='], '--context: must not be empty'],
    [['-o', 'yaml'], '--output: "yaml" must be one of text, json'],
    [['--nonsense'], "Unknown option '--nonsense'"],
    [['tunnels'], "Unexpected argument 'tunnels'"],
  ];
  for (const [args, mistake] of wrong) {
    it(`${args.join(' ')}: one line that says what is wrong`, () => {
      const parsed = parseCommonFlags(args, {});
      expect('errors' in parsed ? parsed.errors[0] : undefined).to.include(mistake);
    });
  }

  for (const [ms, shown] of [
    [-5_000, '0s'],
    [119_000, '119s'],
    [120_000, '2m'],
    [7_199_000, '119m'],
    [7_200_000, '2h'],
    [3 * 86_400_000, '3d'],
  ] as const) {
    it(`an age of ${ms} ms: ${shown}`, () => {
      expect(formatAge(ms)).to.equal(shown);
    });
  }
});
