import { expect } from 'chai';
import type { TunnelUpdates } from '../../src/simulate/envoy-client.ts';
import { createTunnelRegistry } from '../../src/simulate/tunnel-registry.ts';

function world() {
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

describe("the simulated Envoy's count of connections", () => {
  it('makes a tunnel of the first connection of a name, with the microsecond it came up', () => {
    const { registry, updates } = world();
    registry.connect(NODE);
    expect(updates).to.deep.equal([{ connections: [TUNNEL], disconnections: [] }]);
    expect(registry.all()).to.deep.equal([TUNNEL]);
  });

  it('says nothing of further connections of that name, and keeps the identity of the first', () => {
    const { registry, updates, time } = world();
    registry.connect(NODE);
    time.micros += 1_000_000;
    registry.connect({ ...NODE, tenantID: 'globex' });
    expect(updates).to.have.length(1);
    expect(registry.all()).to.deep.equal([TUNNEL]);
  });

  it('ends the tunnel with the last connection of that name, not before', () => {
    const { registry, updates } = world();
    registry.connect(NODE);
    registry.connect(NODE);
    expect(registry.disconnect('node-1')).to.equal(true);
    expect(updates).to.have.length(1);
    expect(registry.size).to.equal(1);
    expect(registry.disconnect('node-1')).to.equal(true);
    expect(updates[1]).to.deep.equal({ connections: [], disconnections: ['node-1'] });
    expect(registry.size).to.equal(0);
  });

  it('takes a name that returns for a new tunnel, with its new identity and time', () => {
    const { registry, time } = world();
    registry.connect(NODE);
    registry.disconnect('node-1');
    time.micros += 1_000_001;
    registry.connect({ ...NODE, tenantID: 'globex' });
    expect(registry.all()).to.deep.equal([
      { ...TUNNEL, tenantID: 'globex', createdAt: { seconds: 1_764_000_001, nanos: 123_457_000 } },
    ]);
  });

  it('ignores the end of a connection that it does not know', () => {
    const { registry, updates } = world();
    expect(registry.disconnect('node-1')).to.equal(false);
    expect(updates).to.deep.equal([]);
  });
});
