import { systemClock } from '../clock.ts';
import { EXIT_FAILURE } from '../flags.ts';
import { ApiError } from '../k8s/api-error.ts';
import { ConnectionError } from '../k8s/connection.ts';
import { openCluster, type Cluster } from './cluster.ts';
import type { KubectlFlags } from './kubectl-flags.ts';
import { EXIT_INTERRUPTED, type Terminal } from './terminal.ts';

/**
 * Runs a command on the cluster that its flags select, and closes the cluster. An error of the connection or of the API
 * server is printed in one line.
 *
 * @param action returns the exit code
 */
export async function runOnCluster(
  command: string,
  flags: KubectlFlags,
  env: Readonly<Record<string, string | undefined>>,
  terminal: Terminal,
  action: (cluster: Cluster) => Promise<number>,
): Promise<number> {
  let cluster: Cluster | undefined;
  try {
    cluster = await openCluster(flags, env, systemClock, terminal, command);
    return await action(cluster);
  } catch (error) {
    if (terminal.interrupted.aborted) return EXIT_INTERRUPTED;
    if (!(error instanceof ConnectionError || error instanceof ApiError)) throw error;
    terminal.err(`${command}: ${error.message}\n`);
    return EXIT_FAILURE;
  } finally {
    await cluster?.close();
  }
}
