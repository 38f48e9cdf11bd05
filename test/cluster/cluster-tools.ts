/** kubectl, helm and other programs in the network of the node. */
import type { ChildProcess } from 'node:child_process';
import { createDisposableFolder, spawnGuarded } from '../../control-plane/process-supervisor.ts';
import { lastLines, run, type RunResult } from '../../control-plane/run.ts';
import { commandIn, type RunningNode } from '../../cluster/node.ts';

/** Longer than any `--timeout` of kubectl and helm in these tests. */
const COMMAND_TIMEOUT_MS = 600_000;
const ERROR_LINES = 6;

/** A major version of Helm. */
export type HelmVersion = 3 | 4;

/** Programs that act on one node. */
export interface ClusterTools {
  readonly node: RunningNode;
  /** Runs a command; any exit code is a result. */
  readonly run: (command: readonly string[], input?: string) => Promise<RunResult>;
  /** Starts a command that ends with this process. */
  readonly start: (command: readonly string[]) => ChildProcess;
  /** Runs kubectl and returns its output. @throws Error with the last lines of stderr */
  readonly kubectl: (...args: readonly string[]) => Promise<string>;
  /** Applies manifests. @throws Error if the API server rejects one */
  readonly apply: (manifests: string, ...args: readonly string[]) => Promise<void>;
  /** Runs helm and returns its output. @throws Error with the last lines of stderr */
  readonly helm: (version: HelmVersion, ...args: readonly string[]) => Promise<string>;
  /** Reports the state of a long operation. */
  readonly update: (text: string) => void;
  /** Removes the files that helm has written. */
  readonly dispose: () => Promise<void>;
}

/** @param helm3 the path of Helm 3; Helm 4 belongs to the control plane */
export async function createClusterTools(
  node: RunningNode,
  helm3: string,
  update: (text: string) => void,
): Promise<ClusterTools> {
  const home = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-cluster-');
  const helmEnv = { HELM_CACHE_HOME: home.path, HELM_CONFIG_HOME: home.path, HELM_DATA_HOME: home.path };
  const tools = (words: readonly string[]): ReturnType<typeof commandIn> => {
    const result = commandIn(node, words);
    return { ...result, env: { ...result.env, ...helmEnv } };
  };
  const runCommand = async (words: readonly string[], input?: string): Promise<RunResult> => {
    const { command, args, env } = tools(words);
    return await run(command, args, {
      cwd: process.cwd(),
      env,
      timeoutMs: COMMAND_TIMEOUT_MS,
      ...(input === undefined ? {} : { input }),
    });
  };
  const succeed = async (words: readonly string[], input?: string): Promise<string> => {
    const { code, stdout, stderr } = await runCommand(words, input);
    if (code === 0) return stdout;
    const shown = words.map((word) => word.slice(0, 80)).join(' ');
    throw new Error(`${shown}: exit code ${code}: ${lastLines(stderr || stdout, ERROR_LINES)}`);
  };
  return {
    node,
    run: runCommand,
    start(words) {
      const { command, args, env } = tools(words);
      return spawnGuarded(command, args, { cwd: process.cwd(), env, stdio: ['ignore', 'pipe', 'pipe'] });
    },
    kubectl: (...args) => succeed(['kubectl', ...args]),
    async apply(manifests, ...args) {
      await succeed(['kubectl', 'apply', '--server-side', '-f', '-', ...args], manifests);
    },
    helm: (version, ...args) => succeed([version === 3 ? helm3 : 'helm', ...args]),
    update,
    dispose: home.dispose,
  };
}
