import { expect } from 'chai';
import type { TunnelUpdates } from '../../src/simulate/envoy-client.ts';
import { createTunnelRegistry } from '../../src/simulate/tunnel-registry.ts';

function createHarness() {
  const updates: TunnelUpdates[] = [];
  const time = { micros: 1_764_000_000_123_456 };
  const registry = createTunnelRegistry(
    () => time.micros,
    (update) => updates.push(update),
  );
  return { registry, updates, time };
}

const NODE = { tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-1' };
const TUNNEL = {
  name: 'node-1',
  ...NODE,
  createdAt: { seconds: 1_764_000_000, nanos: 123_456_000 },
};

describe('tunnel registry of a simulated Envoy', () => {
  it('adds a tunnel for the first connection of a name, with a created_at in microseconds', () => {
    const { registry, updates } = createHarness();
    registry.connect(NODE);
    expect(updates).to.deep.equal([{ connections: [TUNNEL], disconnections: [] }]);
    expect(registry.all()).to.deep.equal([TUNNEL]);
  });

  it('ignores further connections of a name and keeps the identity of the first one', () => {
    const { registry, updates, time } = createHarness();
    registry.connect(NODE);
    time.micros += 1_000_000;
    registry.connect({ ...NODE, tenantID: 'globex' });
    expect(updates).to.have.length(1);
    expect(registry.all()).to.deep.equal([TUNNEL]);
  });

  it('removes a tunnel with its last connection', () => {
    const { registry, updates } = createHarness();
    registry.connect(NODE);
    registry.connect(NODE);
    expect(registry.disconnect('node-1')).to.equal(true);
    expect(updates).to.have.length(1);
    expect(registry.size).to.equal(1);
    expect(registry.disconnect('node-1')).to.equal(true);
    expect(updates[1]).to.deep.equal({ connections: [], disconnections: ['node-1'] });
    expect(registry.size).to.equal(0);
  });

  it('treats a name that returns as a new tunnel with a new identity and time', () => {
    const { registry, time } = createHarness();
    registry.connect(NODE);
    registry.disconnect('node-1');
    time.micros += 1_000_001;
    registry.connect({ ...NODE, tenantID: 'globex' });
    expect(registry.all()).to.deep.equal([
      { ...TUNNEL, tenantID: 'globex', createdAt: { seconds: 1_764_000_001, nanos: 123_457_000 } },
    ]);
  });

  it('ignores the end of an unknown connection', () => {
    const { registry, updates } = createHarness();
    expect(registry.disconnect('node-1')).to.equal(false);
    expect(updates).to.deep.equal([]);
  });
});
