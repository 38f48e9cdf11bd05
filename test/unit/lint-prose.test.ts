import { expect } from 'chai';
import { checkProse } from '../../lint/prose.ts';
import { paragraphSegments, typescriptSegments } from '../../lint/text-segments.ts';

describe('text segments of a TypeScript file', () => {
  const texts = (source: string): string[] => typescriptSegments(source).map(({ text }) => text);

  it('are its comments and string literals, with their lines', () => {
    const source = 'const a = \'one\'; // two\n\n/* three\n   four */ call("five", b);\n';
    expect(typescriptSegments(source)).to.deep.equal([
      { line: 1, text: 'one' },
      { line: 1, text: '// two' },
      { line: 3, text: '/* three\n   four */' },
      { line: 4, text: 'five' },
    ]);
  });

  it('include the parts of template literals around and within substitutions', () => {
    expect(texts('`a ${b({ c: `d ${e}` })} f` + g')).to.deep.equal(['a ', 'd ', '', ' f']);
  });

  it('do not include regular expressions, whose quotes and slashes open nothing', () => {
    expect(texts("x.replace(/['\"/*]/g, 'a') / 2 / b; return /`[/']/")).to.deep.equal(['a']);
  });

  it('end a string at its own quote, not at an escaped one', () => {
    expect(texts("f('it\\'s', 'b')")).to.deep.equal(["it\\'s", 'b']);
  });

  it('join line comments on consecutive lines', () => {
    expect(typescriptSegments('// a\n  // b\n\n// c')).to.deep.equal([
      { line: 1, text: '// a\n// b' },
      { line: 4, text: '// c' },
    ]);
  });
});

describe('paragraph segments', () => {
  it('are separated by blank lines', () => {
    expect(paragraphSegments('a\nb\n\n\nc\n')).to.deep.equal([
      { line: 1, text: 'a\nb' },
      { line: 5, text: 'c' },
    ]);
  });
});

describe('the prose lint', () => {
  const words = (path: string, source: string): string[] =>
    checkProse(path, source, []).map((finding) => `${finding.line} ${finding.words}`);

  it('reports the line, the words and a suggestion', () => {
    expect(checkProse('docs/a.md', 'One.\nIt begins anew.', [])).to.deep.equal([
      { path: 'docs/a.md', line: 2, words: 'anew', suggestion: 'again, or a verb with re-' },
    ]);
  });

  it('finds a phrase across the lines of a comment', () => {
    expect(words('a.ts', '/**\n * It is repeated once\n * more.\n */')).to.deep.equal(['2 once more']);
    expect(words('a.ts', '// It is repeated once\n// more.')).to.deep.equal(['1 once more']);
    expect(words('a.yaml', '# It is repeated once\n# more.')).to.deep.equal(['1 once more']);
  });

  it('ignores code, and words within words', () => {
    expect(words('a.ts', "const rows = told(anew); // recommended arrows\nconst text = 'renewed';")).to.be
      .empty;
  });

  it('finds "a second" only where it means "per second"', () => {
    expect(words('a.md', 'At 20 writes a second.')).to.deep.equal(['1 20 writes a second']);
    expect(words('a.md', 'Once a second.')).to.deep.equal(['1 Once a second']);
    expect(words('a.md', 'After 20 s a second stream opens. 10 of a second batch.')).to.be.empty;
  });

  it('finds "else" as an adverb, not after "something"', () => {
    expect(words('a.md', 'The pod name, else the host name.')).to.deep.equal(['1 else']);
    expect(words('a.md', 'Something else, or else nothing else.')).to.be.empty;
  });

  it('finds a fragment only at the beginning of a sentence', () => {
    expect(words('a.ts', '/** Of the last report. */')).to.deep.equal(['1 Of the']);
    expect(words('a.ts', '/** Kept. By name. */')).to.deep.equal(['1 By name']);
    expect(words('a.ts', '/** The names of the files, sorted by name. By default, none. */')).to.be.empty;
  });

  it('reads the comments of chart templates, not their actions', () => {
    expect(words('a.tpl', '{{/* Mended. */}}\n{{- if .rows }}x{{ else }}y{{ end }}')).to.deep.equal([
      '1 Mended',
    ]);
  });

  it('lets an allowed text pass, in its file and for its rule only', () => {
    const allowed = [
      { rule: 'refuse', path: 'docs/', text: 'connection refused', reason: 'the name of an error' },
    ];
    const used = new Set<(typeof allowed)[number]>();
    expect(checkProse('docs/a.md', 'A connection\nrefused.', allowed, used)).to.be.empty;
    expect(used).to.have.lengthOf(1);
    expect(checkProse('src/a.ts', '// connection refused', allowed)).to.have.lengthOf(1);
    expect(checkProse('docs/a.md', 'A stream was refused.', allowed)).to.have.lengthOf(1);
  });
});
