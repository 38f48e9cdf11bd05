import { readFile, writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { createFleet, type Fleet, type FleetOptions } from '../../src/simulate/fleet.ts';
import { countTunnelWrites, writesBetween } from '../support/audit-log.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { openFaultProxy } from '../faults/real/fault-proxy.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';
import {
  countTunnelObjects,
  compareWithExpected,
  listTunnelObjects,
  waitForMatch,
  type ObservedTunnelObject,
} from '../support/expected-objects.ts';

/** Generous: 5,000 objects took 2 minutes on 2 cores that were shared with 40 other processes. */
const DEADLINE_MS = 300_000;

describe('objects in sync with reports, end to end', () => {
  const controlPlane = useControlPlane();
  const running: { fleets: Fleet[]; operators: OperatorProcess[] } = { fleets: [], operators: [] };
  let namespace: string;
  let kubeconfigPath: string;

  beforeEach(async () => {
    namespace = await createNamespace(controlPlane(), 'main-job');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    ({ kubeconfigPath } = await controlPlane().kubeconfigFor(account));
  });

  afterEach(async () => {
    await Promise.all(running.fleets.splice(0).map((fleet) => fleet.stop()));
    await Promise.all(running.operators.splice(0).map((operator) => operator.kill()));
  });

  async function startOperator(...flags: string[]): Promise<OperatorProcess> {
    const operator = await startOperatorProcess({ kubeconfigPath, namespace, flags });
    running.operators.push(operator);
    await operator.ready();
    return operator;
  }

  async function startFleet(options: Partial<FleetOptions> & { address: string }): Promise<Fleet> {
    const fleet = createFleet({
      connectRetryIntervalMs: 200,
      maxRetries: PATIENT_MAX_RETRIES,
      ...options,
    });
    running.fleets.push(fleet);
    await fleet.start();
    return fleet;
  }

  const waitForObjects = (fleet: Fleet): Promise<ObservedTunnelObject[]> =>
    waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
  const writes = () => countTunnelWrites(controlPlane().auditLogPath ?? '', namespace);

  it('need one write per change and none for heartbeats, an identical full push and a restart', async function () {
    this.timeout(4 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    // Three pages of a list at the restart.
    const fleet = await startFleet({ address: operator.grpcAddress, reporters: 20, tunnels: 250 });
    const objects = await waitForObjects(fleet);
    const created = await writes();
    expect(created).to.deep.equal({ create: 5000, patch: 0, delete: 0, status: 0, failed: 0 });
    const [reporter] = fleet.reporters;
    if (reporter === undefined) throw new Error('the fleet has no reporter');

    // A thousand heartbeats.
    const reportsBefore = await operator.metric('reverse_tunnel_reports_total{kind="heartbeat"}');
    await poll(DEADLINE_MS, async () => {
      const now = await operator.metric('reverse_tunnel_reports_total{kind="heartbeat"}');
      return now - reportsBefore >= 1000 ? true : undefined;
    });
    // Identical full pushes after reconnects.
    for (const reporter of fleet.reporters) reporter.resetConnection();
    await poll(DEADLINE_MS, async () => {
      const pushes = await operator.metric('reverse_tunnel_reports_total{kind="full"}');
      return pushes >= 40 ? true : undefined;
    });
    await fleet.settled();
    expect(writesBetween(created, await writes()), 'heartbeats and identical full pushes').to.deep.equal(
      NONE,
    );

    // A restart with 5,000 objects, on the same address.
    expect(await operator.stop()).to.equal(0);
    const restarted = await startOperator(
      '--report-interval',
      '100ms',
      '--grpc-address',
      operator.grpcAddress,
    );
    await poll(DEADLINE_MS, async () => {
      const pushes = await restarted.metric('reverse_tunnel_reports_total{kind="full"}');
      return pushes >= 20 ? true : undefined;
    });
    await poll(DEADLINE_MS, async () =>
      (await restarted.metric('workqueue_depth{name="tunnels"}')) === 0 ? true : undefined,
    );
    expect(writesBetween(created, await writes()), 'restart').to.deep.equal(NONE);
    const kept = new Set(objects.map(({ metadata }) => metadata.uid));
    expect((await waitForObjects(fleet)).every(({ metadata }) => kept.has(metadata.uid))).to.equal(true);

    // Seven tunnels end, five are added, three flap.
    const names = [...reporter.expectedTunnels().keys()];
    for (const name of names.slice(0, 7)) reporter.disconnectTunnel(name);
    for (const name of names.slice(7, 10)) reporter.flap(name);
    for (let i = 0; i < 5; i += 1) reporter.connectTunnel(fleet.newInitiator());
    await fleet.settled();
    await waitForObjects(fleet);
    expect(writesBetween(created, await writes()), 'changes').to.deep.equal({
      ...NONE,
      create: 5,
      delete: 7,
      patch: 3,
    });
  });

  it('are deleted when a full push lacks their tunnels, also after a restart', async function () {
    this.timeout(3 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    const fleet = await startFleet({ address: operator.grpcAddress, reporters: 2, tunnels: 50 });
    await waitForObjects(fleet);
    const [lossy, other] = fleet.reporters;
    if (lossy === undefined || other === undefined) throw new Error('the fleet has two reporters');

    expect(await operator.stop()).to.equal(0);
    for (const name of [...lossy.expectedTunnels().keys()].slice(0, 20)) lossy.disconnectTunnel(name);
    // The other reporter does not reconnect, so nothing is known about its tunnels and its objects stay.
    other.stop();
    const restarted = await startOperator(
      '--report-interval',
      '100ms',
      '--grpc-address',
      operator.grpcAddress,
    );
    await waitForObjects(fleet);
    expect(await restarted.metric('reverse_tunnel_reported_tunnels')).to.equal(30);
    expect(await listTunnelObjects(controlPlane().request, namespace)).to.have.length(80);
  });

  it('are replaced when a tunnel name is reported with another identity', async function () {
    this.timeout(2 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    const fleet = await startFleet({ address: operator.grpcAddress, tunnels: 3 });
    await waitForObjects(fleet);
    const [reporter] = fleet.reporters;
    const [tunnel] = reporter?.expectedTunnels().values() ?? [];
    if (reporter === undefined || tunnel === undefined) throw new Error('the fleet has no tunnel');
    reporter.disconnectTunnel(tunnel.name);
    reporter.connectTunnel({ ...tunnel, tenantID: 'another-tenant' });
    const objects = await waitForObjects(fleet);
    expect(objects.map(({ spec }) => spec.tenantID)).to.include('another-tenant');
    expect(await writes()).to.deep.equal({ ...NONE, create: 4, delete: 1 });
  });

  it('are restored after manual deletes and edits, and manually created ones are deleted', async function () {
    this.timeout(2 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    const fleet = await startFleet({ address: operator.grpcAddress, tunnels: 6 });
    const objects = await waitForObjects(fleet);
    const kubectl = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await controlPlane().kubectl(['-n', namespace, ...args]);
      expect(code, stderr).to.equal(0);
    };
    const [deleted, relabelled, redated, unready] = objects.map(({ metadata }) => metadata.name);
    await kubectl('delete', 'rt', String(deleted));
    await kubectl('label', '--overwrite', 'rt', String(relabelled), 'reverse-tunnel.io/tenant=mallory');
    await kubectl('patch', 'rt', String(redated), '--type=merge', '-p', '{"spec":{"createdAt":null}}');
    await kubectl(
      ...['patch', 'rt', String(unready), '--subresource=status', '--type=merge', '-p'],
      '{"status":{"state":"Unknown","conditions":[{"type":"Ready","status":"False","reason":"ByHand"}]}}',
    );
    const [object] = objects;
    if (object === undefined) throw new Error('there is no object');
    const manual = {
      ...object,
      metadata: { name: 'made-by-hand' },
      spec: { ...object.spec, tunnelName: 'made-up' },
    };
    const { status } = await controlPlane().request(
      'POST',
      `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels`,
      manual,
    );
    expect(status).to.equal(201);

    const labels = new Map(objects.map(({ metadata }) => [metadata.name, metadata.labels]));
    await poll(DEADLINE_MS, async () => {
      const now = await waitForObjects(fleet);
      const same = now.every(
        ({ metadata }) => JSON.stringify(metadata.labels) === JSON.stringify(labels.get(metadata.name)),
      );
      return same ? true : undefined;
    });
  });

  it('are written for everything that was ACKed before the operator exits on SIGTERM with code 0', async function () {
    this.timeout(2 * DEADLINE_MS);
    // Nothing reaches the API server until the operator terminates, so that work is left at that time.
    const direct = new URL(controlPlane().url).host;
    const apiProxy = await openFaultProxy(direct);
    try {
      const text = await readFile(kubeconfigPath, 'utf8');
      await writeFile(kubeconfigPath, text.replaceAll(direct, apiProxy.address));
      const operator = await startOperator();
      apiProxy.stall();
      const fleet = await startFleet({ address: operator.grpcAddress, reporters: 5, tunnels: 10 });
      await fleet.settled();
      expect(await countTunnelObjects(controlPlane().request, namespace)).to.equal(0);
      const stopped = operator.stop();
      await poll(DEADLINE_MS, () => operator.log.find(({ msg }) => msg === 'stopping'));
      apiProxy.restore();
      expect(await stopped).to.equal(0);
      expect(operator.log.at(-1)?.msg).to.equal('stopped');
      expect(
        compareWithExpected(fleet, await listTunnelObjects(controlPlane().request, namespace)),
      ).to.deep.include({
        objects: 50,
        missing: 0,
        extra: 0,
        mismatched: 0,
      });
    } finally {
      await apiProxy.close();
    }
  });
});

const NONE = { create: 0, patch: 0, delete: 0, status: 0, failed: 0 };
