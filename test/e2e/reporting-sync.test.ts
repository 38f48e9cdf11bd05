import { readFile, writeFile } from 'node:fs/promises';
import { expect } from 'chai';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import type { FleetOptions } from '../../src/simulate/fleet-options.ts';
import { countTunnelWrites, writesBetween } from '../support/audit-log.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { openFaultProxy } from '../faults/real/fault-proxy.ts';
import {
  countTunnelObjects,
  compareWithExpected,
  listTunnelObjects,
  waitForMatch,
  type ObservedTunnelObject,
} from '../support/expected-objects.ts';

/** Generous: a machine that compiles at the same time still mirrors 100 rows a second. */
const DEADLINE_MS = 120_000;

describe('the main job, end to end', () => {
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
    const fleet = createFleet({ connectRetryIntervalMs: 200, ...options });
    running.fleets.push(fleet);
    await fleet.start();
    return fleet;
  }

  const equal = (fleet: Fleet): Promise<ObservedTunnelObject[]> =>
    waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
  const writes = () => countTunnelWrites(controlPlane().auditLogPath ?? '', namespace);

  it('20 reporters with 250 tunnels each, under churn and flaps until 4,000 came and 4,000 went: rows equal the truth', async function () {
    this.timeout(4 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '500ms');
    const fleet = await startFleet({
      address: operator.grpcAddress,
      reporters: 20,
      tunnels: 250,
      tenants: 5,
      churnPerSecond: 80,
      flapsPerSecond: 80,
    });
    await poll(2 * DEADLINE_MS, () => {
      const { tunnelsAdded, tunnelsRemoved } = fleet.statistics();
      return (tunnelsAdded - 5000 >= 4000 && tunnelsRemoved >= 4000) || undefined;
    });
    fleet.pauseChurn();
    await fleet.settled();
    await equal(fleet);
    const { nacks, outOfOrderAcks } = fleet.statistics();
    expect({ nacks, outOfOrderAcks }).to.deep.equal({ nacks: 0, outOfOrderAcks: 0 });
    expect((await writes()).failed, 'writes that were refused or in conflict').to.equal(0);
  });

  /**
   * So many, and with names so long, that the report is more than gRPC takes by default (4 MiB), that decoding it rests some
   * twenty times, and that its rows are ten pages of a list. 100,000 are ACKed in grpc-streams.test.ts, and mirrored by the bench.
   */
  it('one full push of 20,000 tunnels in 5 MB is ACKed and mirrored', async function () {
    this.timeout(6 * DEADLINE_MS);
    const operator = await startOperator();
    const fleet = createFleet({ address: operator.grpcAddress, tunnels: 0 });
    running.fleets.push(fleet);
    const node = 'x'.repeat(100);
    for (let i = 0; i < 20_000; i += 1)
      fleet.reporters[0]?.connectTunnel({ ...fleet.newInitiator(), nodeID: `${node}-${i}` });
    await fleet.start();
    await fleet.settled();
    expect(fleet.statistics()).to.include({ nacks: 0, attempts: 1 });
    await waitForMatch(fleet, controlPlane().request, namespace, 5 * DEADLINE_MS);
    expect((await writes()).create).to.equal(20_000);
  });

  it('writes one row a change, and none for heartbeats, an identical full push and a restart', async function () {
    this.timeout(4 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    // Three pages of a list, for the restart.
    const fleet = await startFleet({ address: operator.grpcAddress, reporters: 20, tunnels: 250 });
    const rows = await equal(fleet);
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
    // Identical full pushes, by reconnecting.
    for (const one of fleet.reporters) one.resetConnection();
    await poll(DEADLINE_MS, async () => {
      const pushes = await operator.metric('reverse_tunnel_reports_total{kind="full"}');
      return pushes >= 40 ? true : undefined;
    });
    await fleet.settled();
    expect(writesBetween(created, await writes()), 'heartbeats and identical full pushes').to.deep.equal(
      NONE,
    );

    // A restart with 5,000 rows, on the same address.
    expect(await operator.stop()).to.equal(0);
    const again = await startOperator('--report-interval', '100ms', '--grpc-address', operator.grpcAddress);
    await poll(DEADLINE_MS, async () => {
      const pushes = await again.metric('reverse_tunnel_reports_total{kind="full"}');
      return pushes >= 20 ? true : undefined;
    });
    await poll(DEADLINE_MS, async () => ((await again.metric('workqueue_depth')) === 0 ? true : undefined));
    expect(writesBetween(created, await writes()), 'restart').to.deep.equal(NONE);
    const kept = new Set(rows.map(({ metadata }) => metadata.uid));
    expect((await equal(fleet)).every(({ metadata }) => kept.has(metadata.uid))).to.equal(true);

    // Seven go, five come, three drop and return.
    const names = [...reporter.expectedTunnels().keys()];
    for (const name of names.slice(0, 7)) reporter.disconnectTunnel(name);
    for (const name of names.slice(7, 10)) reporter.flap(name);
    for (let i = 0; i < 5; i += 1) reporter.connectTunnel(fleet.newInitiator());
    await fleet.settled();
    await equal(fleet);
    expect(writesBetween(created, await writes()), 'changes').to.deep.equal({
      ...NONE,
      create: 5,
      delete: 7,
      patch: 3,
    });
  });

  it('a full push that lost some tunnels removes their rows, also after a restart in between', async function () {
    this.timeout(3 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    const fleet = await startFleet({ address: operator.grpcAddress, reporters: 2, tunnels: 50 });
    await equal(fleet);
    const [lossy, other] = fleet.reporters;
    if (lossy === undefined || other === undefined) throw new Error('two reporters were asked for');

    expect(await operator.stop()).to.equal(0);
    for (const name of [...lossy.expectedTunnels().keys()].slice(0, 20)) lossy.disconnectTunnel(name);
    // The other one does not come back: of it nothing is known, so its rows stay.
    other.stop();
    const again = await startOperator('--report-interval', '100ms', '--grpc-address', operator.grpcAddress);
    await equal(fleet);
    expect(await again.metric('reverse_tunnel_reported_tunnels')).to.equal(30);
    expect(await listTunnelObjects(controlPlane().request, namespace)).to.have.length(80);
  });

  it('another identity under the same tunnel name replaces the row', async function () {
    this.timeout(2 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    const fleet = await startFleet({ address: operator.grpcAddress, tunnels: 3 });
    await equal(fleet);
    const [reporter] = fleet.reporters;
    const [tunnel] = reporter?.expectedTunnels().values() ?? [];
    if (reporter === undefined || tunnel === undefined) throw new Error('the fleet has no tunnel');
    reporter.disconnectTunnel(tunnel.name);
    reporter.connectTunnel({ ...tunnel, tenantID: 'another-tenant' });
    const rows = await equal(fleet);
    expect(rows.map(({ spec }) => spec.tenantID)).to.include('another-tenant');
    expect(await writes()).to.deep.equal({ ...NONE, create: 4, delete: 1 });
  });

  it('rows deleted or edited by hand come back, and rows made by hand go', async function () {
    this.timeout(2 * DEADLINE_MS);
    const operator = await startOperator('--report-interval', '100ms');
    const fleet = await startFleet({ address: operator.grpcAddress, tunnels: 6 });
    const rows = await equal(fleet);
    const kubectl = async (...args: string[]): Promise<void> => {
      const { code, stderr } = await controlPlane().kubectl(['-n', namespace, ...args]);
      expect(code, stderr).to.equal(0);
    };
    const [deleted, relabelled, redated, unready] = rows.map(({ metadata }) => metadata.name);
    await kubectl('delete', 'rt', String(deleted));
    await kubectl('label', '--overwrite', 'rt', String(relabelled), 'reverse-tunnel.io/tenant=mallory');
    await kubectl('patch', 'rt', String(redated), '--type=merge', '-p', '{"spec":{"createdAt":null}}');
    await kubectl(
      ...['patch', 'rt', String(unready), '--subresource=status', '--type=merge', '-p'],
      '{"status":{"state":"Unknown","conditions":[{"type":"Ready","status":"False","reason":"ByHand"}]}}',
    );
    const [row] = rows;
    if (row === undefined) throw new Error('there is no row');
    const made = { ...row, metadata: { name: 'made-by-hand' }, spec: { ...row.spec, tunnelName: 'made-up' } };
    const { status } = await controlPlane().request(
      'POST',
      `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels`,
      made,
    );
    expect(status).to.equal(201);

    const labels = new Map(rows.map(({ metadata }) => [metadata.name, metadata.labels]));
    await poll(DEADLINE_MS, async () => {
      const now = await equal(fleet);
      const same = now.every(
        ({ metadata }) => JSON.stringify(metadata.labels) === JSON.stringify(labels.get(metadata.name)),
      );
      return same ? true : undefined;
    });
  });

  it('ends on SIGTERM with exit code 0, and what it had ACKed is written by then', async function () {
    this.timeout(2 * DEADLINE_MS);
    // Nothing passes to the API server until it is told to stop, so that there is something left to do then.
    const direct = new URL(controlPlane().url).host;
    const apiWay = await openFaultProxy(direct);
    try {
      const text = await readFile(kubeconfigPath, 'utf8');
      await writeFile(kubeconfigPath, text.replaceAll(direct, apiWay.address));
      const operator = await startOperator();
      apiWay.stall();
      const fleet = await startFleet({ address: operator.grpcAddress, reporters: 5, tunnels: 40 });
      await fleet.settled();
      expect(await countTunnelObjects(controlPlane().request, namespace)).to.equal(0);
      const stopped = operator.stop();
      await poll(DEADLINE_MS, () => operator.log.find(({ msg }) => msg === 'stopping'));
      apiWay.restore();
      expect(await stopped).to.equal(0);
      expect(operator.log.at(-1)?.msg).to.equal('stopped');
      expect(
        compareWithExpected(fleet, await listTunnelObjects(controlPlane().request, namespace)),
      ).to.deep.include({
        rows: 200,
        missing: 0,
        extra: 0,
        wrong: 0,
      });
    } finally {
      await apiWay.close();
    }
  });
});

const NONE = { create: 0, patch: 0, delete: 0, status: 0, failed: 0 };
