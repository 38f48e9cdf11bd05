/** Builds all binaries from the Go modules pinned in `go.mod`. */
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { currentPlatform, pinnedVersion, SOURCE_FOLDER } from './binaries.ts';
import { ControlPlaneError } from './errors.ts';
import type { Progress } from './progress.ts';
import { COMMAND_NOT_FOUND, lastLines, run } from './run.ts';

/** Lines of the compiler's output that an error repeats: enough for a message of the linker or of a proxy. */
const ERROR_LINES = 6;

/**
 * Flags of `go build`, output aside. Kubernetes programs learn their version only from the linker, and without it
 * a server says v0.0.0 and clients that compare versions misjudge it.
 */
export async function goBuildFlags(): Promise<string[]> {
  const version = await pinnedVersion('k8s.io/kubernetes');
  const [major = '', minor = ''] = version.slice(1).split('.');
  const stamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((target) => [
    `-X ${target}.gitVersion=${version}`,
    `-X ${target}.gitMajor=${major}`,
    `-X ${target}.gitMinor=${minor}`,
  ]);
  // readonly: go.sum is what was reviewed, whatever GOFLAGS say.
  return ['-mod=readonly', '-trimpath', '-buildvcs=false', '-ldflags', `-s -w ${stamps.join(' ')}`];
}

/**
 * The version line of the Go on the PATH, or undefined when there is none. An older Go gets the one that `go.mod`
 * asks for by itself; when it cannot, that is an error that says so.
 */
export async function findGo(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const { code, stdout, stderr } = await run('go', ['version'], { cwd: SOURCE_FOLDER, env });
  if (code === COMMAND_NOT_FOUND) return undefined;
  if (code !== 0) throw goError('go version', stderr);
  return stdout.trim();
}

/**
 * Builds etcd, kube-apiserver, kubectl, kube-controller-manager and helm into `folder`: 6 to 10 minutes on 2 cores
 * with nothing cached, well below a minute with Go's own cache. Go checks each module against `go.sum`.
 */
export async function buildWithGo(folder: string, env: NodeJS.ProcessEnv, progress: Progress): Promise<void> {
  const { os, arch } = currentPlatform();
  // Beside the result, so that the work folder of a killed build goes with it.
  const work = join(folder, '.go-build');
  await mkdir(work);
  // GOWORK: a workspace file in a parent folder is somebody else's. GOOS, GOARCH: the binaries are run right here.
  const goEnv = { ...env, CGO_ENABLED: '0', GOWORK: 'off', GOOS: os, GOARCH: arch, GOTMPDIR: work };

  let downloaded = 0;
  const recordDownload = (line: string): boolean => {
    if (!line.startsWith('go: downloading ')) return false;
    downloaded += 1;
    progress.update(`downloading Go modules, ${downloaded} so far`);
    return true;
  };
  const list = await run('go', ['list', '-mod=readonly', '-deps', 'tool'], {
    cwd: SOURCE_FOLDER,
    env: goEnv,
    onStderrLine: recordDownload,
  });
  if (list.code !== 0) throw goError('go list', list.stderr);
  const total = list.stdout.split('\n').length - 1;

  let compiled = 0;
  const report = (): void => {
    // Packages that Go has cached are not named by -v: the count may end below the total.
    progress.update(`go build: ${compiled} of at most ${total} packages compiled`);
  };
  // The linker works for minutes without a word.
  const ticker = setInterval(report, 1000);
  try {
    const flags = await goBuildFlags();
    const build = await run('go', ['build', '-v', ...flags, '-o', folder, 'tool'], {
      cwd: SOURCE_FOLDER,
      env: goEnv,
      onStderrLine(line) {
        if (!recordDownload(line)) compiled += 1;
      },
    });
    if (build.code !== 0) throw goError('go build', build.stderr);
  } finally {
    clearInterval(ticker);
  }
  // Go names a program after its package's folder, and etcd's is `server`.
  await rename(join(folder, 'server'), join(folder, 'etcd'));
  await rm(work, { recursive: true, force: true });
}

function goError(command: string, stderr: string): ControlPlaneError {
  return new ControlPlaneError(`\`${command}\` in control-plane/ failed: ${lastLines(stderr, ERROR_LINES)}`);
}
