/** What the control plane is made of, and for which Kubernetes version and platform. */
import { constants } from 'node:fs';
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ControlPlaneError } from './errors.ts';

/** A program of the control plane; also its file's name in `KUBEBUILDER_ASSETS` and in the cache folder. */
export type BinaryName = 'etcd' | 'kube-apiserver' | 'kubectl' | 'kube-controller-manager' | 'helm';

/** Every program that the pinned Go modules give. */
export const ALL_BINARIES: readonly BinaryName[] = [
  'etcd',
  'kube-apiserver',
  'kubectl',
  'kube-controller-manager',
  'helm',
];

/** What a published envtest archive holds; the others have to be built. */
export const PUBLISHED_BINARIES: readonly BinaryName[] = ['etcd', 'kube-apiserver', 'kubectl'];

/** Operating system and architecture in Go's words, as archives and builds name them. */
export interface Platform {
  readonly os: 'linux' | 'darwin';
  readonly arch: string;
}

/** Node's words to Go's, for what Kubernetes publishes on Linux and macOS. */
const GO_ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  arm64: 'arm64',
  ppc64: 'ppc64le',
  s390x: 's390x',
};

/** The platform of this process. Linux and macOS only: children are guarded by a POSIX shell (see `lifeline.ts`). */
export function currentPlatform(): Platform {
  const os = process.platform;
  const arch = GO_ARCHITECTURES[process.arch];
  if ((os !== 'linux' && os !== 'darwin') || arch === undefined) {
    throw new ControlPlaneError(`The control plane runs on Linux and macOS, not on ${os}/${process.arch}.`);
  }
  return { os, arch };
}

/** The folder of `go.mod`, `go.sum` and this file. */
export const SOURCE_FOLDER = import.meta.dirname;

/** The version of a module that `go.mod` pins, such as `v1.37.2`; the one place where versions stand. */
export async function pinnedVersion(module: string): Promise<string> {
  const text = await readFile(join(SOURCE_FOLDER, 'go.mod'), 'utf8');
  for (const line of text.split('\n')) {
    const [name, version] = line
      .replace(/^require\s/, '')
      .trim()
      .split(/\s+/);
    if (name === module && version?.startsWith('v') === true) return version;
  }
  throw new ControlPlaneError(`control-plane/go.mod pins no version of ${module}.`);
}

/** The first of `names` that is not an executable file in `folder`; undefined when all are there. */
export async function findMissing(
  folder: string,
  names: readonly BinaryName[],
): Promise<BinaryName | undefined> {
  for (const name of names) {
    try {
      await access(join(folder, name), constants.X_OK);
    } catch {
      return name;
    }
  }
  return undefined;
}
