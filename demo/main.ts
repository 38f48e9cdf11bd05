/**
 * `npm run demo`: a control plane, the operator and a fleet of reporters on this machine, and what comes of it, step
 * by step. Each step is checked: the rows in the API must equal what the fleet holds.
 */
import { parseArgs } from 'node:util';
import { openCluster, type Cluster } from './cluster.ts';
import { runSteps } from './steps.ts';

const HELP = `Usage: npm run demo [-- FLAG ...]

Starts etcd and kube-apiserver (fetched or built once), the operator, and a fleet of simulated reporters in front of
it; shows what the operator does; then stays up to be played with, until Ctrl-C.

  --once             end after the last step; exit code 0 only if the ReverseTunnels matched the fleet at each step
  --kubeconfig FILE  use the cluster of this kubeconfig: applies the CRDs and makes a namespace that goes at the end (the CRDs stay)
  --help
`;

/** What shells give for a program that Ctrl-C ended. */
const EXIT_INTERRUPTED = 130;

process.exitCode = await main();

async function main(): Promise<number> {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        once: { type: 'boolean', default: false },
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
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
  let cluster: Cluster | undefined;
  try {
    cluster = await openCluster(values.kubeconfig);
    await runSteps(cluster, { stayUp: !values.once, interrupted: interrupted.signal });
    return 0;
  } catch (error) {
    if (interrupted.signal.aborted) return EXIT_INTERRUPTED;
    process.stderr.write(`demo: ${(error as Error).message}\n`);
    return 1;
  } finally {
    await cluster?.close();
  }
}
