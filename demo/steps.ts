/** What the demo shows, in order; each step ends with the rows equal to what the fleet holds. */
import { createFleet, type Fleet } from '../src/simulate/fleet.ts';
import { poll, startOperatorProcess, type OperatorProcess } from '../test/support/operator-process.ts';
import { waitForMatch, type ObservedTunnelObject } from '../test/support/expected-objects.ts';
import { type Cluster, DemoError } from './cluster.ts';

const SYNC_DEADLINE_MS = 60_000;
/** Rows of a table that are shown; the rest is counted. */
const MAX_TABLE_LINES = 6;
const FLEET = { reporters: 4, tunnels: 25, tenants: 3, clusters: 2, churnPerSecond: 1 };

/** How long the demo goes on. */
export interface StepsOptions {
  /** Go on with a little churn when the steps are over, until Ctrl-C. */
  readonly stayUp: boolean;
  /** Ends the demo at the next step, or the staying up. */
  readonly interrupted: AbortSignal;
}

/** Plays all steps. Rejects with a DemoFailure when the rows are not what the fleet holds, or when interrupted. */
export async function runSteps(cluster: Cluster, { stayUp, interrupted }: StepsOptions): Promise<void> {
  let operator = await startOperator(cluster);
  const fleet = createFleet({ address: operator.grpcAddress, ...FLEET, connectRetryIntervalMs: 500 });
  const steps = new Steps(cluster, fleet, interrupted);
  try {
    await fleet.start();
    // Until the steps are over nothing is to change by itself.
    fleet.pauseChurn();
    await steps.run(`${FLEET.reporters} Envoys connect, each holding ${FLEET.tunnels} tunnels`, async () => {
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
      const isRecreated = (row: ObservedTunnelObject): boolean =>
        row.metadata.name === deleted.metadata.name && row.metadata.uid !== deleted.metadata.uid;
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

  /** Does something, then waits until the rows are what the fleet holds, and says so. */
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

  /** The rows, once they equal the truth. */
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

  /** Runs kubectl as a person would, and prints what it prints. */
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

/** Stays up until Ctrl-C, and says what can be tried. */
async function stayUpUntilInterrupted(
  cluster: Cluster,
  operator: OperatorProcess,
  interrupted: AbortSignal,
): Promise<void> {
  const namespaceFlag = cluster.namespace === 'default' ? '' : ` -n ${cluster.namespace}`;
  console.log(`
── All of it stays up. In another terminal:

  export KUBECONFIG=${cluster.kubeconfigPath}
  export PATH="$PATH:${cluster.kubectlFolder}"
  kubectl${namespaceFlag} get rt
  kubectl${namespaceFlag} get rt -w
  kubectl${namespaceFlag} get rt --field-selector spec.tenantID=tenant-1 -o wide
  kubectl explain rt.spec --recursive
  curl -s http://${operator.httpAddress}/metrics | grep ^reverse_tunnel
  npm run simulate -- --address ${operator.grpcAddress} --reporters 3 --tunnels 50 --churn 5

Ctrl-C ends it and removes everything.`);
  if (interrupted.aborted) return;
  await new Promise<void>((resolve) => interrupted.addEventListener('abort', () => resolve()));
}
