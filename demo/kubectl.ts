import { join } from 'node:path';
import { ControlPlaneError } from '../control-plane/errors.ts';
import { findInPath } from '../control-plane/executables.ts';
import { resolveBinaries } from '../control-plane/resolve.ts';
import { run, type RunResult } from '../control-plane/run.ts';
import type { Cluster } from './cluster.ts';
import { DemoError } from './errors.ts';

/** An installed kubectl. */
export interface Kubectl {
  readonly path: string;
  readonly folder: string;
}

const TIMEOUT_MS = 60_000;

/** Returns the kubectl that is cached or on the PATH; undefined if there is none. */
export async function findKubectl(): Promise<Kubectl | undefined> {
  try {
    const { folder } = await resolveBinaries(['kubectl'], { allow: 'cache' });
    return { folder, path: join(folder, 'kubectl') };
  } catch (error) {
    if (!(error instanceof ControlPlaneError)) throw error;
  }
  const folder = await findInPath(['kubectl'], process.env);
  return folder === undefined ? undefined : { folder, path: join(folder, 'kubectl') };
}

/** Returns a kubectl, which is downloaded or built if necessary. */
export async function provideKubectl(): Promise<Kubectl> {
  const found = await findKubectl();
  if (found !== undefined) return found;
  const { folder } = await resolveBinaries(['kubectl']);
  return { folder, path: join(folder, 'kubectl') };
}

/** Returns a line of shell that adds kubectl to the PATH, or a comment where there is none. */
export function exportPath({ kubectlFolder }: Pick<Cluster, 'kubectlFolder'>): string {
  return kubectlFolder === undefined
    ? '  # kubectl is not installed: https://kubernetes.io/docs/tasks/tools/'
    : `  export PATH="$PATH:${kubectlFolder}"`;
}

/** Runs kubectl and returns its output. Rejects with a DemoError if it fails. */
export async function runKubectl({ path }: Kubectl, args: readonly string[]): Promise<string> {
  const result = await run(path, args, { cwd: process.cwd(), env: process.env, timeoutMs: TIMEOUT_MS });
  return requireSuccess(args, result);
}

/** Returns the output of kubectl. Throws a DemoError with its first line of stderr if it failed. */
export function requireSuccess(
  args: readonly string[],
  { code, stdout, stderr }: Pick<RunResult, 'code' | 'stdout' | 'stderr'>,
): string {
  if (code === 0) return stdout;
  const [line = `exit code ${code}`] = stderr.trim().split('\n');
  throw new DemoError(`kubectl ${args.join(' ')}: ${line}`);
}
