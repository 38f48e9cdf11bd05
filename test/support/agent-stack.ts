/** A standard Envoy with an agent and initiators, and the operator with a namespace of its own: real processes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reservePorts } from '../../control-plane/ports.ts';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { startAgent, type AgentProcess } from './agent-process.ts';
import { substituteExample } from '../../envoy/bootstrap.ts';
import { startEnvoy, type EnvoyProcess } from '../../envoy/process.ts';
import { eventually } from './eventually.ts';
import { initiatorOf } from './many-tunnels.ts';
import { OPERATOR_RBAC_RULES, startOperatorProcess, type OperatorProcess } from './operator-process.ts';
import { conditionText, type ObservedReporter } from './replicas.ts';
import { createNamespace } from './start-with-crds.ts';

/** Longer than the pause of an initiator whose responder was restarted, on a busy machine. */
const DEADLINE_MS = 60_000;

export interface ObservedTunnel {
  readonly metadata: { readonly uid: string; readonly creationTimestamp: string };
  readonly spec: {
    readonly tunnelName: string;
    readonly tenantID: string;
    readonly clusterID: string;
    readonly createdAt?: string;
  };
}

/** The processes of one test. All of them end with it. */
export type AgentStack = Awaited<ReturnType<typeof startAgentStack>>;

export async function startAgentStack(controlPlane: ControlPlaneClient, envoy: string) {
  const folder = await mkdtemp(join(tmpdir(), 'agent-'));
  const namespace = await createNamespace(controlPlane, 'agent');
  const reserved = await reservePorts(8);
  const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
  const { kubeconfigPath } = await controlPlane.kubeconfigFor(account);
  const lifecycleLog = join(folder, 'tunnels.log');
  const started: AsyncDisposable[] = [];

  const ports = (first: number): Record<string, number> => ({
    '0.0.0.0:9000': first,
    'responder.example.com:9000': first,
    '0.0.0.0:8085': first + 1,
    '127.0.0.1:9901': first + 2,
    // Nothing listens here, because no test sends a request through a tunnel.
    'backend.example.com:80': first + 3,
  });

  const startResponder = async (first: number, log: string): Promise<EnvoyProcess> => {
    const files = { '/var/log/envoy/tunnels.log': log };
    const process = await startEnvoy(
      envoy,
      await substituteExample('envoy-responder-standard.yaml', { ports: ports(first), files }),
    );
    started.push(process);
    return process;
  };
  const startOperator = async (grpcAddress: string): Promise<OperatorProcess> => {
    // As short as the poll interval, so that a test does not wait for the next report.
    const flags = ['--report-interval', '100ms', '--grpc-address', grpcAddress];
    const process = await startOperatorProcess({ kubeconfigPath, namespace, flags });
    started.push({ [Symbol.asyncDispose]: () => process.kill() });
    return process;
  };
  const runAgent = async (
    { adminAddress }: EnvoyProcess,
    flags: readonly string[],
  ): Promise<AgentProcess> => {
    const addresses = ['--address', operator.grpcAddress, '--admin', `http://${adminAddress}`];
    const agent = await startAgent([...addresses, '--poll-interval', '200ms', ...flags]);
    started.push(agent);
    return agent;
  };
  const list = async <T>(plural: string): Promise<readonly T[]> => {
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/${plural}`;
    const { body } = await controlPlane.request('GET', path);
    return (body as { readonly items: readonly T[] }).items;
  };

  let operator = await startOperator('127.0.0.1:0');
  let responder = await startResponder(reserved.first, lifecycleLog);

  return {
    namespace,
    lifecycleLog,
    get responder() {
      return responder;
    },
    get operator() {
      return operator;
    },
    /** Starts an initiator with one tunnel per node ID. */
    async startInitiator(...nodes: readonly string[]): Promise<EnvoyProcess> {
      const bootstrap = await substituteExample('envoy-initiator.yaml', {
        ports: { ...ports(reserved.first), '127.0.0.1:9901': 0 },
      });
      const initiator = await startEnvoy(envoy, initiatorOf(bootstrap, nodes));
      started.push(initiator);
      return initiator;
    },
    /** Kills the responder, and starts it again on the same ports. */
    async restartResponder(): Promise<void> {
      await responder.kill();
      await responder[Symbol.asyncDispose]();
      responder = await startResponder(reserved.first, lifecycleLog);
    },
    /** Starts another responder with the same node ID, on ports and with an agent of its own. */
    async startTwin(): Promise<void> {
      const twin = await startResponder(reserved.first + 4, join(folder, 'twin.log'));
      await runAgent(twin, ['--settle-time', '0', '--default-tenant', 'acme']);
    },
    stopOperator: (): Promise<void> => operator.kill(),
    /** Starts the operator again, on the same port. */
    async startOperator(): Promise<void> {
      operator = await startOperator(operator.grpcAddress);
    },
    /** Starts an agent next to the responder that polls every 200 ms. Further flags take precedence. */
    startAgent: (...flags: readonly string[]): Promise<AgentProcess> => runAgent(responder, flags),
    tunnels: () => list<ObservedTunnel>('reversetunnels'),
    /** Waits until exactly these tunnels have objects. */
    async waitForTunnels(...names: readonly string[]): Promise<readonly ObservedTunnel[]> {
      const expected = names.toSorted().join();
      let found: readonly ObservedTunnel[] = [];
      await eventually(
        `the ${names.length} objects are ${expected.slice(0, 100)}`,
        async () => {
          found = await list<ObservedTunnel>('reversetunnels');
          const actual = found.map(({ spec }) => spec.tunnelName);
          return actual.toSorted().join() === expected;
        },
        DEADLINE_MS,
        100,
      );
      return found;
    },
    /** Waits until a condition of the reporter has a status and, if it is given, a reason. */
    async waitForCondition(type: string, status: 'True' | 'False', reason?: string): Promise<void> {
      await eventually(
        `the condition ${type} is ${status} ${reason ?? ''}`,
        async () => {
          const [reporter] = await list<ObservedReporter>('reversetunnelreporters');
          const text = reporter === undefined ? '' : conditionText(reporter.status, type);
          return reason === undefined ? text.startsWith(`${status} `) : text === `${status} ${reason}`;
        },
        DEADLINE_MS,
        100,
      );
    },
    async [Symbol.asyncDispose](): Promise<void> {
      for (const process of started.toReversed()) await process[Symbol.asyncDispose]();
      await reserved.release();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
