import { expect } from 'chai';
import type { ControlPlane } from '../../control-plane/start.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import { deleteCrds } from '../support/delete-crds.ts';
import { createNamespace, FIRST_START_TIMEOUT_MS, startWithCrds } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { waitForMatch } from '../support/expected-objects.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';

const DEADLINE_MS = 60_000;

describe('operator with an API server that is down, forbids access, or lacks the CRDs', () => {
  let controlPlane: ControlPlane;
  let namespace: string;
  let operator: OperatorProcess | undefined;
  let fleet: Fleet | undefined;

  before('starts a control plane of its own', async function () {
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
      maxRetries: PATIENT_MAX_RETRIES,
    });
    await fleet.start();
    return { operator, fleet };
  }

  async function kubeconfigWithPermissions(): Promise<string> {
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    return (await controlPlane.kubeconfigFor(account)).kubeconfigPath;
  }

  const waitForLog = (process: OperatorProcess, text: string): Promise<true> =>
    poll(
      DEADLINE_MS,
      () =>
        process.log.some(({ error, hint }) => `${String(error)} ${String(hint)}`.includes(text)) || undefined,
    );

  it('ACKs reports while kube-apiserver is down and syncs the objects after it restarts', async function () {
    this.timeout(3 * DEADLINE_MS);
    const started = await start(await kubeconfigWithPermissions());
    await waitForMatch(started.fleet, controlPlane.request, namespace, DEADLINE_MS);
    await controlPlane.apiserver.kill();
    const acksBefore = await started.operator.metric('reverse_tunnel_acks_total');
    for (const reporter of started.fleet.reporters) {
      const [first, second] = reporter.expectedTunnels().keys();
      reporter.disconnectTunnel(String(first));
      reporter.flap(String(second));
      reporter.connectTunnel(started.fleet.newInitiator());
    }
    await started.fleet.settled();
    await poll(DEADLINE_MS, async () =>
      (await started.operator.metric('reverse_tunnel_acks_total')) - acksBefore > 50 ? true : undefined,
    );
    const { disconnects } = started.fleet.statistics();
    expect([...Object.values(disconnects)].every((times) => times === 0)).to.equal(true);
    await controlPlane.apiserver.start();
    await waitForMatch(started.fleet, controlPlane.request, namespace, DEADLINE_MS);
  });

  it('starts without kube-apiserver, ACKs reports, and syncs the objects once it is up', async function () {
    this.timeout(3 * DEADLINE_MS);
    const kubeconfigPath = await kubeconfigWithPermissions();
    await controlPlane.apiserver.kill();
    const started = await start(kubeconfigPath);
    await started.fleet.settled();
    await waitForLog(started.operator, 'ECONNREFUSED');
    expect((await fetch(`http://${started.operator.httpAddress}/readyz`)).status).to.equal(503);
    expect((await fetch(`http://${started.operator.httpAddress}/livez`)).status).to.equal(200);
    await controlPlane.apiserver.start();
    await waitForMatch(started.fleet, controlPlane.request, namespace, DEADLINE_MS);
    await started.operator.ready();
  });

  it('logs one line per forbidden resource and continues once the permissions are granted', async function () {
    this.timeout(3 * DEADLINE_MS);
    const account = { namespace, serviceAccount: 'operator' };
    const { kubeconfigPath } = await controlPlane.kubeconfigFor(account);
    const started = await start(kubeconfigPath);
    const forbidden = 'cannot list resource "reversetunnels"';
    await waitForLog(started.operator, forbidden);
    const forbiddenLines = started.operator.log.filter(({ error }) => String(error).includes(forbidden));
    expect(forbiddenLines).to.have.length(1);
    expect(forbiddenLines[0]?.['hint']).to.include('RBAC').and.not.include('\n');
    await controlPlane.kubeconfigFor({ ...account, rules: OPERATOR_RBAC_RULES });
    await waitForMatch(started.fleet, controlPlane.request, namespace, DEADLINE_MS);
  });

  it('logs how to install missing CRDs and continues once they are installed', async function () {
    this.timeout(3 * DEADLINE_MS);
    const crds = ['reversetunnels.reverse-tunnel.io', 'reversetunnelreporters.reverse-tunnel.io'];
    const kubeconfigPath = await kubeconfigWithPermissions();
    await deleteCrds(controlPlane, crds);
    const started = await start(kubeconfigPath);
    await waitForLog(started.operator, 'kubectl apply -f crds/');
    expect((await controlPlane.kubectl(['apply', '-f', 'crds/'])).code).to.equal(0);
    await poll(DEADLINE_MS, async () => {
      const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels`;
      return (await controlPlane.request('GET', path)).status === 200 ? true : undefined;
    });
    await waitForMatch(started.fleet, controlPlane.request, namespace, DEADLINE_MS);
  });
});
