import { expect } from 'chai';
import { createFleet, type Fleet, type FleetOptions } from '../../src/simulate/fleet.ts';
import { eventually } from '../support/eventually.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';
import { ack, startRecordingServer, type RecordingServer } from '../support/recording-server.ts';
import { startTestServer } from '../support/reporting-server.ts';

const INTERVAL_MS = 50;
const RETRY_MS = 100;

describe('reporter fleet over gRPC', () => {
  const running: { stop(): void | Promise<void> }[] = [];

  async function serve(port?: number): Promise<RecordingServer> {
    const server = await startRecordingServer(port);
    running.push(server);
    return server;
  }

  async function start(address: string, options: Partial<FleetOptions> = {}): Promise<Fleet> {
    const fleet = createFleet({
      address,
      intervalMs: INTERVAL_MS,
      connectRetryIntervalMs: RETRY_MS,
      maxRetries: PATIENT_MAX_RETRIES,
      reporters: 2,
      tunnels: 10,
      ...options,
    });
    running.push(fleet);
    await fleet.start();
    return fleet;
  }

  afterEach(async () => {
    for (const resource of running.splice(0).toReversed()) await resource.stop();
  });

  it('reports existing tunnels on connect, then additions and removals (Envoy: HappyPath)', async () => {
    const server = await serve();
    const fleet = await start(server.address, { tunnels: 0 });
    const [reporter] = fleet.reporters;
    await expectEqual(fleet, server);
    const first = fleet.newInitiator();
    reporter?.connectTunnel(first);
    reporter?.connectTunnel(fleet.newInitiator());
    await expectEqual(fleet, server);
    expect(server.held.get('responder-0')?.size).to.equal(2);
    reporter?.disconnectTunnel(first.nodeID);
    await expectEqual(fleet, server);
    expect(server.held.get('responder-0')?.size).to.equal(1);
    for (const { reports } of server.streams) {
      expect(reports.map(({ fullPush }) => fullPush)).to.deep.equal(reports.map((_, i) => i === 0));
      expect(reports.map(({ nonce }) => nonce)).to.deep.equal(reports.map((_, i) => BigInt(i + 1)));
    }
    expect(fleet.statistics()).to.deep.include({ connects: 2, outOfOrderAcks: 0, nacks: 0 });
  });

  it('prefixes names and IDs with the tenant (Envoy: TenantIsolation)', async () => {
    const server = await serve();
    const fleet = await start(server.address, { tenantIsolation: true });
    await expectEqual(fleet, server);
    expect(server.held.get('responder-0')?.get('tenant-1:node-1')).to.deep.include({
      tenantID: 'tenant-1',
      clusterID: 'tenant-1:cluster-0',
      nodeID: 'tenant-1:node-1',
    });
  });

  it('reconnects with a full push after a restart of the server (Envoy: ServerReconnect)', async () => {
    const server = await serve();
    const fleet = await start(server.address);
    await expectEqual(fleet, server);
    server.stop();
    await eventually('both reporters are disconnected', () => fleet.statistics().connected === 0);
    const restarted = await serve(Number(server.address.split(':')[1]));
    await expectEqual(fleet, restarted);
    expect(restarted.streams.map(({ reports }) => reports[0]?.fullPush)).to.deep.equal([true, true]);
    expect(fleet.statistics().connects).to.equal(4);
  });

  it('reports the final state of changes during an outage of the server (Envoy: EventsWhenServerIsDead)', async () => {
    const server = await serve();
    const fleet = await start(server.address);
    await expectEqual(fleet, server);
    server.stop();
    await eventually('both reporters are disconnected', () => fleet.statistics().connected === 0);
    const [reporter] = fleet.reporters;
    reporter?.disconnectTunnel('node-0');
    reporter?.flap('node-1');
    const added = fleet.newInitiator();
    reporter?.connectTunnel(added);
    const restarted = await serve(Number(server.address.split(':')[1]));
    await expectEqual(fleet, restarted);
    expect(restarted.held.get('responder-0')).to.include.keys('node-1', added.nodeID);
    expect(restarted.held.get('responder-0')).to.not.include.keys('node-0');
  });

  it('retries without limit until the server starts (Envoy: ServerDead, ServerLate)', async () => {
    const port = await freePort();
    const fleet = await start(`127.0.0.1:${port}`, { connectRetryIntervalMs: 20 });
    await eventually('ten attempts of both', () => fleet.statistics().attempts >= 20);
    expect(fleet.statistics()).to.deep.include({ connected: 0, acks: 0 });
    expect(fleet.statistics().lastDisconnect?.message).to.include('ECONNREFUSED');
    const server = await serve(port);
    await expectEqual(fleet, server);
  });

  it('reports at the interval that the server sends (Envoy: ServerSentTime)', async () => {
    const server = await serve();
    server.respond = (report) => ack(report, report.nonce === 1n ? 25 : undefined);
    await start(server.address, { reporters: 1, intervalMs: 2000 });
    // At the configured interval of 2 s, forty more reports would take 80 s and exceed the timeout.
    await eventually('the 41st report', () => (server.streams[0]?.reports.length ?? 0) > 40);
    expect(server.streams).to.have.length(1);
  });

  it('reports additions and removals of a thousand nodes (Envoy: LoadTest)', async () => {
    const server = await serve();
    const fleet = await start(server.address, { reporters: 1, tunnels: 0 });
    const [reporter] = fleet.reporters;
    const nodes = Array.from({ length: 1000 }, () => fleet.newInitiator());
    for (const node of nodes) reporter?.connectTunnel(node);
    await expectEqual(fleet, server);
    expect(server.held.get('responder-0')?.size).to.equal(1000);
    for (const { nodeID } of nodes) reporter?.disconnectTunnel(nodeID);
    await expectEqual(fleet, server);
    expect(server.held.get('responder-0')?.size).to.equal(0);
  });

  it('counts several connections of a node as one tunnel (Envoy: ManyTunnelsSingleListenerDrain)', async () => {
    const server = await serve();
    const fleet = await start(server.address, { reporters: 1, tunnels: 0 });
    const [reporter] = fleet.reporters;
    const node = fleet.newInitiator();
    for (let i = 0; i < 100; i += 1) reporter?.connectTunnel(node);
    await expectEqual(fleet, server);
    expect(fleet.statistics().tunnelsAdded).to.equal(1);
    for (let i = 0; i < 100; i += 1) reporter?.disconnectTunnel(node.nodeID);
    await expectEqual(fleet, server);
    expect(fleet.statistics().tunnelsRemoved).to.equal(1);
  });

  it('processes an ACK that precedes the end of a stream with OK, and reconnects', async () => {
    const server = await serve();
    server.respond = (report, stream) => {
      if (server.streams.length === 1) setImmediate(() => stream.end(0));
      return ack(report);
    };
    const fleet = await start(server.address, { reporters: 1 });
    await eventually('the second connect', () => fleet.statistics().connects === 2);
    expect(fleet.statistics()).to.deep.include({ acks: 2, outOfOrderAcks: 0 });
    expect(fleet.statistics().disconnects.remote_close).to.equal(1);
  });

  it('processes a NACK that precedes the end of a stream', async () => {
    const server = await serve();
    server.respond = (report, stream) => {
      if (server.streams.length > 1) return ack(report);
      setImmediate(() => stream.end(0));
      return { ...ack(report), error_detail: { code: 3, message: 'node.id: is empty' } };
    };
    const fleet = await start(server.address, { reporters: 1 });
    await eventually('the connect after it', () => fleet.statistics().connected === 1);
    expect(fleet.statistics()).to.deep.include({ nacks: 1, attempts: 2 });
    expect(fleet.statistics().disconnects.remote_close).to.equal(0);
    expect(fleet.statistics().lastDisconnect?.message).to.equal('node.id: is empty');
  });

  it('resets a stream without ACKs, keeps the connection, and counts ACKs with unknown nonces', async () => {
    const server = await serve();
    server.respond = (report) =>
      server.streams.length === 1 ? { request_nonce: '9223372036854775807' } : ack(report);
    const fleet = await start(server.address, { reporters: 1, maxRetries: 2, intervalMs: 100 });
    await eventually('the connect after it', () => fleet.statistics().connected === 1);
    expect(fleet.statistics().disconnects).to.include({ max_retries_exceeded: 1, remote_close: 0 });
    // The number of responses that arrive before the reset, at most three, depends on the load.
    expect(fleet.statistics().outOfOrderAcks).to.be.within(1, 3);
    expect(server.streams[0]).to.include({ ended: true });
    expect(server.streams[1]?.peer).to.equal(server.streams[0]?.peer);
  });

  for (const faultyLinks of [false, true]) {
    it(`reconnects a single reporter after its connection was ${faultyLinks ? 'reset by RST' : 'closed'}`, async () => {
      const server = await serve();
      const fleet = await start(server.address, { faultyLinks });
      await expectEqual(fleet, server);
      fleet.reporters[0]?.resetConnection();
      await eventually(
        'one reporter is disconnected',
        () => fleet.statistics().disconnects.remote_close === 1,
      );
      fleet.reporters[0]?.disconnectTunnel('node-3');
      await expectEqual(fleet, server);
      expect(fleet.statistics()).to.deep.include({ connected: 2, connects: 3 });
      await eventually(
        'the server has seen the end',
        () => server.streams.filter(({ ended }) => ended).length === 1,
      );
    });
  }

  it('leaves a half-open connection at the server and reconnects', async () => {
    const server = await serve();
    const fleet = await start(server.address, { reporters: 1, faultyLinks: true });
    await expectEqual(fleet, server);
    fleet.reporters[0]?.halfOpenConnection();
    await eventually('a second stream', () => server.streams.length === 2);
    await expectEqual(fleet, server);
    const heard = server.streams[0]?.reports.length;
    await eventually('ten more heartbeats', () => (server.streams[1]?.reports.length ?? 0) > 10);
    expect(server.streams[0]).to.include({ ended: false });
    expect(server.streams[0]?.reports).to.have.length(heard ?? Number.NaN);
  });

  it('stops and starts one reporter without affecting the others, even on a shared connection', async () => {
    const server = await serve();
    const fleet = await start(server.address, { reporters: 3, sharedConnection: true });
    await expectEqual(fleet, server);
    fleet.reporters[0]?.stop();
    await eventually('its stream has ended', () => server.streams.filter(({ ended }) => ended).length === 1);
    fleet.reporters[0]?.disconnectTunnel('node-0');
    fleet.reporters[0]?.start();
    await expectEqual(fleet, server);
    expect(fleet.statistics()).to.deep.include({ connected: 3, connects: 4 });
    expect(server.streams.filter(({ ended }) => ended)).to.have.length(1);
    expect(new Set(server.streams.map(({ peer }) => peer))).to.have.property('size', 1);
  });

  it('sends 100,000 tunnels in a single message', async () => {
    const server = await serve();
    const fleet = await start(server.address, { reporters: 1, tunnels: 100_000, tenantIsolation: true });
    await fleet.settled();
    expect(server.streams).to.have.length(1);
    expect(server.streams[0]?.reports[0]?.added).to.have.length(100_000);
    expect(server.streams[0]?.sizes[0]).to.be.greaterThan(8_000_000);
    expect(server.held.get('responder-0')?.size).to.equal(100_000);
  });

  it('converges under churn, flaps and connection failures', async () => {
    const server = await serve();
    const fleet = await start(server.address, {
      reporters: 10,
      churnPerSecond: 200,
      flapsPerSecond: 200,
      intervalMs: 25,
      seed: 5,
    });
    await eventually('every reporter has reported twenty times', () => fleet.statistics().acks > 200);
    for (const reporter of fleet.reporters.slice(0, 5)) reporter.resetConnection();
    await eventually('five have come back', () => fleet.statistics().connects === 15);
    await eventually('some hundred reports more', () => fleet.statistics().acks > 500);
    fleet.pauseChurn();
    await expectEqual(fleet, server);
    const inBothLists = server.streams
      .flatMap(({ reports }) => reports)
      .filter(({ added, removedNames }) => added.some(({ name }) => removedNames.includes(name)));
    expect(inBothLists).to.not.be.empty;
    expect(fleet.statistics()).to.deep.include({ outOfOrderAcks: 0, nacks: 0, droppedUpdates: 0 });
  });

  it("is accepted by the operator's server without rejections", async () => {
    const server = await startTestServer({ reportIntervalMs: () => 25 });
    running.push(server);
    const fleet = await start(server.address, {
      reporters: 5,
      tunnels: 100,
      churnPerSecond: 200,
      flapsPerSecond: 200,
      tenantIsolation: true,
    });
    await eventually('some hundred reports', () => fleet.statistics().acks > 300);
    fleet.pauseChurn();
    await fleet.settled();
    expect(fleet.statistics()).to.deep.include({ connected: 5, attempts: 5, outOfOrderAcks: 0, nacks: 0 });
    const [acks] = (await server.metrics.acks.get()).values;
    expect(acks?.value).to.be.at.least(fleet.statistics().acks);
    const firstPushes = server.applied.filter(({ report }) => report.fullPush);
    expect(firstPushes.map(({ report }) => report.added.length)).to.deep.equal([100, 100, 100, 100, 100]);
    const applied = server.applied.reduce((sum, { report }) => sum + report.added.length, 0);
    expect(applied).to.equal(fleet.statistics().tunnelsAdded);
  });
});

/** Waits until all reports are ACKed, and compares the tunnels at the server with those of the fleet. */
async function expectEqual(fleet: Fleet, server: RecordingServer): Promise<void> {
  await fleet.settled();
  const expected = new Map(
    Array.from(fleet.expectedTunnels(), ([{ id }, tunnels]) => [id, new Map(tunnels)]),
  );
  expect(server.held).to.deep.equal(expected);
}

/** Returns a loopback port without a listener. */
async function freePort(): Promise<number> {
  const server = await startRecordingServer();
  server.stop();
  return Number(server.address.split(':')[1]);
}
