/** The steps of the demo. At the end of each step, the ReverseTunnels match the tunnels of the fleet. */
import { createFleet, type Fleet } from '../src/simulate/fleet.ts';
import { poll, startOperatorProcess, type OperatorProcess } from '../test/support/operator-process.ts';
import { waitForMatch, type ObservedTunnelObject } from '../test/support/expected-objects.ts';
import type { Cluster } from './cluster.ts';
import { exportPath } from './kubectl.ts';
import { DemoError } from './errors.ts';
import { drawPicture } from './picture.ts';

const SYNC_DEADLINE_MS = 60_000;
/** The maximum number of printed table lines. */
const MAX_TABLE_LINES = 6;
const FLEET = { reporters: 4, tunnels: 25, tenants: 3, clusters: 2, churnPerSecond: 1 };

/** When the demo ends. */
export interface StepsOptions {
  /** Whether to keep running with churn after the last step, until Ctrl-C. */
  readonly stayUp: boolean;
  /** Ends the demo before the next step, or while it keeps running. */
  readonly interrupted: AbortSignal;
}

/** Runs all steps. Rejects with a DemoError if the ReverseTunnels do not match the fleet, or if interrupted. */
export async function runSteps(cluster: Cluster, { stayUp, interrupted }: StepsOptions): Promise<void> {
  let operator = await startOperator(cluster);
  const fleet = createFleet({ address: operator.grpcAddress, ...FLEET, connectRetryIntervalMs: 500 });
  const steps = new Steps(cluster, fleet, interrupted);
  console.log(
    `\n${drawPicture({ ...FLEET, grpcAddress: operator.grpcAddress })}\n  Kubernetes API: ${cluster.description}`,
  );
  try {
    await fleet.start();
    // Only the steps should change tunnels.
    fleet.pauseChurn();
    await steps.run(`${FLEET.reporters} Envoys connect, each with ${FLEET.tunnels} tunnels`, async () => {
      await fleet.settled();
    });
    await steps.show('get', 'reversetunnels');
    await steps.showCounts(FLEET.tenants);

    const [reporter] = fleet.reporters;
    const [tunnel, second] = reporter?.expectedTunnels().values() ?? [];
    if (reporter === undefined || tunnel === undefined || second === undefined) {
      throw new DemoError('the fleet has no tunnels');
    }
    const selectTunnel = [
      '-l',
      `reverse-tunnel.io/node=${tunnel.nodeID},reverse-tunnel.io/reporter=${reporter.id.id}`,
    ];
    await steps.show('get', 'rt', ...selectTunnel);
    await steps.run(`The tunnel of ${tunnel.nodeID} drops: its ReverseTunnel is deleted`, async () => {
      reporter.disconnectTunnel(tunnel.name);
      await fleet.settled();
    });
    await steps.show('get', 'rt', ...selectTunnel);

    await steps.run(`The tunnel of ${tunnel.nodeID} reconnects: its ReverseTunnel is recreated`, async () => {
      reporter.connectTunnel(tunnel);
      await fleet.settled();
    });
    await steps.show('get', 'rt', ...selectTunnel);

    await steps.run(
      `${reporter.id.id} loses its connection and ten tunnels: its next full push lacks them`,
      async () => {
        for (const name of [...reporter.expectedTunnels().keys()].slice(0, 10))
          reporter.disconnectTunnel(name);
        reporter.resetConnection();
        await fleet.settled();
      },
    );
    await steps.showCounts(FLEET.tenants);

    const objects = await steps.objects();
    const [deleted] = objects;
    if (deleted === undefined) throw new DemoError('no ReverseTunnel objects');
    await steps.run('A ReverseTunnel is deleted manually: the operator recreates it', async () => {
      await steps.show('delete', 'rt', deleted.metadata.name);
      const isRecreated = ({ metadata }: ObservedTunnelObject): boolean =>
        metadata.name === deleted.metadata.name && metadata.uid !== deleted.metadata.uid;
      await poll(SYNC_DEADLINE_MS, async () =>
        (await steps.objects()).some(isRecreated) ? true : undefined,
      );
    });

    const before = resourceVersions(await steps.objects());
    await steps.run('The operator restarts: nothing is written again', async () => {
      await operator.stop();
      operator = await startOperator(cluster, operator.grpcAddress);
      const restarted = operator;
      await poll(SYNC_DEADLINE_MS, async () => {
        const pushes = await restarted.metric('reverse_tunnel_reports_total{kind="full"}');
        return pushes >= FLEET.reporters ? true : undefined;
      });
      await fleet.settled();
      const after = resourceVersions(await steps.objects());
      if (after !== before) throw new DemoError('the restart changed a ReverseTunnel');
      console.log(`  all ${fleet.tunnelCount()} ReverseTunnels kept their resourceVersion`);
    });
    await steps.show('get', 'rt', '--field-selector', 'spec.tenantID=tenant-1', '-o', 'wide');
    await steps.show('wait', '--for=condition=Ready', 'rt', '--all');
    if (stayUp) {
      fleet.resumeChurn();
      await stayUpUntilInterrupted(cluster, operator, interrupted);
    }
  } finally {
    await fleet.stop();
    await operator.stop();
  }
}

