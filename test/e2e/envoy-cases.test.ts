/**
 * The cases of Envoy's own integration test of its client, against this operator instead of Envoy's test server. Each
 * bears the name of Envoy's (contrib/reverse_tunnel_reporter/test/clients/grpc_client_integration_test.cc). Envoy
 * compares the number of tunnels after some intervals; here the rows must equal what the reporter holds.
 *
 * Without a case here: ListenerDrain and ListenerDrainMaxDurationNoActiveRequest, ListenerDrainNoActiveRequest, which
 * differ from others in HTTP requests that no reporting service sees.
 */
import { expect } from 'chai';
import { reservePorts } from '../../control-plane/ports.ts';
import { createFleet, type Fleet } from '../../src/simulate/fleet.ts';
import type { FleetReporter } from '../../src/simulate/reporter.ts';
import type { TunnelIdentity } from '../../src/simulate/tunnel-registry.ts';
import { countTunnelWrites, type TunnelWriteCounts } from '../support/audit-log.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  poll,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';
import { waitForMatch, type ObservedTunnelObject } from '../support/expected-objects.ts';

/** Envoy's test has the same for both, and 3 retries. */
const INTERVAL_MS = 500;
const MAX_RETRIES = 3;
const DEADLINE_MS = 30_000;

function initiator(nodeID: string): TunnelIdentity {
  return { tenantID: 'acme', clusterID: 'downstream', nodeID };
}

