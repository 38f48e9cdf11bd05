import { expect } from 'chai';
import type { ReportMessage, ReportStream, StreamHandlers } from '../../src/grpc/report-message.ts';
import type { ReportingConnection } from '../../src/grpc/reporting-client.ts';
import { createFleet, type Fleet, type FleetOptions } from '../../src/simulate/fleet.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** Creates a fleet with a fake clock, whose reports are ACKed immediately unless `network.responds` is set to false. */
function createHarness(options: Partial<FleetOptions> = {}) {
  const clock = new FakeClock();
  const reports: ReportMessage[] = [];
  const open = new Set<StreamHandlers>();
  const network = { responds: true };
  const connections = new Set<object>();
  const fleet = createFleet(
    {
      address: '127.0.0.1:1',
      reporters: 3,
      tunnels: 20,
      tenants: 2,
      clusters: 2,
      intervalMs: 1000,
      ...options,
    },
    {
      clock,
      dial() {
        const connection: ReportingConnection = {
          openStream(handlers): ReportStream {
            open.add(handlers);
            return {
              send(report) {
                reports.push(report);
                if (!network.responds) return;
                handlers.onResponse({
                  requestNonce: report.nonce,
                  reportIntervalMs: undefined,
                  error: undefined,
                });
              },
              reset: () => void open.delete(handlers),
            };
          },
          reset() {
            for (const handlers of open) handlers.onEnd({ code: 14, message: 'dropped' });
          },
          close: () => void connections.delete(connection),
        };
        connections.add(connection);
        return connection;
      },
    },
  );
  return { clock, fleet, reports, network, open, connections };
}

function names(fleet: Fleet): string[] {
  return [...fleet.expectedTunnels().values()].flatMap((tunnels) => Array.from(tunnels.keys()));
}

/** Returns the tunnel names of a fleet with this seed after 20 s of churn and flaps. */
async function namesAfterChurn(seed: number): Promise<string[]> {
  const { fleet, clock } = createHarness({ seed, churnPerSecond: 7, flapsPerSecond: 3 });
  await fleet.start();
  clock.advance(20_000);
  fleet.pauseChurn();
  const held = names(fleet);
  await fleet.stop();
  return held;
}

describe('reporter fleet: tunnels', () => {
  it('gives each reporter an ID and tunnels of distinct nodes, spread over tenants and clusters', () => {
    const { fleet, clock } = createHarness();
    expect([...fleet.expectedTunnels().keys()]).to.deep.equal([
      { cluster: 'edge', id: 'responder-0' },
      { cluster: 'edge', id: 'responder-1' },
      { cluster: 'edge', id: 'responder-2' },
    ]);
    expect(fleet.tunnelCount()).to.equal(60);
    expect(new Set(names(fleet))).to.have.property('size', 60);
    const seconds = Math.floor(clock.wallMs() / 1000);
    expect([...(fleet.reporters[0]?.expectedTunnels().values() ?? [])].slice(0, 4)).to.deep.equal([
      {
        name: 'node-0',
        tenantID: 'tenant-0',
        clusterID: 'cluster-0',
        nodeID: 'node-0',
        createdAt: { seconds, nanos: 0 },
      },
      {
        name: 'node-1',
        tenantID: 'tenant-1',
        clusterID: 'cluster-0',
        nodeID: 'node-1',
        createdAt: { seconds, nanos: 0 },
      },
      {
        name: 'node-2',
        tenantID: 'tenant-0',
        clusterID: 'cluster-1',
        nodeID: 'node-2',
        createdAt: { seconds, nanos: 0 },
      },
      {
        name: 'node-3',
        tenantID: 'tenant-1',
        clusterID: 'cluster-1',
        nodeID: 'node-3',
        createdAt: { seconds, nanos: 0 },
      },
    ]);
  });

  it('prefixes name, node and cluster with the tenant under tenant isolation, but not tenantID', () => {
    const { fleet } = createHarness({ tenantIsolation: true });
    expect(fleet.reporters[0]?.expectedTunnels().get('tenant-1:node-1')).to.deep.include({
      name: 'tenant-1:node-1',
      tenantID: 'tenant-1',
      clusterID: 'tenant-1:cluster-0',
      nodeID: 'tenant-1:node-1',
    });
  });
});

