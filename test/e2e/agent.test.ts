import { expect } from 'chai';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reservePorts, type ReservedPorts } from '../../control-plane/ports.ts';
import { resolveEnvoys } from '../../envoy/resolve.ts';
import { startAgent, type AgentProcess } from '../support/agent-process.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { startEnvoy, substituteExample, type EnvoyProcess } from '../support/envoy-process.ts';
import { eventually } from '../support/eventually.ts';
import {
  OPERATOR_RBAC_RULES,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';

interface ObservedTunnel {
  readonly metadata: { readonly uid: string; readonly creationTimestamp: string };
  readonly spec: {
    readonly tunnelName: string;
    readonly tenantID: string;
    readonly clusterID: string;
    readonly createdAt?: string;
  };
}
interface ObservedReporter {
  readonly status?: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

describe('The agent next to a standard Envoy', function () {
  const controlPlane = useControlPlane();
  let envoy: string;
  let folder: string;
  let namespace: string;
  let reserved: ReservedPorts;
  let operator: OperatorProcess;
  let responder: EnvoyProcess;
  let agent: AgentProcess | undefined;
  const initiators: EnvoyProcess[] = [];

  before('provides an Envoy', async function () {
    this.timeout(600_000);
    const [newest] = await resolveEnvoys();
    if (newest === undefined) throw new Error('no Envoy');
    envoy = newest.path;
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'agent-'));
    namespace = await createNamespace(controlPlane(), 'agent');
    reserved = await reservePorts(4);
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    // As short as the poll interval, so that a test does not wait for the next report.
    const flags = ['--report-interval', '100ms'];
    operator = await startOperatorProcess({ kubeconfigPath, namespace, flags });
    await operator.ready();
    responder = await startResponder();
  });

  afterEach(async () => {
    await agent?.[Symbol.asyncDispose]();
    agent = undefined;
    for (const process of [...initiators.splice(0), responder]) await process[Symbol.asyncDispose]();
    await operator.kill();
    await reserved.release();
    await rm(folder, { recursive: true, force: true });
  });

  function ports(): Record<string, number> {
    return {
      '127.0.0.1:9901': reserved.first + 2,
      '0.0.0.0:9000': reserved.first,
      'responder.example.com:9000': reserved.first,
      '0.0.0.0:8085': reserved.first + 1,
      'backend.example.com:80': reserved.first + 3,
    };
  }

  async function startResponder(): Promise<EnvoyProcess> {
    const files = { '/var/log/envoy/tunnels.log': join(folder, 'tunnels.log') };
    return await startEnvoy(
      envoy,
      await substituteExample('envoy-responder-standard.yaml', { ports: ports(), files }),
    );
  }

  /** Starts the initiator of the example, under another node ID if one is given. */
  async function startInitiator(node = 'node-17'): Promise<EnvoyProcess> {
    const shipped = await substituteExample('envoy-initiator.yaml', {
      ports: { ...ports(), '127.0.0.1:9901': 0 },
    });
    const initiator = await startEnvoy(envoy, shipped.replaceAll('node-17', node));
    initiators.push(initiator);
    return initiator;
  }

  async function startReporting(...flags: readonly string[]): Promise<AgentProcess> {
    const addresses = ['--address', operator.grpcAddress, '--admin', `http://${responder.adminAddress}`];
    agent = await startAgent([...addresses, '--poll-interval', '200ms', ...flags]);
    return agent;
  }

  async function list<T>(plural: string): Promise<readonly T[]> {
    const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/${plural}`;
    const { body } = await controlPlane().request('GET', path);
    return (body as { readonly items: readonly T[] }).items;
  }

  async function tunnels(): Promise<readonly ObservedTunnel[]> {
    return await list('reversetunnels');
  }

  async function waitForTunnels(...names: readonly string[]): Promise<readonly ObservedTunnel[]> {
    let found: readonly ObservedTunnel[] = [];
    await eventually(`the objects are ${names.join(', ')}`, async () => {
      found = await tunnels();
      return (
        found
          .map(({ spec }) => spec.tunnelName)
          .toSorted()
          .join() === names.toSorted().join()
      );
    });
    return found;
  }

  async function isConnected(): Promise<boolean> {
    const [reporter] = await list<ObservedReporter>('reversetunnelreporters');
    const connected = reporter?.status?.conditions?.find(({ type }) => type === 'Connected');
    return connected?.status === 'True';
  }

  it('creates the object of a tunnel that comes up and deletes it when its initiator is killed', async () => {
    const reporting = await startReporting(
      '--settle-time',
      '0',
      '--lifecycle-log',
      join(folder, 'tunnels.log'),
    );
    const first = await startInitiator();
    await startInitiator('node-18');
    const [object] = await waitForTunnels('node-17', 'node-18');
    expect(object?.spec).to.include({ tenantID: 'acme', clusterID: 'eu-1' });
    const createdMs = Date.parse(object?.spec.createdAt ?? '');
    const ageMs = Date.parse(object?.metadata.creationTimestamp ?? '') - createdMs;
    expect(ageMs, 'from tunnel up to object created').to.be.within(-1000, 10_000);
    await eventually('the agent is ready', async () => (await reporting.readiness()) === 'ok');
    await first.kill();
    await waitForTunnels('node-18');
  });

  it('reports with polling only, under the default tenant', async () => {
    await startReporting('--settle-time', '0', '--default-tenant', 'umbrella');
    const initiator = await startInitiator();
    const [object] = await waitForTunnels('node-17');
    expect(object?.spec).to.include({ tenantID: 'umbrella' }).and.not.have.property('createdAt');
    await initiator.kill();
    await waitForTunnels();
  });

  it('keeps the objects of tunnels that return after Envoy has restarted', async () => {
    const reporting = await startReporting('--settle-time', '15s', '--default-tenant', 'acme');
    await startInitiator();
    const [before] = await waitForTunnels('node-17');
    await responder.kill();
    await responder[Symbol.asyncDispose]();
    await eventually('the reporter is disconnected', async () => !(await isConnected()));
    responder = await startResponder();
    await eventually(
      'the reporter is connected again',
      async () => (await isConnected()) && (await reporting.readiness()) === 'ok',
      60_000,
    );
    const [after] = await waitForTunnels('node-17');
    expect(after?.metadata.uid).to.equal(before?.metadata.uid);
  }).timeout(180_000);

  it('stops reporting while Envoy hangs, and reports the same objects once it continues', async () => {
    await startReporting('--settle-time', '0', '--default-tenant', 'acme');
    await startInitiator();
    const [before] = await waitForTunnels('node-17');
    await eventually('the reporter is connected', isConnected);
    responder.pause();
    await eventually('the reporter is disconnected', async () => !(await isConnected()));
    responder.resume();
    await eventually('the reporter is connected again', isConnected);
    const [after] = await waitForTunnels('node-17');
    expect(after?.metadata.uid).to.equal(before?.metadata.uid);
  });

  it('exits with code 0 after SIGTERM', async () => {
    const reporting = await startReporting('--default-tenant', 'acme');
    expect(await reporting.stop()).to.equal(0);
    expect(reporting.log.at(-1)).to.include({ msg: 'stopped' });
  });
});
