import { createHash } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { currentPlatform, pinnedVersion, PUBLISHED_BINARIES } from '../../control-plane/binaries.ts';
import { errorMessage } from '../../control-plane/errors.ts';
import { pickArchive, unpackPublishedArchive } from '../../control-plane/published-archive.ts';
import { resolveBinaries } from '../../control-plane/resolve.ts';
import { run } from '../../control-plane/run.ts';
import { getPath } from '../../control-plane/get-path.ts';

const silent = { log: () => {}, update: () => {} };

/** Returns an index of these versions, each for linux/arm64 only. */
function indexOf(...versions: string[]): string {
  const releases = versions.map((version) => {
    const archive = { hash: `AB-${version}`, selfLink: `https://x/${version}` };
    return [version, { [`envtest-${version}-linux-arm64.tar.gz`]: archive }];
  });
  return JSON.stringify({ releases: Object.fromEntries(releases) });
}

describe('pickArchive', () => {
  const linux = { os: 'linux', arch: 'arm64' } as const;

  it('takes the pinned version even when newer patches are published', () => {
    expect(pickArchive(indexOf('v1.37.1', 'v1.37.2', 'v1.37.10'), 'v1.37.2', linux)).to.deep.equal({
      version: 'v1.37.2',
      url: 'https://x/v1.37.2',
      sha512: 'ab-v1.37.2',
    });
  });

  it('takes the newest patch of the same minor version when the pinned one is not published', () => {
    const published = indexOf('v1.36.9', 'v1.37.9', 'v1.37.10', 'v1.37.11-rc.0', 'v1.38.0', 'v2.37.12');
    expect(pickArchive(published, 'v1.37.2', linux)?.version).to.equal('v1.37.10');
  });

  it('finds none when only other minor versions or platforms are published', () => {
    expect(pickArchive(indexOf('v1.36.9', 'v1.38.0'), 'v1.37.2', linux)).to.equal(undefined);
    expect(pickArchive(indexOf('v1.37.2'), 'v1.37.2', { os: 'darwin', arch: 'arm64' })).to.equal(undefined);
  });

  it('rejects a text that is not an index', () => {
    for (const text of ['', 'hello', '[]', '{"releases": 1}']) {
      expect(() => pickArchive(text, 'v1.37.2', linux), text).to.throw('releases');
    }
  });
});

describe('a published archive', () => {
  let folder: string;
  let archive: Buffer;
  let server: Server;
  let origin: string;
  /** The checksum in the index. */
  let sha512: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'control-plane-archive-'));
    // Like in the published archives, the binaries are two folders deep.
    const inner = join(folder, 'controller-tools', 'envtest');
    await mkdir(inner, { recursive: true });
    for (const name of PUBLISHED_BINARIES) {
      await writeFile(join(inner, name), `this is ${name}`);
      await chmod(join(inner, name), 0o755);
    }
    const tar = await run('tar', ['-czf', 'archive.tar.gz', 'controller-tools'], {
      cwd: folder,
      env: process.env,
    });
    expect(tar.code, tar.stderr).to.equal(0);
    archive = await readFile(join(folder, 'archive.tar.gz'));

    const { os, arch } = currentPlatform();
    const version = await pinnedVersion('k8s.io/kubernetes');
    server = createServer((request, response) => {
      if (request.url === '/archive.tar.gz') {
        response.end(archive);
        return;
      }
      const entry = { hash: sha512, selfLink: `${origin}/archive.tar.gz` };
      const releases = { [version]: { [`envtest-${version}-${os}-${arch}.tar.gz`]: entry } };
      response.end(JSON.stringify({ releases }));
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    origin = `http://127.0.0.1:${Number(getPath(server.address(), 'port'))}`;
  });

  after(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
    await rm(folder, { recursive: true, force: true });
  });

  beforeEach(() => {
    sha512 = createHash('sha512').update(archive).digest('hex');
  });

  const environment = (): NodeJS.ProcessEnv => ({
    PATH: '/usr/bin:/bin',
    XDG_CACHE_HOME: join(folder, 'cache'),
    ENVTEST_INDEX_URL: `${origin}/index.yaml`,
  });
  const failure = async (target: string): Promise<string> =>
    unpackPublishedArchive(target, environment(), silent).then(
      () => expect.fail('unpacked'),
      (error: unknown) => errorMessage(error),
    );

  it('is unpacked into the cache folder as executables if its checksum matches', async () => {
    const resolved = await resolveBinaries(PUBLISHED_BINARIES, { env: environment(), progress: silent });
    expect(resolved.source).to.equal('published archive');
    expect((await readdir(resolved.folder)).toSorted()).to.deep.equal(PUBLISHED_BINARIES.toSorted());
    for (const name of PUBLISHED_BINARIES) {
      expect(await readFile(join(resolved.folder, name), 'utf8')).to.equal(`this is ${name}`);
      expect((await stat(join(resolved.folder, name))).mode & 0o111).to.equal(0o111);
    }
    expect(
      (await resolveBinaries(PUBLISHED_BINARIES, { env: environment(), progress: silent })).source,
    ).to.equal('cache');
  });

  it('is rejected with both checksums, and not unpacked, if its checksum does not match', async () => {
    const actual = sha512;
    sha512 = '0'.repeat(128);
    const target = await mkdtemp(join(folder, 'rejected-'));
    const message = await failure(target);
    expect(message).to.include(`${origin}/archive.tar.gz: checksum mismatch`);
    expect(message).to.include(actual).and.to.include(sha512);
    expect(await readdir(target)).not.to.include.members(['etcd']);
  });

  it('is rejected with the name of a missing binary', async () => {
    const whole = archive;
    try {
      const few = await run('tar', ['-czf', 'few.tar.gz', 'controller-tools/envtest/etcd'], {
        cwd: folder,
        env: process.env,
      });
      expect(few.code, few.stderr).to.equal(0);
      archive = await readFile(join(folder, 'few.tar.gz'));
      sha512 = createHash('sha512').update(archive).digest('hex');
      expect(await failure(await mkdtemp(join(folder, 'few-')))).to.include(
        'does not contain kube-apiserver',
      );
    } finally {
      archive = whole;
    }
  });
});