describe("Envoy's integration cases", () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let kubeconfigPath: string;
  let address: string;
  let release: () => Promise<void>;
  let fleet: Fleet;
  let envoy: FleetReporter;
  const operators: OperatorProcess[] = [];

  beforeEach(async () => {
    namespace = await createNamespace(controlPlane(), 'envoy-cases');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    ({ kubeconfigPath } = await controlPlane().kubeconfigFor(account));
    // Known before there is a server, as the reporter may be first.
    const ports = await reservePorts(1);
    release = ports.release;
    address = `127.0.0.1:${ports.first}`;
    fleet = createFleet({
      address,
      tunnels: 0,
      intervalMs: INTERVAL_MS,
      connectRetryIntervalMs: INTERVAL_MS,
      maxRetries: MAX_RETRIES,
    });
    const [reporter] = fleet.reporters;
    if (reporter === undefined) throw new Error('the fleet has no reporter');
    envoy = reporter;
  });

  afterEach(async () => {
    await fleet.stop();
    await Promise.all(operators.splice(0).map((operator) => operator.kill()));
    await release();
  });

  async function startOperator(reportInterval = `${INTERVAL_MS}ms`): Promise<OperatorProcess> {
    const flags = ['--grpc-address', address, '--report-interval', reportInterval];
    const operator = await startOperatorProcess({ kubeconfigPath, namespace, flags });
    operators.push(operator);
    await operator.ready();
    return operator;
  }

  /** Rows equal what the reporter holds, and that are these tunnels. */
  async function rowsOf(...names: string[]): Promise<ObservedTunnelObject[]> {
    const rows = await waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
    expect(rows.map(({ spec }) => spec.tunnelName).toSorted()).to.deep.equal(names.toSorted());
    return rows;
  }

  const writes = (): Promise<TunnelWriteCounts> =>
    countTunnelWrites(controlPlane().auditLogPath ?? '', namespace);
  const uids = (rows: readonly ObservedTunnelObject[]): string[] =>
    rows.map(({ metadata }) => metadata.uid).toSorted();

  it('HappyPath: tunnels come and go on one stream', async () => {
    await startOperator();
    await fleet.start();
    envoy.connectTunnel(initiator('node-1'));
    envoy.connectTunnel(initiator('node-2'));
    await rowsOf('node-1', 'node-2');
    envoy.disconnectTunnel('node-1');
    envoy.disconnectTunnel('node-2');
    await rowsOf();
    expect(await writes()).to.deep.equal({ create: 2, patch: 0, delete: 2, status: 0, failed: 0 });
    expect(fleet.statistics()).to.deep.include({ attempts: 1, outOfOrderAcks: 0, nacks: 0 });
  });

  it('TenantIsolation: scoped ids stay in the spec, and labels show them without the scope', async () => {
    await fleet.start();
    await startOperator();
    for (const node of ['node-1', 'node-2']) {
      envoy.connectTunnel({ tenantID: 'acme', clusterID: 'acme:downstream', nodeID: `acme:${node}` });
    }
    const [row] = await rowsOf('acme:node-1', 'acme:node-2');
    expect(row?.spec).to.deep.include({ tenantID: 'acme', clusterID: 'acme:downstream' });
    expect(row?.metadata.labels).to.deep.include({
      'reverse-tunnel.io/tenant': 'acme',
      'reverse-tunnel.io/cluster': 'downstream',
      'reverse-tunnel.io/node': row?.spec.nodeID.replace('acme:', ''),
    });
    envoy.disconnectTunnel('acme:node-1');
    envoy.disconnectTunnel('acme:node-2');
    await rowsOf();
  });

  it('ServerReconnect: the full push to a new server leaves every row as it is', async () => {
    const first = await startOperator();
    await fleet.start();
    envoy.connectTunnel(initiator('node-1'));
    envoy.connectTunnel(initiator('node-2'));
    const before = await rowsOf('node-1', 'node-2');
    const written = await writes();
    expect(await first.stop()).to.equal(0);
    const second = await startOperator();
    await poll(DEADLINE_MS, async () =>
      (await second.metric('reverse_tunnel_reports_total{kind="full"}')) > 0 ? true : undefined,
    );
    await fleet.settled();
    expect(uids(await rowsOf('node-1', 'node-2'))).to.deep.equal(uids(before));
    expect(await writes()).to.deep.equal(written);
    envoy.disconnectTunnel('node-1');
    envoy.disconnectTunnel('node-2');
    await rowsOf();
  });

  it('EventsWhenServerIsDead: what came and went meanwhile is so when the server is back', async () => {
    const first = await startOperator();
    await fleet.start();
    envoy.connectTunnel(initiator('node-1'));
    envoy.connectTunnel(initiator('node-2'));
    await rowsOf('node-1', 'node-2');
    await first.kill();
    envoy.connectTunnel(initiator('node-3'));
    envoy.disconnectTunnel('node-1');
    await startOperator();
    await rowsOf('node-2', 'node-3');
    envoy.disconnectTunnel('node-2');
    envoy.disconnectTunnel('node-3');
    await rowsOf();
  });

  it('ServerDead, ServerLate: it is tried again and again, and what was held before is pushed at once', async () => {
    await fleet.start();
    envoy.connectTunnel(initiator('node-1'));
    envoy.connectTunnel(initiator('node-2'));
    await poll(DEADLINE_MS, () => (fleet.statistics().attempts >= MAX_RETRIES + 2 ? true : undefined));
    expect(fleet.statistics().connects).to.equal(0);
    await startOperator();
    await rowsOf('node-1', 'node-2');
    envoy.disconnectTunnel('node-1');
    envoy.disconnectTunnel('node-2');
    await rowsOf();
  });

  it('ServerSentTime: the interval that the server tells is kept', async () => {
    await fleet.start();
    const slow = await startOperator();
    expect(await msForHeartbeats(slow, 4)).to.be.at.least(3 * INTERVAL_MS);
    await slow.stop();
    // Twenty take 10 s at the client's own interval, which it has until the first ACK, and 2 s at this one.
    const quick = await startOperator(`${INTERVAL_MS / 5}ms`);
    expect(await msForHeartbeats(quick, 20)).to.be.below(16 * INTERVAL_MS);
    expect(fleet.statistics()).to.deep.include({ outOfOrderAcks: 0, nacks: 0 });
  });

  it('LoadTest: 1,000 nodes come, and go', async function () {
    this.timeout(4 * DEADLINE_MS);
    await startOperator();
    await fleet.start();
    const nodes = Array.from({ length: 1000 }, (_, index) => `node-${index}`);
    for (const node of nodes) envoy.connectTunnel(initiator(node));
    await rowsOf(...nodes);
    for (const node of nodes) envoy.disconnectTunnel(node);
    await rowsOf();
    expect(await writes()).to.deep.equal({ create: 1000, patch: 0, delete: 1000, status: 0, failed: 0 });
  });

  it('ManyTunnelsSingleListenerDrain: 100 connections of one node are one row until the last is gone', async () => {
    const operator = await startOperator();
    await fleet.start();
    for (let index = 0; index < 100; index += 1) envoy.connectTunnel(initiator('node-1'));
    const before = await rowsOf('node-1');
    for (let index = 0; index < 99; index += 1) envoy.disconnectTunnel('node-1');
    await msForHeartbeats(operator, 2);
    expect(uids(await rowsOf('node-1'))).to.deep.equal(uids(before));
    envoy.disconnectTunnel('node-1');
    await rowsOf();
    expect(await writes()).to.deep.equal({ create: 1, patch: 0, delete: 1, status: 0, failed: 0 });
  });

  it('ListenerDrainMaxDuration: a connection that takes the place of another leaves the row what it is', async () => {
    const operator = await startOperator();
    await fleet.start();
    envoy.connectTunnel(initiator('node-1'));
    const before = await rowsOf('node-1');
    // The new one comes first: nothing to report.
    envoy.connectTunnel(initiator('node-1'));
    envoy.disconnectTunnel('node-1');
    await msForHeartbeats(operator, 2);
    expect(await rowsOf('node-1')).to.deep.equal(before);
    // The old one goes first: the name is in both lists of one report, and the row gets another createdAt.
    envoy.flap('node-1');
    const after = await rowsOf('node-1');
    expect(uids(after)).to.deep.equal(uids(before));
    expect(after[0]?.spec.createdAt).to.not.equal(before[0]?.spec.createdAt);
    expect(await writes()).to.deep.equal({ create: 1, patch: 1, delete: 0, status: 0, failed: 0 });
  });
});

/** How long so many reports without changes take to come, from the first one on. */
async function msForHeartbeats(operator: OperatorProcess, times: number): Promise<number> {
  const heartbeats = (): Promise<number> => operator.metric('reverse_tunnel_reports_total{kind="heartbeat"}');
  const atLeast = (least: number): Promise<number> =>
    poll(DEADLINE_MS, async () => {
      const now = await heartbeats();
      return now >= least ? now : undefined;
    });
  const first = await atLeast((await heartbeats()) + 1);
  const startedMs = performance.now();
  await atLeast(first + times);
  return performance.now() - startedMs;
}