class Steps {
  readonly #cluster: Cluster;
  readonly #fleet: Fleet;
  readonly #interrupted: AbortSignal;
  #number = 0;

  constructor(cluster: Cluster, fleet: Fleet, interrupted: AbortSignal) {
    this.#cluster = cluster;
    this.#fleet = fleet;
    this.#interrupted = interrupted;
  }

  /** Executes `act`, then waits until the ReverseTunnels match the fleet, and prints the result. */
  async run(title: string, act: () => Promise<void>): Promise<void> {
    if (this.#interrupted.aborted) throw new DemoError('interrupted');
    this.#number += 1;
    console.log(`\n── ${this.#number}. ${title}`);
    const startedMs = performance.now();
    await act();
    const objects = await this.objects();
    const ms = Math.round(performance.now() - startedMs);
    console.log(
      `✔ ${objects.length} ReverseTunnels match the ${this.#fleet.tunnelCount()} tunnels that are up (${ms} ms)`,
    );
  }

  /** Returns the ReverseTunnels once they match the fleet. */
  async objects(): Promise<ObservedTunnelObject[]> {
    try {
      return await waitForMatch(
        this.#fleet,
        this.#cluster.request,
        this.#cluster.namespace,
        SYNC_DEADLINE_MS,
      );
    } catch (error) {
      throw new DemoError((error as Error).message, { cause: error });
    }
  }

  /** Runs kubectl, and prints the command and its output. */
  async show(...args: string[]): Promise<void> {
    const text = await this.#cluster.kubectl(...args);
    const lines = (text === '' ? 'No resources found.' : text.trimEnd()).split('\n');
    console.log(`\n  $ kubectl ${args.join(' ')}`);
    for (const line of lines.slice(0, MAX_TABLE_LINES + 1)) console.log(`  ${line}`);
    if (lines.length > MAX_TABLE_LINES + 1) console.log(`  … and ${lines.length - MAX_TABLE_LINES - 1} more`);
  }

  async showCounts(tenants: number): Promise<void> {
    console.log('\n  ReverseTunnels by tenant:');
    for (let i = 0; i < tenants; i += 1) {
      const selector = `reverse-tunnel.io/tenant=tenant-${i}`;
      const text = await this.#cluster.kubectl('get', 'rt', '-l', selector, '-o', 'name');
      console.log(`  ${String(text.trim().split('\n').length).padStart(4)}  kubectl get rt -l ${selector}`);
    }
  }
}

function startOperator(cluster: Cluster, grpcAddress = '127.0.0.1:0'): Promise<OperatorProcess> {
  return startOperatorProcess({
    kubeconfigPath: cluster.operatorKubeconfigPath,
    namespace: cluster.namespace,
    flags: ['--grpc-address', grpcAddress, '--report-interval', '500ms'],
  });
}

function resourceVersions(objects: readonly ObservedTunnelObject[]): string {
  return objects
    .map(({ metadata }) => `${metadata.name} ${metadata.resourceVersion}`)
    .toSorted()
    .join('\n');
}

/** Prints commands to try, and waits until Ctrl-C. */
async function stayUpUntilInterrupted(
  cluster: Cluster,
  operator: OperatorProcess,
  interrupted: AbortSignal,
): Promise<void> {
  const kubectl = cluster.namespace === 'default' ? 'kubectl' : `kubectl -n ${cluster.namespace}`;
  console.log(`
── Everything keeps running, and tunnels come and go. In another terminal:

  export KUBECONFIG=${cluster.kubeconfigPath}
${exportPath(cluster)}

  ${kubectl} get rt                    # tunnels
  ${kubectl} get rtr                   # the Envoys that report them
  ${kubectl} get rt -w                 # tunnels that come and go
  ${kubectl} get rt --field-selector spec.tenantID=tenant-1 -o wide
  ${kubectl} delete rt --all           # the operator recreates them
  kubectl explain rt.spec --recursive
  curl -s http://${operator.httpAddress}/metrics | grep ^reverse_tunnel
  npm run simulate -- --address ${operator.grpcAddress} --reporters 3 --tunnels 50 --churn 5

Next: your own Envoy and cluster, docs/quickstart.md. Ctrl-C stops and removes everything.`);
  if (interrupted.aborted) return;
  await new Promise<void>((resolve) => interrupted.addEventListener('abort', () => resolve()));
}
