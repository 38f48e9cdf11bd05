/** The steps of the demo with real Envoys. At the end of each step, the ReverseTunnels match the tunnels that are up. */
import { setTimeout as delay } from 'node:timers/promises';
import type { InitiatorIdentity } from '../envoy/bootstrap.ts';
import { ENVOY_RELEASES } from '../envoy/releases.ts';
import { resolveEnvoys } from '../envoy/resolve.ts';
import { startOperatorProcess } from '../test/support/operator-process.ts';
import type { Cluster } from './cluster.ts';
import { DemoError } from './errors.ts';
import { startEnvoyNetwork, type EnvoyNetwork } from './envoy-network.ts';
import { exportPath } from './kubectl.ts';
import type { runSteps, StepsOptions } from './steps.ts';

/** A hung initiator is noticed after 7 to 9 s, a tunnel returns within 11 s, and the agent waits for 15 s. */
const STEP_DEADLINE_MS = 90_000;
const POLL_INTERVAL_MS = 50;
const REVERSE_TUNNELS = 'reversetunnels';

const INITIATORS: readonly [InitiatorIdentity, InitiatorIdentity, InitiatorIdentity] = [
  { node: 'node-1', cluster: 'eu-1', tenant: 'acme' },
  { node: 'node-2', cluster: 'eu-1', tenant: 'acme' },
  { node: 'node-3', cluster: 'us-1', tenant: 'globex' },
];

interface DemoObject {
  readonly metadata: { readonly uid: string };
  readonly spec: { readonly tenantID: string; readonly nodeID: string };
  readonly status: { readonly state: string };
}

/**
 * Finds or downloads an Envoy. Rejects with an EnvoyError if there is none.
 *
 * @returns a function that runs all steps. It rejects with a DemoError if the ReverseTunnels do not match the tunnels, or
 *   if interrupted
 */
export async function prepareEnvoySteps(): Promise<typeof runSteps> {
  const [envoy] = await resolveEnvoys({ releases: ENVOY_RELEASES.slice(0, 1) });
  if (envoy === undefined) throw new DemoError('no Envoy');
  console.log(`Envoy ${envoy.version} (${envoy.path})`);
  return (cluster, options) => runEnvoySteps(envoy.path, cluster, options);
}

async function runEnvoySteps(
  envoyPath: string,
  cluster: Cluster,
  { stayUp, interrupted }: StepsOptions,
): Promise<void> {
  const operator = await startOperatorProcess({
    kubeconfigPath: cluster.operatorKubeconfigPath,
    namespace: cluster.namespace,
    flags: ['--grpc-address', '127.0.0.1:0', '--report-interval', '500ms'],
  });
  try {
    await using network = await startEnvoyNetwork(envoyPath, operator.grpcAddress);
    const steps = new EnvoySteps(cluster, interrupted);
    const [first, second, third] = INITIATORS;

    const [killed, hung] = await steps.run(
      'Three Envoys open a tunnel each to a standard Envoy',
      INITIATORS,
      async () => [
        await network.startInitiator(first),
        await network.startInitiator(second),
        await network.startInitiator(third),
      ],
    );
    await steps.show('get', 'rt');
    await steps.show('get', 'rtr');

    await steps.run('A request for node-3 goes through its tunnel', INITIATORS, async () => {
      await steps.request(network, third.node, '200 hello from node-3');
    });

    await steps.run('node-1 is killed: its ReverseTunnel is deleted', [second, third], async () => {
      await killed?.envoy.kill();
    });
    await steps.request(network, first.node, '503 ');
    await steps.show('get', 'rt');

    await steps.run('node-2 hangs (SIGSTOP): its keepalive times out', [third], () => hung?.envoy.pause());
    await steps.show('get', 'rt');

    await steps.run('node-2 continues: it reconnects', [second, third], () => hung?.envoy.resume());
    await steps.show('get', 'rt');

    const before = await steps.objects();
    await steps.run(
      'The standard Envoy restarts: the ReverseTunnels of tunnels that return are kept',
      [second, third],
      async () => {
        await network.restartResponder();
        await steps.waitForReporter('False');
        console.log('  the reporter is disconnected; its ReverseTunnels stay');
        await steps.waitForReporter('True');
      },
    );
    const after = await steps.objects();
    if (uids(after) !== uids(before)) throw new DemoError('the restart deleted a ReverseTunnel');
    console.log('  both ReverseTunnels kept their uid');
    await steps.request(network, third.node, '200 hello from node-3');
    await steps.show('get', 'rt');
    if (stayUp) await stayUpUntilInterrupted(cluster, network, interrupted);
  } finally {
    await operator.stop();
  }
}

class EnvoySteps {
  readonly #cluster: Cluster;
  readonly #interrupted: AbortSignal;
  #number = 0;

