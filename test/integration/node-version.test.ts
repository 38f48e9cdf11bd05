/** The entry points under a Node that is too old: its own loader would fail with a stack trace. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { MIN_NODE_VERSION } from '../../src/node-version.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** The Node of the distribution, which is often older than the one in PATH. */
const SYSTEM_NODE = '/usr/bin/node';
const PROGRAMS = [
  ['main', 'reverse-tunnel-operator', ['--help']],
  ['kubectl-rt', 'kubectl rt', ['status']],
  ['kubectl-complete-rt', 'kubectl rt', ['get', '']],
] as const;

describe('entry points under an older Node', () => {
  let directory: string;

  before('compiles the entry points, which an older Node cannot read as TypeScript', async () => {
    directory = await mkdtemp(join(tmpdir(), 'node-version-'));
    for (const name of ['main', 'kubectl-rt', 'kubectl-complete-rt', 'node-version']) {
      const text = readFileSync(join(ROOT, 'src', `${name}.ts`), 'utf8');
      await writeFile(
        join(directory, `${name}.mjs`),
        stripTypeScriptTypes(text).replaceAll(/\.ts'/g, ".mjs'"),
      );
    }
    // The modules that an entry point loads after the check.
    await writeFile(join(directory, 'operator-command.mjs'), 'export const runOperatorCommand = () => 7;');
    await writeFile(join(directory, 'kubectl-command.mjs'), 'export const runKubectlCommand = () => 7;');
    await writeFile(
      join(directory, 'completion.mjs'),
      'export const runCompletion = () => (process.exitCode = 7);',
    );
  });

  after(() => rm(directory, { recursive: true }));

  /** Returns flags that replace the version of Node by another one. */
  function pretend(version: string): string[] {
    const script = `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '${version}' } });`;
    return ['--import', `data:text/javascript,${encodeURIComponent(script)}`];
  }

  for (const [file, program, args] of PROGRAMS) {
    for (const version of ['18.20.8', '22.19.0', '24.14.0', '24.2.11', '9.0.0']) {
      it(`${program} requires a later version than ${version}, in one line`, () => {
        const { status, stdout, stderr } = spawnSync(
          process.execPath,
          [...pretend(version), join(directory, `${file}.mjs`), ...args],
          { encoding: 'utf8' },
        );
        expect(stderr).to.equal(
          `${program}: Node ${version} is too old; ${MIN_NODE_VERSION} or later is required (${process.execPath})\n`,
        );
        expect({ status, stdout }).to.deep.equal({ status: 1, stdout: '' });
      });
    }

    it(`${program} prints one line under the Node of the distribution, if that is older`, () => {
      const version = existsSync(SYSTEM_NODE)
        ? execFileSync(SYSTEM_NODE, ['--version'], { encoding: 'utf8' }).trim().slice(1)
        : undefined;
      const isOlder = version !== undefined && Number.parseInt(version, 10) < 24;
      const [node, flags, expected] = isOlder
        ? [SYSTEM_NODE, [], version]
        : [process.execPath, pretend('20.0.0'), '20.0.0'];
      const { status, stderr } = spawnSync(node, [...flags, join(directory, `${file}.mjs`), ...args], {
        encoding: 'utf8',
      });
      expect(stderr).to.match(new RegExp(`^${program}: Node ${expected} is too old; [^\\n]+\\n$`));
      expect(status).to.equal(1);
    });

    for (const version of [MIN_NODE_VERSION, '24.21.0', '25.0.0-nightly', '100.0.0']) {
      it(`${program} continues with ${version}`, () => {
        const { status, stderr } = spawnSync(
          process.execPath,
          [...pretend(version), join(directory, `${file}.mjs`), ...args],
          { encoding: 'utf8' },
        );
        expect({ status, stderr }).to.deep.equal({ status: 7, stderr: '' });
      });
    }
  }

  it('is the version that package.json requires', () => {
    const { engines } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      engines: { node: string };
    };
    expect(engines.node).to.equal(`>=${MIN_NODE_VERSION}`);
  });
});
