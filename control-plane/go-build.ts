/** Builds binaries from the Go modules that `go.mod` pins. */
import { mkdir, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { currentPlatform, pinnedVersion, SOURCE_FOLDER } from './binaries.ts';
import type { BinaryName } from './binaries.ts';
import { ControlPlaneError } from './errors.ts';
import type { Progress } from './progress.ts';
import { COMMAND_NOT_FOUND, lastLines, run } from './run.ts';

/** The package of each program; the `tool` lines of `go.mod` list the same. */
const PACKAGES: Readonly<Record<BinaryName, string>> = {
  etcd: 'go.etcd.io/etcd/server/v3',
  'kube-apiserver': 'k8s.io/kubernetes/cmd/kube-apiserver',
  kubectl: 'k8s.io/kubernetes/cmd/kubectl',
  'kube-controller-manager': 'k8s.io/kubernetes/cmd/kube-controller-manager',
  helm: 'helm.sh/helm/v4/cmd/helm',
  kubelet: 'k8s.io/kubernetes/cmd/kubelet',
  'kube-proxy': 'k8s.io/kubernetes/cmd/kube-proxy',
  'kube-scheduler': 'k8s.io/kubernetes/cmd/kube-scheduler',
};
/** Lines of compiler output in an error: enough for a message of the linker or of a module proxy. */
const ERROR_LINES = 6;

/**
 * Returns the flags of `go build`, except for the output path. `-s -w` omits the symbol table and DWARF. The version is
 * set by the linker: without it, a server reports v0.0.0, and clients that compare versions misinterpret that.
 */
export async function goBuildFlags(): Promise<string[]> {
  const version = await pinnedVersion('k8s.io/kubernetes');
  const [major = '', minor = ''] = version.slice(1).split('.');
  const stamps = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap((target) => [
    `-X ${target}.gitVersion=${version}`,
    `-X ${target}.gitMajor=${major}`,
    `-X ${target}.gitMinor=${minor}`,
  ]);
  // readonly: builds exactly what go.sum lists, whatever GOFLAGS contains.
  return [
    '-mod=readonly',
    '-trimpath',
    '-buildvcs=false',
    // The linker would omit it anyway; without it, the compiler has less to do.
    '-gcflags=all=-dwarf=false',
    '-ldflags',
    `-s -w ${stamps.join(' ')}`,
  ];
}

/**
 * Returns the version line of the Go on the PATH, or undefined if there is none. An older Go downloads the toolchain
 * that `go.mod` requires.
 *
 * @throws ControlPlaneError if it cannot
 */
export async function findGo(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const { code, stdout, stderr } = await run('go', ['version'], { cwd: SOURCE_FOLDER, env });
  if (code === COMMAND_NOT_FOUND) return undefined;
  if (code !== 0) throw goError('go version', SOURCE_FOLDER, stderr);
  return stdout.trim();
}

/**
 * Builds programs of the control plane into `folder`. All of them take 6 to 10 minutes on 2 cores, and well below a
 * minute with Go's build cache.
 */
export async function buildWithGo(
  folder: string,
  names: readonly BinaryName[],
  env: NodeJS.ProcessEnv,
  progress: Progress,
): Promise<void> {
  const packages = names.map((name) => PACKAGES[name]);
  await buildPackages({ folder, modules: SOURCE_FOLDER, packages, env, progress });
  // Go names a program after the folder of its package, which is `server` for etcd.
  if (names.includes('etcd')) await rename(join(folder, 'server'), join(folder, 'etcd'));
}

/** What Go builds, and where. */
export interface GoBuild {
  /** Receives the programs, each named after the folder of its package. */
  readonly folder: string;
  /** The folder of the `go.mod` that pins the modules. */
  readonly modules: string;
  readonly packages: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly progress: Progress;
}

/**
 * Builds packages with the flags of `goBuildFlags`, so that all programs of this project share Go's build cache. Go
 * verifies each module against `go.sum`.
 *
 * @throws ControlPlaneError if it fails
 */
export async function buildPackages({ folder, modules, packages, env, progress }: GoBuild): Promise<void> {
  const { os, arch } = currentPlatform();
  // Inside the folder, so that it is removed together with the result of a killed build.
  const work = join(folder, '.go-build');
  await mkdir(work);
  // GOWORK: a workspace file in a parent folder must not apply. GOOS, GOARCH: the binaries run on this machine.
  const goEnv = {
    // The compiler collects garbage less often, up to a limit that fits machines with little memory.
    GOGC: '400',
    GOMEMLIMIT: '1500MiB',
    ...env,
    CGO_ENABLED: '0',
    GOWORK: 'off',
    GOOS: os,
    GOARCH: arch,
    GOTMPDIR: work,
  };

  let downloaded = 0;
  const recordDownload = (line: string): boolean => {
    if (!line.startsWith('go: downloading ')) return false;
    downloaded += 1;
    progress.update(`downloading Go modules, ${downloaded} so far`);
    return true;
  };
  const list = await run('go', ['list', '-mod=readonly', '-deps', ...packages], {
    cwd: modules,
    env: goEnv,
    onStderrLine: recordDownload,
  });
  if (list.code !== 0) throw goError('go list', modules, list.stderr);
  const total = list.stdout.split('\n').length - 1;

  let compiled = 0;
  const report = (): void => {
    // -v does not print cached packages, so the count may stay below the total.
    progress.update(`go build: ${compiled} of at most ${total} packages compiled`);
  };
  // The linker runs for minutes without any output.
  const ticker = setInterval(report, 1000);
  try {
    const flags = await goBuildFlags();
    const build = await run('go', ['build', '-v', ...flags, '-o', folder, ...packages], {
      cwd: modules,
      env: goEnv,
      onStderrLine(line) {
        if (!recordDownload(line)) compiled += 1;
      },
    });
    if (build.code !== 0) throw goError('go build', modules, build.stderr);
  } finally {
    clearInterval(ticker);
  }
  await rm(work, { recursive: true, force: true });
}

function goError(command: string, modules: string, stderr: string): ControlPlaneError {
  return new ControlPlaneError(
    `\`${command}\` in ${basename(modules)}/ failed: ${lastLines(stderr, ERROR_LINES)}`,
  );
}