  constructor(cluster: Cluster, interrupted: AbortSignal) {
    this.#cluster = cluster;
    this.#interrupted = interrupted;
  }

  /** Executes `act`, waits until exactly these initiators have a connected ReverseTunnel, and prints the result. */
  async run<T>(
    title: string,
    connected: readonly InitiatorIdentity[],
    act: () => T | Promise<T>,
  ): Promise<T> {
    this.#number += 1;
    console.log(`\n── ${this.#number}. ${title}`);
    const startedMs = performance.now();
    const result = await act();
    const expected = connected.map(({ tenant, node }) => `${tenant}/${node} Connected`).join(', ');
    await this.#waitFor(
      `ReverseTunnels ${expected}`,
      async () => describe(await this.objects()) === expected,
    );
    const ms = Math.round(performance.now() - startedMs);
    const match =
      connected.length === 1
        ? '1 ReverseTunnel matches the tunnel'
        : `${connected.length} ReverseTunnels match the tunnels`;
    console.log(`✔ ${match} that ${connected.length === 1 ? 'is' : 'are'} up (${ms} ms)`);
    return result;
  }

  /** Returns the ReverseTunnels by node ID. */
  async objects(): Promise<DemoObject[]> {
    const objects = await this.#list<DemoObject>(REVERSE_TUNNELS);
    return objects.toSorted((a, b) => (a.spec.nodeID < b.spec.nodeID ? -1 : 1));
  }

  /** Waits until the condition Connected of the only reporter has this status. */
  async waitForReporter(status: 'True' | 'False'): Promise<void> {
    await this.#waitFor(`Connected=${status} of the reporter`, async () => {
      const [reporter] = await this.#list<{
        readonly status?: {
          readonly conditions?: readonly { readonly type: string; readonly status: string }[];
        };
      }>('reversetunnelreporters');
      return (
        reporter?.status?.conditions?.some((each) => each.type === 'Connected' && each.status === status) ===
        true
      );
    });
  }

  /** Sends a request through a tunnel until the response begins with `expected`, and prints it. */
  async request(network: EnvoyNetwork, node: string, expected: string): Promise<void> {
    let response = '';
    await this.#waitFor(`a response from ${node} that begins with ${expected}`, async () => {
      response = await network.request(node);
      return response.startsWith(expected);
    });
    console.log(`\n  $ curl http://${network.requestAddress}/ -H 'x-node-id: ${node}'\n  ${response}`);
  }

  /** Runs kubectl, and prints the command and its output. */
  async show(...args: string[]): Promise<void> {
    const text = await this.#cluster.kubectl(...args);
    console.log(`\n  $ kubectl ${args.join(' ')}`);
    for (const line of text.trimEnd().split('\n')) console.log(`  ${line}`);
  }

  async #list<T>(plural: string): Promise<readonly T[]> {
    const { namespace, request } = this.#cluster;
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/${plural}`;
    const { status, body } = await request('GET', path);
    if (status !== 200) throw new DemoError(`list ${plural}: ${status}`);
    return (body as { readonly items: readonly T[] }).items;
  }

  async #waitFor(what: string, isTrue: () => Promise<boolean>): Promise<void> {
    const untilMs = performance.now() + STEP_DEADLINE_MS;
    while (!(await isTrue())) {
      if (this.#interrupted.aborted) throw new DemoError('interrupted');
      if (performance.now() > untilMs) {
        throw new DemoError(
          `not within ${STEP_DEADLINE_MS / 1000} s: ${what}; found ${describe(await this.objects())}`,
        );
      }
      await delay(POLL_INTERVAL_MS);
    }
  }
}

function describe(objects: readonly DemoObject[]): string {
  return objects.map(({ spec, status }) => `${spec.tenantID}/${spec.nodeID} ${status.state}`).join(', ');
}

function uids(objects: readonly DemoObject[]): string {
  return objects.map(({ metadata }) => metadata.uid).join(' ');
}

/** Prints commands to try, and waits until Ctrl-C. */
async function stayUpUntilInterrupted(
  cluster: Cluster,
  network: EnvoyNetwork,
  interrupted: AbortSignal,
): Promise<void> {
  const namespaceFlag = cluster.namespace === 'default' ? '' : ` -n ${cluster.namespace}`;
  console.log(`
── Everything keeps running. In another terminal:

  export KUBECONFIG=${cluster.kubeconfigPath}
${exportPath(cluster)}
  kubectl${namespaceFlag} get rt -w
  curl http://${network.requestAddress}/ -H 'x-node-id: node-3'

Ctrl-C stops and removes everything.`);
  if (interrupted.aborted) return;
  await new Promise<void>((resolve) => interrupted.addEventListener('abort', () => resolve()));
}
