import { expect } from 'chai';
import type { ControlPlane } from '../../control-plane/start.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { createNamespace, FIRST_START_TIMEOUT_MS, startWithCrds } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { waitForMatch } from '../support/expected-objects.ts';

const DEADLINE_MS = 60_000;

describe('an API server that is away, forbids, or lacks the CRDs', () => {
  let controlPlane: ControlPlane;
  let namespace: string;
  let operator: OperatorProcess | undefined;
  let fleet: Fleet | undefined;

  before('a control plane of its own', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startWithCrds();
  });
  after(() => controlPlane.stop());

  beforeEach(async () => {
    namespace = await createNamespace(controlPlane, 'outage');
  });
  afterEach(async () => {
    await fleet?.stop();
    await operator?.kill();
    fleet = undefined;
    operator = undefined;
  });

  async function start(kubeconfigPath: string): Promise<{ operator: OperatorProcess; fleet: Fleet }> {
    operator = await startOperatorProcess({
      kubeconfigPath,
      namespace,
      flags: ['--report-interval', '100ms'],
    });
    fleet = createFleet({
      address: operator.grpcAddress,
      reporters: 5,
      tunnels: 20,
      connectRetryIntervalMs: 200,
    });
    await fleet.start();
    return { operator, fleet };
  }

  async function rightfulKubeconfig(): Promise<string> {
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    return (await controlPlane.kubeconfigFor(account)).kubeconfigPath;
  }

  const said = (one: OperatorProcess, text: string): Promise<true> =>
    poll(DEADLINE_MS, () => (one.log.some(({ error }) => String(error).includes(text)) ? true : undefined));

  it('killed and started again: reports are ACKed meanwhile, and the rows follow', async function () {
    this.timeout(3 * DEADLINE_MS);
    const parts = await start(await rightfulKubeconfig());
    await waitForMatch(parts.fleet, controlPlane.request, namespace, DEADLINE_MS);
    await controlPlane.apiserver.kill();
    const acksBefore = await parts.operator.metric('reverse_tunnel_acks_total');
    for (const reporter of parts.fleet.reporters) {
      const [first, second] = reporter.expectedTunnels().keys();
      reporter.disconnectTunnel(String(first));
      reporter.flap(String(second));
      reporter.connectTunnel(parts.fleet.newInitiator());
    }
    await parts.fleet.settled();
    await poll(DEADLINE_MS, async () =>
      (await parts.operator.metric('reverse_tunnel_acks_total')) - acksBefore > 50 ? true : undefined,
    );
    const { disconnects } = parts.fleet.statistics();
    expect([...Object.values(disconnects)].every((times) => times === 0)).to.equal(true);
    await controlPlane.apiserver.start();
    await waitForMatch(parts.fleet, controlPlane.request, namespace, DEADLINE_MS);
  });

  it('not there at the start: reports are ACKed, and mirrored once it comes', async function () {
    this.timeout(3 * DEADLINE_MS);
    const kubeconfigPath = await rightfulKubeconfig();
    await controlPlane.apiserver.kill();
    const parts = await start(kubeconfigPath);
    await parts.fleet.settled();
    await said(parts.operator, 'ECONNREFUSED');
    expect((await fetch(`http://${parts.operator.httpAddress}/readyz`)).status).to.equal(503);
    expect((await fetch(`http://${parts.operator.httpAddress}/livez`)).status).to.equal(200);
    await controlPlane.apiserver.start();
    await waitForMatch(parts.fleet, controlPlane.request, namespace, DEADLINE_MS);
    await parts.operator.ready();
  });

  it('that forbids: one line a resource says what is not allowed, and granting it is picked up', async function () {
    this.timeout(3 * DEADLINE_MS);
    const account = { namespace, serviceAccount: 'operator' };
    const { kubeconfigPath } = await controlPlane.kubeconfigFor(account);
    const parts = await start(kubeconfigPath);
    const forbidden = 'cannot list resource "reversetunnels"';
    await said(parts.operator, forbidden);
    const refusals = parts.operator.log.filter(({ error }) => String(error).includes(forbidden));
    expect(refusals).to.have.length(1);
    expect(refusals[0]?.['hint']).to.include('RBAC').and.not.include('\n');
    await controlPlane.kubeconfigFor({ ...account, rules: OPERATOR_RBAC_RULES });
    await waitForMatch(parts.fleet, controlPlane.request, namespace, DEADLINE_MS);
  });

  it('without the CRDs: one line says how to install them, and installing them is picked up', async function () {
    this.timeout(3 * DEADLINE_MS);
    const crds = ['reversetunnels.reverse-tunnel.io', 'reversetunnelreporters.reverse-tunnel.io'];
    const kubeconfigPath = await rightfulKubeconfig();
    expect((await controlPlane.kubectl(['delete', 'crd', ...crds])).code).to.equal(0);
    const parts = await start(kubeconfigPath);
    await said(parts.operator, 'kubectl apply -f crds/');
    expect((await controlPlane.kubectl(['apply', '-f', 'crds/'])).code).to.equal(0);
    await poll(DEADLINE_MS, async () => {
      const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels`;
      return (await controlPlane.request('GET', path)).status === 200 ? true : undefined;
    });
    await waitForMatch(parts.fleet, controlPlane.request, namespace, DEADLINE_MS);
  });
});