describe('reporter fleet: churn', () => {
  it('replaces tunnels at the configured rate, keeps its size, and stops when it is paused', async () => {
    const { fleet, clock } = createHarness({ churnPerSecond: 5 });
    await fleet.start();
    clock.advance(10_000);
    expect(fleet.tunnelCount()).to.equal(60);
    expect(fleet.newInitiator().nodeID).to.equal('node-110');
    const before = names(fleet);
    fleet.pauseChurn();
    clock.advance(10_000);
    expect(names(fleet)).to.deep.equal(before);
    fleet.resumeChurn();
    clock.advance(10_000);
    expect(names(fleet)).to.not.deep.equal(before);
    await fleet.stop();
  });

  it('flaps tunnels within one report or for longer, and restores all of them when it is paused', async () => {
    const { fleet, clock, reports } = createHarness({ flapsPerSecond: 10 });
    const before = new Set(names(fleet));
    await fleet.start();
    let minTunnels = fleet.tunnelCount();
    for (let i = 0; i < 100; i += 1) {
      clock.advance(100);
      minTunnels = Math.min(minTunnels, fleet.tunnelCount());
    }
    expect(minTunnels).to.be.lessThan(60);
    fleet.pauseChurn();
    expect(new Set(names(fleet))).to.deep.equal(before);
    const inBoth = reports.filter(({ added, removedNames }) =>
      added.some(({ name }) => removedNames.includes(name)),
    );
    const removedOnly = reports.filter(({ added, removedNames }) =>
      removedNames.some((removed) => added.every(({ name }) => name !== removed)),
    );
    expect(inBoth).to.have.length.greaterThan(5);
    expect(removedOnly).to.have.length.greaterThan(5);
    await fleet.stop();
  });

  it('ends with the same tunnels for the same seed, and with different ones for another seed', async () => {
    const reference = await namesAfterChurn(1);
    expect(await namesAfterChurn(1)).to.deep.equal(reference);
    expect(await namesAfterChurn(2)).to.not.have.members(reference);
  });

  it('does not restore tunnels that a test has disconnected', async () => {
    const { fleet, clock } = createHarness({ reporters: 1, tunnels: 5, churnPerSecond: 1 });
    await fleet.start();
    for (const name of names(fleet)) fleet.reporters[0]?.disconnectTunnel(name);
    clock.advance(10_000);
    expect(fleet.tunnelCount()).to.equal(0);
    await fleet.stop();
  });
});

describe('reporter fleet: start, settle and stop', () => {
  it('spreads the starts of its reporters over the ramp-up time', async () => {
    const { fleet, clock } = createHarness({ rampUpMs: 3000 });
    await fleet.start();
    const connected: number[] = [];
    for (let i = 0; i < 3; i += 1) {
      clock.advance(i === 0 ? 0 : 1000);
      connected.push(fleet.statistics().connected);
    }
    expect(connected).to.deep.equal([1, 2, 3]);
    await fleet.stop();
  });

  it('settles once every report with content is ACKed, and again after each change', async () => {
    const { fleet, clock, network, open } = createHarness();
    network.responds = false;
    await fleet.start();
    clock.advance(0);
    let settled = 0;
    const first = fleet.settled().then(() => (settled += 1));
    await Promise.resolve();
    expect(settled).to.equal(0);
    for (const handlers of open)
      handlers.onResponse({ requestNonce: 1n, reportIntervalMs: undefined, error: undefined });
    await first;

    network.responds = true;
    fleet.reporters[1]?.connectTunnel(fleet.newInitiator());
    const second = fleet.settled().then(() => (settled += 1));
    await Promise.resolve();
    expect(settled).to.equal(1);
    clock.advance(1000);
    await second;
    expect(settled).to.equal(2);
    await fleet.stop();
  });

  it('does not wait for a stopped reporter, but for one that is started again', async () => {
    const { fleet, clock, network } = createHarness();
    await fleet.start();
    clock.advance(0);
    fleet.reporters[0]?.stop();
    fleet.reporters[0]?.connectTunnel(fleet.newInitiator());
    await fleet.settled();
    expect(fleet.statistics().connected).to.equal(2);

    network.responds = false;
    fleet.reporters[0]?.start();
    let outcome = 'waiting';
    const waiting = fleet.settled().then(
      () => (outcome = 'settled'),
      (error: Error) => (outcome = error.message),
    );
    await Promise.resolve();
    expect(outcome).to.equal('waiting');
    await fleet.stop();
    await waiting;
    expect(outcome).to.equal('the fleet was stopped before it settled');
  });

  it('counts streams, disconnects by reason and reconnects', async () => {
    const { fleet, clock } = createHarness({ reporters: 1, connectRetryIntervalMs: 500 });
    await fleet.start();
    clock.advance(0);
    fleet.reporters[0]?.resetConnection();
    expect(fleet.statistics()).to.deep.include({ connected: 0, attempts: 1, connects: 1, everConnected: 1 });
    clock.advance(500);
    expect(fleet.statistics()).to.deep.include({ connected: 1, attempts: 2, connects: 2, everConnected: 1 });
    expect(fleet.statistics().disconnects).to.include({ remote_close: 1, nack_received: 0 });
    expect(fleet.statistics().lastDisconnect).to.deep.equal({
      reporter: { cluster: 'edge', id: 'responder-0' },
      reason: 'remote_close',
      message: 'dropped',
    });
    await fleet.stop();
  });

  it('leaves no timer, stream or connection after a stop', async () => {
    const { fleet, clock, connections, open } = createHarness({
      churnPerSecond: 5,
      flapsPerSecond: 5,
      rampUpMs: 3000,
    });
    await fleet.start();
    clock.advance(1500);
    expect(connections.size).to.equal(3);
    await fleet.stop();
    expect(clock.pendingTimersMs).to.deep.equal([]);
    expect([...open]).to.deep.equal([]);
    expect(connections.size).to.equal(0);
  });

  it('uses a single connection with sharedConnection and keeps it when a reporter stops', async () => {
    const { fleet, clock, connections, open } = createHarness({ sharedConnection: true });
    await fleet.start();
    clock.advance(0);
    expect(connections.size).to.equal(1);
    fleet.reporters[0]?.stop();
    expect(connections.size).to.equal(1);
    expect(open.size).to.equal(2);
    await fleet.stop();
  });

  it('rejects a half-open connection without faultyLinks', async () => {
    const { fleet, clock } = createHarness();
    await fleet.start();
    clock.advance(0);
    expect(() => fleet.reporters[0]?.halfOpenConnection()).to.throw('needs a fleet with faultyLinks');
    await fleet.stop();
  });
});
