import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  assembleNotes,
  formatChangelog,
  withRelease,
  withUnreleased,
} from '../../release-notes/fragments.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const CHANGELOG = join(ROOT, 'CHANGELOG.md');
const CURRENT = join(ROOT, 'release-notes', 'current');

describe('release notes', () => {
  it('group fragments by section and sort them by file name', () => {
    const notes = assembleNotes([
      { name: 'fix-b.md', text: 'Second fix.\n' },
      { name: 'breaking-x.md', text: 'Renames a flag:\nuse the new one.\n' },
      { name: 'fix-a.md', text: 'First fix.\n' },
    ]);
    expect(notes).to.equal(
      '### Breaking changes\n\n- Renames a flag: use the new one.\n\n### Bug fixes\n\n- First fix.\n- Second fix.',
    );
  });

  it('say that there are no changes if there is no fragment', () => {
    expect(assembleNotes([])).to.equal('No changes.');
  });

  it('reject a file name without a known section, and an empty or longer text', () => {
    expect(() => assembleNotes([{ name: 'misc-x.md', text: 'x' }])).to.throw('misc-x.md: must be named');
    expect(() => assembleNotes([{ name: 'fix-x.md', text: '\n' }])).to.throw('must be one paragraph');
    expect(() => assembleNotes([{ name: 'fix-x.md', text: 'a\n\nb\n' }])).to.throw('must be one paragraph');
  });

  it('replace the section "Unreleased" of a changelog and keep older releases', () => {
    const changelog = '# Changelog\n\n## Unreleased\n\nold\n\n## 0.1.0 (2026-01-01)\n\n- first\n';
    expect(withUnreleased(changelog, 'new')).to.equal(
      '# Changelog\n\n## Unreleased\n\nnew\n\n## 0.1.0 (2026-01-01)\n\n- first\n',
    );
    expect(() => withUnreleased('# Changelog\n', 'new')).to.throw('no section "Unreleased"');
  });

  it('move to a version with a date at a release, below a new empty section', () => {
    expect(withRelease('## Unreleased\n\n- a\n', '0.2.0', '2026-02-03')).to.equal(
      '## Unreleased\n\nNo changes.\n\n## 0.2.0 (2026-02-03)\n\n- a\n',
    );
  });

  it('of the next release are in the changelog as `npm run release-notes` writes them', async () => {
    const fragments = readdirSync(CURRENT)
      .filter((name) => name.endsWith('.md') && name !== 'README.md')
      .map((name) => ({ name, text: readFileSync(join(CURRENT, name), 'utf8') }));
    const changelog = readFileSync(CHANGELOG, 'utf8');
    const expected = await formatChangelog(withUnreleased(changelog, assembleNotes(fragments)), CHANGELOG);
    expect(changelog).to.equal(expected);
  });
});
