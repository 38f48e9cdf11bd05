import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';

const ROOT = join(import.meta.dirname, '../..');

/** Runs one rule on a source text; returns the messages. */
function lint(rule: string, options: readonly unknown[], source: string): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'lint-composition-'));
  try {
    const config = {
      categories: { correctness: 'off' },
      jsPlugins: [join(ROOT, 'lint/composition.ts')],
      rules: { [`composition/${rule}`]: ['error', ...options] },
    };
    writeFileSync(join(folder, 'oxlintrc.json'), JSON.stringify(config));
    writeFileSync(join(folder, 'source.ts'), source);
    const args = [
      join(ROOT, 'node_modules/oxlint/bin/oxlint'),
      '-c',
      'oxlintrc.json',
      '-f',
      'json',
      'source.ts',
    ];
    const { stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: 'utf8' });
    const { diagnostics } = JSON.parse(stdout) as { diagnostics: { message: string }[] };
    return diagnostics.map(({ message }) => message);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

describe('the rules for a composition built in one direction', () => {
  it('limit the number of arrow functions', () => {
    expect(lint('max-arrow-functions', [2], 'f(() => 1, () => 2);')).to.be.empty;
    expect(lint('max-arrow-functions', [2], 'f(() => 1, () => 2, () => 3);')).to.deep.equal([
      'At most 2 arrow functions: pass objects instead of callbacks.',
    ]);
  });

  it('reject the annotation of a constructed value', () => {
    const bad = 'async () => { const a: A = new A(); const b: B = createB(); const c: C = await openC(); };';
    expect(lint('no-annotated-construction', [], bad)).to.have.lengthOf(3);
    const good =
      'const TOP: Set<A> = new Set(); () => { const a = new A(); const b: B[] = []; let c: C | undefined; const d: D = { a }; };';
    expect(lint('no-annotated-construction', [], good)).to.be.empty;
  });

  it('reject the assignment of a callback to an object', () => {
    expect(
      lint('no-callback-assignment', [], 'queue.onReady = wake; this.queue.onReady = wake;'),
    ).to.have.lengthOf(2);
    expect(lint('no-callback-assignment', [], 'this.onReady = wake; a.once = b; const { onX } = a;')).to.be
      .empty;
  });
});
