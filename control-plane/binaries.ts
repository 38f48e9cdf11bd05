/** The programs of the control plane, their Kubernetes version, and the platform that they run on. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ControlPlaneError } from './errors.ts';

/** A program of the control plane; also the name of its file in `KUBEBUILDER_ASSETS` and in the cache folder. */
export type BinaryName =
  | 'etcd'
  | 'kube-apiserver'
  | 'kubectl'
  | 'kube-controller-manager'
  | 'helm'
  | 'kubelet'
  | 'kube-proxy'
  | 'kube-scheduler';

/** The programs of the control plane, built from the pinned Go modules. */
export const ALL_BINARIES: readonly BinaryName[] = [
  'etcd',
  'kube-apiserver',
  'kubectl',
  'kube-controller-manager',
  'helm',
];

/** The programs that make it a cluster with a node, built from the same modules only where `cluster/` needs them. */
export const NODE_BINARIES: readonly BinaryName[] = ['kubelet', 'kube-proxy', 'kube-scheduler'];

/** The programs in a published envtest archive; the others must be built. */
export const PUBLISHED_BINARIES: readonly BinaryName[] = ['etcd', 'kube-apiserver', 'kubectl'];

/** Operating system and architecture, with Go's names as in archives and builds. */
export interface Platform {
  readonly os: 'linux' | 'darwin';
  readonly arch: string;
}

/** Maps Node's architecture names to Go's, for the platforms that Kubernetes publishes binaries for. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  ppc64: 'ppc64le',
  s390x: 's390x',
};

/**
 * Returns the platform of this process. Only Linux and macOS are supported, because `process-supervisor.ts` needs a
 * POSIX shell.
 */
export function currentPlatform(): Platform {
  const os = process.platform;
  const arch = GO_ARCHITECTURES[process.arch];
  if ((os !== 'linux' && os !== 'darwin') || arch === undefined) {
    throw new ControlPlaneError(
      `unsupported platform ${os}/${process.arch}: the control plane needs Linux or macOS`,
    );
  }
  return { os, arch };
}

/** The folder that contains `go.mod`, `go.sum` and this file. */
export const SOURCE_FOLDER = import.meta.dirname;

/** Returns the version that `go.mod` pins for a module, such as `v1.37.2`. Versions are defined only there. */
export async function pinnedVersion(module: string): Promise<string> {
  const text = await readFile(join(SOURCE_FOLDER, 'go.mod'), 'utf8');
  for (const line of text.split('\n')) {
    const [name, version] = line
      .replace(/^require\s/, '')
      .trim()
      .split(/\s+/);
    if (name === module && version?.startsWith('v') === true) return version;
  }
  throw new ControlPlaneError(`control-plane/go.mod: no version of ${module}`);
}
