/** What the demo shows, in order; each step ends with the rows equal to what the fleet holds. */
import { createFleet, type Fleet } from '../src/simulate/fleet.ts';
import { poll, startOperatorProcess, type OperatorProcess } from '../test/support/operator-process.ts';
import { untilEqual, type RowSeen } from '../test/support/truth.ts';
import type { Cluster } from './cluster.ts';
import { DemoFailure } from './failure.ts';

const EQUAL_DEADLINE_MS = 60_000;
/** Rows of a table that are shown; the rest is counted. */
const SHOWN_ROWS = 6;
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
    await steps.step(`${FLEET.reporters} Envoys connect, each holding ${FLEET.tunnels} tunnels`, async () => {
      await fleet.settled();
    });
    await steps.show('get', 'reversetunnels');
    await steps.showCounts(FLEET.tenants);

    const [reporter] = fleet.reporters;
    const [tunnel, restless] = reporter?.truth().values() ?? [];
    if (reporter === undefined || tunnel === undefined || restless === undefined) {
      throw new DemoFailure('the fleet has no tunnels');
    }
    const selectTunnel = [
      '-l',
      `reverse-tunnel.io/node=${tunnel.nodeID},reverse-tunnel.io/reporter=${reporter.id.id}`,
    ];
    await steps.show('get', 'rt', ...selectTunnel);
    await steps.step(`The tunnel of ${tunnel.nodeID} drops: its ReverseTunnel is deleted`, async () => {
      reporter.disconnectTunnel(tunnel.name);
      await fleet.settled();
    });
    await steps.show('get', 'rt', ...selectTunnel);

    await steps.step(
      `The tunnel of ${tunnel.nodeID} reconnects: its ReverseTunnel is recreated`,
      async () => {
        reporter.connectTunnel(tunnel);
        await fleet.settled();
      },
    );
    await steps.show('get', 'rt', ...selectTunnel);

    await steps.step(
      `${reporter.id.id} loses its connection and ten tunnels: its next full push lacks them`,
      async () => {
        for (const name of [...reporter.truth().keys()].slice(0, 10)) reporter.disconnectTunnel(name);
        reporter.dropConnection();
        await fleet.settled();
      },
    );
    await steps.showCounts(FLEET.tenants);

    const rows = await steps.rows();
    const [victim] = rows;
    if (victim === undefined) throw new DemoFailure('no ReverseTunnel objects');
    await steps.step('A ReverseTunnel is deleted manually: the operator recreates it', async () => {
      await steps.show('delete', 'rt', victim.metadata.name);
      const returned = (row: RowSeen): boolean =>
        row.metadata.name === victim.metadata.name && row.metadata.uid !== victim.metadata.uid;
      await poll(EQUAL_DEADLINE_MS, async () => ((await steps.rows()).some(returned) ? true : undefined));
    });

    const before = versions(await steps.rows());
    await steps.step('The operator restarts: nothing is written again', async () => {
      await operator.stop();
      operator = await startOperator(cluster, operator.grpcAddress);
      const restarted = operator;
      await poll(EQUAL_DEADLINE_MS, async () => {
        const pushes = await restarted.metric('reverse_tunnel_reports_total{kind="full"}');
        return pushes >= FLEET.reporters ? true : undefined;
      });
      await fleet.settled();
      const after = versions(await steps.rows());
      if (after !== before) throw new DemoFailure('the restart changed a ReverseTunnel');
      console.log(`  all ${fleet.tunnelCount()} ReverseTunnels kept their resourceVersion`);
    });
    await steps.show('get', 'rt', '--field-selector', 'spec.tenantID=tenant-1', '-o', 'wide');
    await steps.show('wait', '--for=condition=Ready', 'rt', '--all');
    if (stayUp) {
      fleet.resumeChurn();
      await playground(cluster, operator, interrupted);
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
  async step(title: string, act: () => Promise<void>): Promise<void> {
    if (this.#interrupted.aborted) throw new DemoFailure('interrupted');
    this.#number += 1;
    console.log(`\n── ${this.#number}. ${title}`);
    const startedMs = performance.now();
    await act();
    const rows = await this.rows();
    const ms = Math.round(performance.now() - startedMs);
    console.log(
      `✔ ${rows.length} ReverseTunnels match the ${this.#fleet.tunnelCount()} tunnels that are up (${ms} ms)`,
    );
  }

  /** The rows, once they equal the truth. */
  async rows(): Promise<RowSeen[]> {
    try {
      return await untilEqual(this.#fleet, this.#cluster.request, this.#cluster.namespace, EQUAL_DEADLINE_MS);
    } catch (error) {
      throw new DemoFailure((error as Error).message, { cause: error });
    }
  }

  /** Runs kubectl as a person would, and prints what it prints. */
  async show(...args: string[]): Promise<void> {
    const text = await this.#cluster.kubectl(...args);
    const lines = (text === '' ? 'No resources found.' : text.trimEnd()).split('\n');
    console.log(`\n  $ kubectl ${args.join(' ')}`);
    for (const line of lines.slice(0, SHOWN_ROWS + 1)) console.log(`  ${line}`);
    if (lines.length > SHOWN_ROWS + 1) console.log(`  … and ${lines.length - SHOWN_ROWS - 1} more`);
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

function versions(rows: readonly RowSeen[]): string {
  return rows
    .map(({ metadata }) => `${metadata.name} ${metadata.resourceVersion}`)
    .toSorted()
    .join('\n');
}

/** Stays up until Ctrl-C, and says what can be tried. */
async function playground(
  cluster: Cluster,
  operator: OperatorProcess,
  interrupted: AbortSignal,
): Promise<void> {
  const own = cluster.namespace === 'default' ? '' : ` -n ${cluster.namespace}`;
  console.log(`
── All of it stays up. In another terminal:

  export KUBECONFIG=${cluster.kubeconfigPath}
  export PATH="$PATH:${cluster.kubectlFolder}"
  kubectl${own} get rt
  kubectl${own} get rt -w
  kubectl${own} get rt --field-selector spec.tenantID=tenant-1 -o wide
  kubectl explain rt.spec --recursive
  curl -s http://${operator.httpAddress}/metrics | grep ^reverse_tunnel
  npm run simulate -- --address ${operator.grpcAddress} --reporters 3 --tunnels 50 --churn 5

Ctrl-C ends it and removes everything.`);
  if (interrupted.aborted) return;
  await new Promise<void>((resolve) => interrupted.addEventListener('abort', () => resolve()));
}
