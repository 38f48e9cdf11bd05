import { expect } from 'chai';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PrometheusError, resolvePrometheus } from '../../prometheus/resolve.ts';

describe('the resolver of Prometheus', () => {
  const progress = { log() {}, update() {} };
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'prometheus-resolve-'));
  });
  afterEach(async () => rm(folder, { recursive: true, force: true }));

  async function createProgram(name: string): Promise<void> {
    await mkdir(join(folder, 'bin'), { recursive: true });
    await writeFile(join(folder, 'bin', name), '#!/bin/sh\n');
    await chmod(join(folder, 'bin', name), 0o755);
  }

  it('uses both programs in the PATH', async () => {
    await createProgram('promtool');
    await createProgram('prometheus');
    const env = { PATH: `/nowhere:${join(folder, 'bin')}`, XDG_CACHE_HOME: folder };
    expect(await resolvePrometheus({ env, progress })).to.deep.equal({
      promtool: join(folder, 'bin', 'promtool'),
      prometheus: join(folder, 'bin', 'prometheus'),
      source: 'PATH',
    });
  });

  it('fails with one line that names what was tried, and never uses one program alone', async () => {
    await createProgram('promtool');
    const env = { PATH: join(folder, 'bin'), XDG_CACHE_HOME: folder };
    const error: unknown = await resolvePrometheus({ env, progress }).catch((reason: unknown) => reason);
    expect(error).to.be.instanceOf(PrometheusError);
    const { message } = error as PrometheusError;
    expect(message).to.include('apt-get').and.include('go build failed').and.include('Install Prometheus');
    expect(message).to.not.include('\n');
  });
});
