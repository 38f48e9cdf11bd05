import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { expect } from 'chai';
import { COMPILE_CACHE } from '../support/compile-cache.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/** The npm scripts that are programs of this repository, with the arguments of Node. */
const SCRIPTS = Object.entries(
  (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: Record<string, string> })
    .scripts,
).flatMap(([name, command]) => {
  // The demo prints a line about its version of Node first.
  const [, args] = /^(?:npm run --silent build && )?node (?:--require \S+ )?(.*\.ts.*)$/.exec(command) ?? [];
  return args === undefined ? [] : [{ name, args: args.split(' ') }];
});

interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(args: readonly string[]): Promise<Result> {
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...COMPILE_CACHE },
  });
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  return { code, stdout, stderr };
}

describe('The npm scripts', function () {
  this.timeout(120_000);

  it('include the programs of this repository', () => {
    expect(SCRIPTS.map(({ name }) => name)).to.include.members([
      'start',
      'properties',
      'bench',
      'soak',
      'build',
    ]);
  });

  for (const { name, args } of SCRIPTS) {
    it(`print the usage of ${name} for --help, reject an unknown flag, and do nothing else`, async () => {
      const [help, unknown] = await Promise.all([run([...args, '--help']), run([...args, '--no-such-flag'])]);
      expect(help.stderr).to.equal('');
      expect(help.stdout).to.match(/^Usage: /);
      expect(help.code).to.equal(0);
      const [error, hint, ...more] = unknown.stderr.trimEnd().split('\n');
      expect(error).to.contain('no-such-flag');
      if (hint !== undefined) expect(hint).to.contain('--help');
      expect(more).to.deep.equal([]);
      expect(unknown.stdout).to.equal('');
      expect(unknown.code).to.equal(2);
    });
  }
});
