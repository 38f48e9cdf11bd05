import { chmod, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect } from 'chai';
import {
  ALL_BINARIES,
  currentPlatform,
  pinnedVersion,
  PUBLISHED_BINARIES,
} from '../../control-plane/binaries.ts';
import { findMissing } from '../../control-plane/executables.ts';
import type { BinaryName } from '../../control-plane/binaries.ts';
import { cacheFolder, installOnce } from '../../control-plane/cache.ts';
import { errorMessage } from '../../control-plane/errors.ts';
import { goBuildFlags } from '../../control-plane/go-build.ts';
import type { Progress } from '../../control-plane/progress.ts';
import { resolveBinaries } from '../../control-plane/resolve.ts';
import { getPath } from '../../control-plane/get-path.ts';

/** A Go that records each call and "builds" text files; like the real one, it names etcd `server`. */
const FAKE_GO = `#!/bin/sh
echo "$1 $CGO_ENABLED" >> "$GO_CALLS"
case "$1" in
  version) echo "go version go1.26.0 test/test" ;;
  list) printf 'a\\nb\\n' ;;
  build)
    for argument in "$@"; do [ "$previous" = -o ] && out="$argument"; previous="$argument"; done
    sleep 0.3
    for argument in "$@"; do
      case "$argument" in
        */server/v3) name=server ;;
        */cmd/*) name=$(basename "$argument") ;;
        *) continue ;;
      esac
      echo built > "$out/$name" && chmod 755 "$out/$name"
    done ;;
esac
`;

async function putBinaries(folder: string, names: readonly BinaryName[]): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const name of names) {
    await writeFile(join(folder, name), '');
    await chmod(join(folder, name), 0o755);
  }
  return folder;
}

