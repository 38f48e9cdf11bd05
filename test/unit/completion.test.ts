import { expect } from 'chai';
import { completeWord } from '../../src/cli/complete-word.ts';
import { completionsOf } from '../../src/completion.ts';
import { enumOf, nonEmpty } from '../../src/flag-values.ts';
import { KUBECTL_SUBCOMMANDS } from '../../src/subcommands.ts';

const COMMAND = {
  flags: {
    output: { short: 'o', metavar: 'wide|name', description: 'format', read: enumOf(['', 'wide', 'name']) },
    kubeconfig: { metavar: 'FILE', description: 'kubeconfig', read: nonEmpty },
    tenant: { metavar: 'ID', description: 'tenant', read: nonEmpty },
    watch: { short: 'w', description: 'follow' },
  },
  operand: { metavar: 'NAME', description: 'name' },
};

describe('completion of kubectl rt', () => {
  for (const [line, words, also] of [
    ['', [], 'operand'],
    ['a', [], 'operand'],
    ['-', ['--output', '--kubeconfig', '--tenant', '--watch', '--help'], 'nothing'],
    ['a --w', ['--watch'], 'nothing'],
    ['--output ', ['wide', 'name'], 'nothing'],
    ['-o n', ['name'], 'nothing'],
    ['--output=w', ['--output=wide'], 'nothing'],
    ['--output=x', [], 'nothing'],
    ['--output wide ', [], 'operand'],
    ['--output=wide ', [], 'operand'],
    ['-w ', [], 'operand'],
    ['--watch=t', [], 'nothing'],
    ['--kubeconfig ', [], 'file'],
    ['--kubeconfig=k', [], 'file'],
    ['--tenant ', [], 'nothing'],
    ['--constructor ', [], 'operand'],
    ['--toString=', [], 'nothing'],
    ['-- -', [], 'operand'],
  ] as const) {
    it(`of "${line}" offers [${words.join(', ')}] and ${also}`, () => {
      const given = line.split(' ');
      const completion = completeWord(COMMAND, given.slice(0, -1), given.at(-1) ?? '');
      expect(completion.candidates.map(({ word }) => word)).to.deep.equal(words);
      expect(completion.also).to.equal(also);
    });
  }

  it('offers no operand to a command that has none', () => {
    expect(completeWord({ flags: COMMAND.flags }, [], '').also).to.equal('nothing');
  });

  it('offers the subcommands, and for each its flags with their descriptions', async () => {
    expect(await completionsOf([''], {})).to.equal(`${KUBECTL_SUBCOMMANDS.join('\n')}\n:4\n`);
    expect(await completionsOf(['ge'], {})).to.equal('get\n:4\n');
    for (const name of KUBECTL_SUBCOMMANDS)
      expect(await completionsOf([name, '--namesp'], {})).to.match(/^--namespace\t.+\n:4\n$/);
  });

  it('offers files after a flag that takes one, and nothing for an unknown subcommand', async () => {
    expect(await completionsOf(['status', '--kubeconfig', ''], {})).to.equal(':0\n');
    expect(await completionsOf(['serve', '--'], {})).to.equal(':4\n');
    expect(await completionsOf(['status', ''], {})).to.equal(':4\n');
  });
});
