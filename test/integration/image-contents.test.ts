import { expect } from 'chai';
import { globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { run } from '../../control-plane/run.ts';

const DOCKERFILE = join(import.meta.dirname, '..', '..', 'Dockerfile');

/** Returns the command of the Dockerfile that removes files of the dependencies. */
function pruneCommand(): string {
  const [, command = ''] =
    /^RUN (find node_modules[^]*?[^\\])\n/m.exec(readFileSync(DOCKERFILE, 'utf8')) ?? [];
  return command.replaceAll('\\\n', ' ');
}

describe('image', () => {
  const kept = [
    ...['LICENSE', 'LICENSE.md', 'license.md', 'LICENCE-MIT.md', 'COPYING.md', 'NOTICE.md', 'AUTHORS.md'],
    ...[
      'index.js',
      'lib/index.cjs',
      'lib/index.mjs',
      'package.json',
      'data/table.json',
      'nested/b/LICENSE.md',
    ],
  ];
  const removed = [
    ...[
      'README.md',
      'CHANGELOG.md',
      'docs/usage.md',
      'index.js.map',
      'index.d.ts',
      'index.d.mts',
      'index.d.cts',
    ],
    ...[
      'src/index.ts',
      'src/license.ts',
      'src/index.mts',
      'src/index.cts',
      'build/addon.node',
      'nested/b/src/b.ts',
    ],
    ...[
      'prebuilds/linux-x64/a.node',
      'prebuilds/linux-x64/a.bare',
      'prebuilds/LICENSE',
      'nested/b/prebuilds/x',
    ],
  ];

  it('keeps the licenses and programs of the dependencies, and no documentation, TypeScript or native code', async () => {
    const folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-image-');
    try {
      for (const file of [...kept, ...removed]) {
        const path = join(folder.path, 'node_modules', 'a', file);
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, '');
      }
      const { code, stderr } = await run('sh', ['-c', pruneCommand()], {
        cwd: folder.path,
        env: { PATH: process.env['PATH'] },
      });
      expect(code, stderr).to.equal(0);
      const files = globSync('node_modules/a/**/*.*', { cwd: folder.path })
        .concat(globSync('node_modules/a/**/LICENSE', { cwd: folder.path }))
        .map((file) => file.replace('node_modules/a/', ''));
      expect(files.toSorted()).to.deep.equal(kept.toSorted());
    } finally {
      await folder.dispose();
    }
  });
});