describe('resolveBinaries', () => {
  let folder: string;
  let env: NodeJS.ProcessEnv;
  let server: Server;
  let logged: string[];
  let progress: Progress;
  let requests: number;
  /** The response for the URL of the index. */
  let index: { status: number; text: string };

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'control-plane-resolve-'));
    logged = [];
    progress = { log: (line) => logged.push(line), update: () => {} };
    requests = 0;
    index = { status: 404, text: '' };
    server = createServer((_, response) => {
      requests += 1;
      response.writeHead(index.status).end(index.text);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const empty = join(folder, 'empty');
    await mkdir(empty);
    env = {
      PATH: empty,
      HOME: join(folder, 'home'),
      ENVTEST_INDEX_URL: `http://127.0.0.1:${Number(getPath(server.address(), 'port'))}/index.yaml`,
      GO_CALLS: join(folder, 'go-calls'),
    };
  });

  afterEach(async () => {
    server.closeAllConnections();
    server.close();
    await once(server, 'close');
    await rm(folder, { recursive: true, force: true });
  });

  const resolve = async (names: readonly BinaryName[] = PUBLISHED_BINARIES) =>
    resolveBinaries(names, { env, progress });
  const failure = async (names?: readonly BinaryName[]): Promise<string> =>
    resolve(names).then(
      ({ folder: resolved }) => expect.fail(`resolved to ${resolved}`),
      (error: unknown) => {
        expect(getPath(error, 'name')).to.equal('ControlPlaneError');
        return errorMessage(error);
      },
    );
  const cache = async (): Promise<string> => cacheFolder(env, await goBuildFlags());
  const installGo = async (): Promise<void> => {
    const bin = join(folder, 'bin');
    await mkdir(bin);
    await writeFile(join(bin, 'go'), FAKE_GO, { mode: 0o755 });
    env['PATH'] = `${bin}:/usr/bin:/bin`;
  };
  const goCalls = async (): Promise<string[]> =>
    (await readFile(join(folder, 'go-calls'), 'utf8')).trim().split('\n');

  it('prefers KUBEBUILDER_ASSETS to the cache folder', async () => {
    await putBinaries(join(await cache(), 'built'), ALL_BINARIES);
    env['KUBEBUILDER_ASSETS'] = await putBinaries(join(folder, 'assets'), PUBLISHED_BINARIES);
    expect(await resolve()).to.deep.equal({ folder: join(folder, 'assets'), source: 'KUBEBUILDER_ASSETS' });
  });

  it('names the file that is missing in KUBEBUILDER_ASSETS, and tries no other source', async () => {
    await putBinaries(join(await cache(), 'built'), ALL_BINARIES);
    env['KUBEBUILDER_ASSETS'] = await putBinaries(join(folder, 'assets'), ['etcd', 'kubectl']);
    expect(await failure()).to.include(join(folder, 'assets', 'kube-apiserver'));
    expect(requests).to.equal(0);
  });

  it('treats a file in KUBEBUILDER_ASSETS that is not executable as missing', async () => {
    env['KUBEBUILDER_ASSETS'] = await putBinaries(join(folder, 'assets'), PUBLISHED_BINARIES);
    await chmod(join(folder, 'assets', 'etcd'), 0o644);
    expect(await failure()).to.include(join(folder, 'assets', 'etcd'));
  });

  it('uses the cache folder without a request', async () => {
    const built = await putBinaries(join(await cache(), 'built'), ALL_BINARIES);
    expect(await resolve(ALL_BINARIES)).to.deep.equal({ folder: built, source: 'cache' });
    expect(requests).to.equal(0);
  });

  it('names the cache folder after version, platform, and a hash that depends on the build flags', async () => {
    env['XDG_CACHE_HOME'] = join(folder, 'xdg');
    const { os, arch } = currentPlatform();
    const path = await cacheFolder(env, ['-trimpath']);
    const version = (await pinnedVersion('k8s.io/kubernetes')).replaceAll('.', '\\.');
    expect(path).to.match(
      new RegExp(`/xdg/reverse-tunnel-operator/control-plane/${version}-[0-9a-f]{12}/${os}-${arch}$`),
    );
    expect(await cacheFolder(env, ['-trimpath', '-race'])).not.to.equal(path);
  });

  it('does not use the published binaries in the cache for programs that no archive contains', async () => {
    await putBinaries(join(await cache(), 'published'), PUBLISHED_BINARIES);
    expect((await resolve()).source).to.equal('cache');
    expect(await failure(['etcd', 'helm'])).to.include('published archives do not contain helm');
  });

  it('fails with one line that lists the attempts and a remedy if there is no source', async () => {
    const message = await failure();
    for (const part of [
      'KUBEBUILDER_ASSETS is not set',
      await cache(),
      `cannot download the index ${env['ENVTEST_INDEX_URL']}: HTTP status 404`,
      'no `go` on the PATH',
      'Install Go 1.26',
      'set KUBEBUILDER_ASSETS',
    ]) {
      expect(message).to.include(part);
    }
    expect(message).not.to.include('\n');
    expect(logged).to.have.length(1);
  });

  it('builds with Go and without cgo if there is no archive, and renames etcd', async () => {
    await installGo();
    const { folder: built, source } = await resolve(ALL_BINARIES);
    expect(source).to.equal('Go build');
    expect((await readdir(built)).toSorted()).to.deep.equal(ALL_BINARIES.toSorted());
    expect(await goCalls()).to.deep.equal(['version ', 'list 0', 'build 0']);
    expect(requests, 'archives do not contain all of them').to.equal(0);
    expect((await resolve(ALL_BINARIES)).source).to.equal('cache');
  });

  it('builds only the requested programs, and adds others later', async () => {
    await installGo();
    const { folder: built } = await resolve(['etcd', 'kubectl']);
    expect((await readdir(built)).toSorted()).to.deep.equal(['etcd', 'kubectl']);
    expect((await resolve(['helm'])).source).to.equal('Go build');
    expect((await readdir(built)).toSorted()).to.deep.equal(['etcd', 'helm', 'kubectl']);
    expect((await resolve(['etcd', 'helm'])).source).to.equal('cache');
  });

  it('builds only the programs that are missing', async () => {
    await installGo();
    await resolve(['etcd']);
    await resolve(['etcd', 'kubectl']);
    const { folder: built } = await resolve(['etcd', 'kubectl', 'helm']);
    expect((await readdir(built)).toSorted()).to.deep.equal(['etcd', 'helm', 'kubectl']);
    const packages = logged
      .filter((line) => line.startsWith('building'))
      .map((line) => line.split(' with ')[0]);
    expect(packages).to.deep.equal(['building etcd', 'building kubectl', 'building helm']);
  });

  for (const [allow, remedy, expectedRequests] of [
    ['cache', 'downloads are not allowed', 0],
    ['download', 'builds are not allowed', 1],
  ] as const) {
    it(`uses nothing beyond ${allow} if only that is allowed, and logs nothing`, async () => {
      await installGo();
      const result = resolveBinaries(PUBLISHED_BINARIES, { env, progress, allow });
      const message = await result.then(() => 'resolved', errorMessage);
      expect(message).to.include(remedy);
      expect([requests, logged]).to.deep.equal([expectedRequests, []]);
      await putBinaries(join(await cache(), 'built'), ALL_BINARIES);
      expect((await resolveBinaries(PUBLISHED_BINARIES, { env, progress, allow })).source).to.equal('cache');
    });
  }

  it('builds once for two concurrent calls, and leaves nothing else in the cache', async () => {
    await installGo();
    const both = await Promise.all([resolve(ALL_BINARIES), resolve(ALL_BINARIES)]);
    expect(both[0].folder).to.equal(both[1].folder);
    expect((await goCalls()).filter((call) => call.startsWith('build'))).to.have.length(1);
    expect(await readdir(await cache())).to.deep.equal(['built']);
  });

  it('ignores the lock of a process that died', async () => {
    await installGo();
    const lock = join(await cache(), 'built.lock');
    await mkdir(dirname(lock), { recursive: true });
    await writeFile(lock, '1\n');
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(lock, longAgo, longAgo);
    expect((await resolve(ALL_BINARIES)).source).to.equal('Go build');
    expect(await readdir(await cache())).to.deep.equal(['built']);
  });

  it('keeps the files of another process that filled the same folder meanwhile', async () => {
    const target = join(folder, 'target');
    const isInstalled = async (): Promise<boolean> => (await findMissing(target, ['etcd'])) === undefined;
    const fill = async (partial: string): Promise<void> => {
      await putBinaries(partial, ['etcd']);
      await putBinaries(target, ['etcd', 'kubectl']);
    };
    await installOnce(target, isInstalled, fill, progress);
    expect(await readdir(target)).to.have.members(['etcd', 'kubectl']);
    expect((await readdir(folder)).filter((name) => name.includes('target'))).to.deep.equal(['target']);
  });

  it('builds what a cache folder has lost, and keeps the rest', async () => {
    await installGo();
    const built = await putBinaries(join(await cache(), 'built'), ['etcd', 'helm']);
    expect((await resolve(ALL_BINARIES)).folder).to.equal(built);
    expect(await readFile(join(built, 'kubectl'), 'utf8')).to.equal('built\n');
    expect(await readFile(join(built, 'etcd'), 'utf8')).to.equal('');
  });

  it('fails with the reason of a failed build, and leaves nothing in the cache', async () => {
    await installGo();
    await writeFile(
      join(folder, 'bin', 'go'),
      '#!/bin/sh\n[ "$1" = version ] || { echo "go: module lookup disabled" >&2; exit 1; }\n',
    );
    expect(await failure(ALL_BINARIES)).to.match(
      /`go list` in control-plane\/ failed: go: module lookup disabled/,
    );
    expect(await readdir(await cache())).to.deep.equal([]);
  });
});
