import { expect } from 'chai';
import type { LifecycleEvent } from '../../src/agent/lifecycle-log.ts';
import type { TunnelGauges } from '../../src/agent/tunnel-gauges.ts';
import { TunnelTracker, type TunnelTrackerOptions } from '../../src/agent/tunnel-tracker.ts';

const TIME = { seconds: 1_795_864_794, nanos: 82_196_000 };

function gauges(...names: readonly string[]): TunnelGauges {
  return { tunnels: new Map(names.map((name) => [name, 1])), clusters: new Set(), nodes: new Set() };
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

  it('are not reported again if their log line arrives after the gauge', () => {
    const tracker = createTracker({ defaultTenant: 'acme' });
    tracker.onPoll(gauges('eu-1:node-17'));
    tracker.onLogEvent(event('setup'));
    expect(tracker.onPoll(gauges('eu-1:node-17'))).to.deep.equal({ connections: [], disconnections: [] });
  });

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
