import { expect } from 'chai';
import type { LifecycleEvent } from '../../src/agent/lifecycle-log.ts';
import type { TunnelGauges } from '../../src/agent/tunnel-gauges.ts';
import { TunnelTracker, type TunnelTrackerOptions } from '../../src/agent/tunnel-tracker.ts';

const TIME = { seconds: 1_795_864_794, nanos: 82_196_000 };

function gauges(...names: readonly string[]): TunnelGauges {
  const none = new Set<string>();
  const tunnels = new Map(names.map((name) => [name, 1]));
  return { tunnels, clusters: none, nodes: none, endedTunnels: none, endedClusters: none };
}

function event(type: LifecycleEvent['type'], overrides: Partial<LifecycleEvent> = {}): LifecycleEvent {
  const identity = { tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-17' };
  return { type, ...identity, connection: 'worker_0/33', time: TIME, ...overrides };
}

function createTracker(options: Partial<TunnelTrackerOptions> = {}): TunnelTracker {
  return new TunnelTracker({ tenantIsolation: false, defaultTenant: undefined, ...options });
}

describe('The tunnels of a standard Envoy', () => {
  it('are scoped by the tenant under tenant isolation, as the contrib reporter scopes them', () => {
    const { connections } = createTracker({ tenantIsolation: true }).onPoll(gauges('acme:eu-1:node-17'));
    expect(connections).to.deep.equal([
      {
        name: 'acme:node-17',
        tenantID: 'acme',
        clusterID: 'acme:eu-1',
        nodeID: 'acme:node-17',
        createdAt: undefined,
      },
    ]);
  });

  it('have the tenant and the time of the log without tenant isolation', () => {
    const tracker = createTracker({ defaultTenant: 'other' });
    tracker.onLogEvent(event('setup'));
    expect(tracker.onPoll(gauges('eu-1:node-17')).connections).to.deep.equal([
      { name: 'node-17', tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-17', createdAt: TIME },
    ]);
  });

  it('have the default tenant where the log contains nothing', () => {
    const { connections } = createTracker({ defaultTenant: 'acme' }).onPoll(gauges('eu-1:node-17'));
    expect(connections).to.have.length(1).and.have.nested.property('0.tenantID', 'acme');
  });

  it('are added once and removed once', () => {
    const tracker = createTracker({ defaultTenant: 'acme' });
    tracker.onPoll(gauges('eu-1:node-17'));
    expect(tracker.onPoll(gauges('eu-1:node-17'))).to.deep.equal({ connections: [], disconnections: [] });
    expect(tracker.onPoll(gauges())).to.deep.equal({ connections: [], disconnections: ['node-17'] });
    expect(tracker.all()).to.deep.equal([]);
  });

  it('are in both lists if they drop and return between two polls', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('closed'));
    const later = { ...TIME, nanos: 0 };
    tracker.onLogEvent(event('setup', { time: later, connection: 'worker_0/34' }));
    const { connections, disconnections } = tracker.onPoll(gauges('eu-1:node-17'));
    expect(disconnections).to.deep.equal(['node-17']);
    expect(connections.map(({ createdAt }) => createdAt)).to.deep.equal([later]);
  });

  it('are corrected once if their log line arrives after the gauge', () => {
    const tracker = createTracker({ defaultTenant: 'other' });
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('setup'));
    const { connections, disconnections } = tracker.onPoll(gauges('eu-1:node-17'));
    expect(disconnections).to.deep.equal(['node-17']);
    expect(connections).to.deep.equal([
      { name: 'node-17', tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-17', createdAt: TIME },
    ]);
    tracker.onLogEvent(event('setup', { connection: 'worker_0/34' }));
    expect(tracker.onPoll(gauges('eu-1:node-17'))).to.deep.equal({ connections: [], disconnections: [] });
  });

  it('keep their tenant while the line about their end is ahead of the gauge', () => {
    const tracker = createTracker({ defaultTenant: 'other' });
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('closed'));
    expect(tracker.onPoll(gauges('eu-1:node-17'))).to.deep.equal({ connections: [], disconnections: [] });
  });

  it('change to the tenant that remains of two that shared their gauge', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('setup', { tenantID: 'umbrella', connection: 'worker_0/34' }));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('closed'));
    const { connections, disconnections } = tracker.onPoll(gauges('eu-1:node-17'));
    expect(disconnections).to.deep.equal(['node-17']);
    expect(connections).to.have.nested.property('0.tenantID', 'umbrella');
    expect(tracker.skipped).to.deep.equal([]);
  });

  it('have ended if Envoy reuses their connection, although the line about the end was lost', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    const later = { ...TIME, seconds: TIME.seconds + 60 };
    tracker.onLogEvent(event('setup', { nodeID: 'node-18', tenantID: 'umbrella', time: later }));
    tracker.onLogEvent(event('setup', { connection: 'worker_0/34', time: later }));
    const { connections, disconnections } = tracker.onPoll(gauges('eu-1:node-17', 'eu-1:node-18'));
    expect(disconnections).to.deep.equal(['node-17']);
    expect(connections.map(({ name, tenantID, createdAt }) => [name, tenantID, createdAt])).to.deep.equal([
      ['node-17', 'acme', later],
      ['node-18', 'umbrella', later],
    ]);
  });

  it('are skipped if a report cannot contain their ID, which leaves the others complete', () => {
    const tracker = createTracker({ defaultTenant: 'acme' });
    expect(tracker.onPoll(gauges('eu-1:node-\uFFFD', 'eu-1:node-17')).connections).to.have.length(1);
    expect(tracker.skipped).to.deep.equal([{ gauge: 'eu-1:node-\uFFFD', reason: 'invalid_utf8' }]);
    expect(tracker.isComplete).to.equal(true);
  });

  for (const gauge of ['node-17', '', ':', 'eu-1:', ':node-17']) {
    it(`are skipped, and incomplete, if a gauge is named "${gauge}"`, () => {
      const tracker = createTracker({ defaultTenant: 'acme' });
      expect(tracker.onPoll(gauges(gauge)).connections).to.deep.equal([]);
      expect(tracker.skipped).to.deep.equal([{ gauge, reason: 'malformed_name' }]);
      expect(tracker.isComplete).to.equal(false);
    });
  }

  for (const gauge of ['eu-1:node-17', 'a:b:c:d', ':eu-1:node-17', 'acme::node-17', 'acme:eu-1:']) {
    it(`are skipped, and incomplete, if a gauge is named "${gauge}" under tenant isolation`, () => {
      const tracker = createTracker({ tenantIsolation: true });
      expect(tracker.onPoll(gauges(gauge)).connections).to.deep.equal([]);
      expect(tracker.skipped).to.deep.equal([{ gauge, reason: 'malformed_name' }]);
      expect(tracker.isComplete).to.equal(false);
    });
  }

  it('get the time of their new connection if the line about the end of the old one was lost', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onPoll(gauges());
    tracker.onPoll(gauges());
    const later = { ...TIME, seconds: TIME.seconds + 60 };
    tracker.onLogEvent(event('setup', { time: later, tenantID: 'umbrella', connection: 'worker_0/34' }));
    const { connections } = tracker.onPoll(gauges('eu-1:node-17'));
    expect(connections.map(({ createdAt, tenantID }) => [createdAt, tenantID])).to.deep.equal([
      [later, 'umbrella'],
    ]);
  });

  it('are incomplete while one of them has no known tenant', () => {
    const tracker = createTracker();
    tracker.onPoll(gauges('eu-1:node-17'));
    expect(tracker.isComplete).to.equal(false);
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    expect(tracker.isComplete).to.equal(true);
  });

  it('stay up while one of several connections is open', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onLogEvent(event('setup', { connection: 'worker_0/34' }));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('closed'));
    expect(tracker.onPoll(gauges('eu-1:node-17'))).to.deep.equal({ connections: [], disconnections: [] });
  });

  it('are skipped while their tenant is unknown, and reported once the log names it', () => {
    const tracker = createTracker();
    expect(tracker.onPoll(gauges('eu-1:node-17')).connections).to.deep.equal([]);
    expect(tracker.skipped).to.deep.equal([{ gauge: 'eu-1:node-17', reason: 'unknown_tenant' }]);
    tracker.onLogEvent(event('setup'));
    expect(tracker.onPoll(gauges('eu-1:node-17')).connections).to.have.length(1);
    expect(tracker.skipped).to.deep.equal([]);
  });

  it('are skipped if two tenants share a gauge from the start', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onLogEvent(event('setup', { tenantID: 'umbrella', connection: 'worker_0/34' }));
    expect(tracker.onPoll(gauges('eu-1:node-17')).connections).to.deep.equal([]);
    expect(tracker.skipped).to.deep.equal([{ gauge: 'eu-1:node-17', reason: 'several_tenants' }]);
  });

  it('stay with the first tenant if a second one joins their gauge, which is flagged', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup'));
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('setup', { tenantID: 'umbrella', connection: 'worker_0/34' }));
    expect(tracker.onPoll(gauges('eu-1:node-17'))).to.deep.equal({ connections: [], disconnections: [] });
    expect(tracker.skipped).to.deep.equal([{ gauge: 'eu-1:node-17', reason: 'several_tenants' }]);
  });

  it('keep their name against a node of the same ID in another cluster', () => {
    const tracker = createTracker({ defaultTenant: 'acme' });
    tracker.onPoll(gauges('eu-1:node-17'));
    expect(tracker.onPoll(gauges('eu-1:node-17', 'us-1:node-17')).connections).to.deep.equal([]);
    expect(tracker.skipped).to.deep.equal([{ gauge: 'us-1:node-17', reason: 'duplicate_name' }]);
    const { connections, disconnections } = tracker.onPoll(gauges('us-1:node-17'));
    expect(disconnections).to.deep.equal(['node-17']);
    expect(connections).to.have.nested.property('0.clusterID', 'us-1');
  });

  it('are split by the log where an ID contains a colon', () => {
    const tracker = createTracker();
    tracker.onLogEvent(event('setup', { clusterID: 'eu:1', nodeID: 'node:17' }));
    expect(tracker.onPoll(gauges('eu:1:node:17')).connections).to.have.nested.property('0.nodeID', 'node:17');
  });

  it('are skipped if it is unknown where the cluster ends', () => {
    const tracker = createTracker({ defaultTenant: 'acme' });
    tracker.onPoll(gauges('eu:1:node-17'));
    expect(tracker.skipped).to.deep.equal([{ gauge: 'eu:1:node-17', reason: 'ambiguous_name' }]);
  });
});
