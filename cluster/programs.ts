/** The programs of the cluster: pinned, and cached below the user's cache folder. */
import { createHash } from 'node:crypto';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ALL_BINARIES, NODE_BINARIES } from '../control-plane/binaries.ts';
import { cacheRoot, installOnce } from '../control-plane/cache.ts';
import { errorMessage } from '../control-plane/errors.ts';
import { findMissing, isExecutable } from '../control-plane/executables.ts';
import { buildPackages, findGo, goBuildFlags } from '../control-plane/go-build.ts';
import type { Progress } from '../control-plane/progress.ts';
import { resolveBinaries } from '../control-plane/resolve.ts';
import { lastLines, run } from '../control-plane/run.ts';
import { BASE_PACKAGES, NPM_VERSION } from './base-folders.ts';
import { DEBIAN_SUITE, unpackDebian } from './debian.ts';
import { ClusterError } from './errors.ts';

const FOLDER = import.meta.dirname;
/** The packages of this folder's Go module, which are also the names of their programs. */
const GO_PROGRAMS = ['coredns', 'pause'] as const;
/** The root file system of the node, in which images are built as well. */
const PACKAGES = [
  ...[
    'base-files',
    'bash',
    'coreutils',
    'dash',
    'findutils',
    'grep',
    'mawk',
    'sed',
    'tar',
    'util-linux',
    'mount',
  ],
  ...[
    'containerd',
    'runc',
    'containernetworking-plugins',
    'iproute2',
    'nftables',
    'procps',
    'ca-certificates',
  ],
  ...['buildah', 'netavark', 'golang-github-containers-common'],
];
const HELM_3_VERSION = 'v3.22.0';

/** What decides what the cache contains, beyond the files of the Go module; the base images contain this Node. */
const PINS = [DEBIAN_SUITE, PACKAGES, HELM_3_VERSION, BASE_PACKAGES, NPM_VERSION, process.version];

/** Where programs come from, and who hears of it. */
export interface ProgramOptions {
  /** XDG_CACHE_HOME, HOME and PATH are read. */
  readonly env: NodeJS.ProcessEnv;
  readonly progress: Progress;
}

/** Folders with the programs of the node. */
export interface NodePrograms {
  /** Kubernetes, etcd, kubectl and helm. */
  readonly controlPlane: string;
  /** CoreDNS and the first process of each pod. */
  readonly cluster: string;
  /** Debian with containerd, runc and buildah. */
  readonly rootfs: string;
}

/** Returns the cache folder of everything in `cluster/`; a change of a pin selects another one. */
export async function clusterCache(env: NodeJS.ProcessEnv): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['go.mod', 'go.sum', 'coredns/main.go', 'pause/main.go'])
    hash.update(await readFile(join(FOLDER, file)));
  hash.update(JSON.stringify([PINS, await goBuildFlags()]));
  return join(cacheRoot(env), 'cluster', hash.digest('hex').slice(0, 12));
}

/**
 * Returns the programs of the node. The first time, Go builds those of Kubernetes (a minute if the control plane has
 * been built) and CoreDNS (90 s), and apt downloads 110 MB.
 *
 * @throws ClusterError or ControlPlaneError if a source is not available
 */
export async function resolveNodePrograms({ env, progress }: ProgramOptions): Promise<NodePrograms> {
  const cache = await clusterCache(env);
  const { folder: controlPlane } = await resolveBinaries([...ALL_BINARIES, ...NODE_BINARIES], {
    env,
    progress,
  });
  const cluster = join(cache, 'bin');
  await provide(
    cluster,
    async () => (await findMissing(cluster, GO_PROGRAMS)) === undefined,
    progress,
    async (folder) => {
      progress.log(`building ${GO_PROGRAMS.join(' and ')} (90 s the first time)`);
      await requireGo(env);
      await buildPackages({
        folder,
        modules: FOLDER,
        packages: GO_PROGRAMS.map((name) => `./${name}`),
        env,
        progress,
      });
    },
  );
  return { controlPlane, cluster, rootfs: await resolveRootfs({ env, progress }) };
}

/** Returns the root file system with containerd, runc and buildah. @throws ClusterError if apt fails */
export async function resolveRootfs({ env, progress }: ProgramOptions): Promise<string> {
  // One level deeper than the cache entry, so that a single rename completes it.
  const entry = join(await clusterCache(env), 'debian');
  const rootfs = join(entry, 'rootfs');
  await provide(
    entry,
    async () => await isExecutable(join(rootfs, 'usr', 'bin', 'containerd')),
    progress,
    async (folder) => {
      progress.log(`unpacking Debian ${DEBIAN_SUITE} with containerd and buildah`);
      const partial = join(folder, 'rootfs');
      await mkdir(partial);
      await unpackDebian({ folder: partial, packages: PACKAGES, env, progress });
    },
  );
  return rootfs;
}

/** Returns the path of Helm 3, which Go builds the first time (75 s). @throws ClusterError if it cannot */
export async function resolveHelm3({ env, progress }: ProgramOptions): Promise<string> {
  const entry = join(await clusterCache(env), 'helm-3');
  const program = join(entry, 'helm');
  await provide(
    entry,
    async () => await isExecutable(program),
    progress,
    async (folder) => {
      progress.log(`building Helm ${HELM_3_VERSION} (75 s the first time)`);
      await requireGo(env);
      // Go verifies the module and what it requires against the public checksum database.
      const { code, stderr } = await run(
        'go',
        ['install', ...(await goBuildFlags()).slice(1), `helm.sh/helm/v3/cmd/helm@${HELM_3_VERSION}`],
        {
          cwd: folder,
          env: { ...env, GOBIN: folder, CGO_ENABLED: '0', GOWORK: 'off', GOFLAGS: '' },
        },
      );
      if (code !== 0)
        throw new ClusterError(`cannot build Helm 3: ${lastLines(stderr, 2) || `exit code ${code}`}`);
    },
  );
  return program;
}

async function provide(
  target: string,
  isInstalled: () => Promise<boolean>,
  progress: Progress,
  fill: (folder: string) => Promise<void>,
): Promise<void> {
  if (!(await isInstalled())) await installOnce(target, isInstalled, fill, progress);
}

async function requireGo(env: NodeJS.ProcessEnv): Promise<void> {
  let reason = 'no `go` on the PATH';
  try {
    if ((await findGo(env)) !== undefined) return;
  } catch (error) {
    reason = errorMessage(error);
  }
  throw new ClusterError(`${reason}; install Go 1.26 or later`);
}
