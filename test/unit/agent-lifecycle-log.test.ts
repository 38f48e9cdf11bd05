import { expect } from 'chai';
import { parseLifecycleLine } from '../../src/agent/lifecycle-log.ts';

describe('A line of the lifecycle log', () => {
  const lifecycle = {
    event: 'tunnel_setup',
    tenant_id: 'acme',
    cluster_id: 'eu-1',
    node_id: 'node-17',
    worker: 'worker_0',
    fd: 33,
  };

  it('names the tunnel and the time at which it came up', () => {
    expect(parseLifecycleLine(JSON.stringify({ time: '1795864794.082196', lifecycle }))).to.deep.equal({
      type: 'setup',
      tenantID: 'acme',
      clusterID: 'eu-1',
      nodeID: 'node-17',
      connection: '["worker_0",33]',
      time: { seconds: 1_795_864_794, nanos: 82_196_000 },
    });
  });

  it('may lack the time and the tenant', () => {
    const { tenant_id: _, ...rest } = lifecycle;
    expect(parseLifecycleLine(JSON.stringify({ time: '-', lifecycle: rest }))).to.include({
      tenantID: '',
      time: undefined,
    });
  });

  it('is ignored for other events', () => {
    expect(parseLifecycleLine(JSON.stringify({ lifecycle: { ...lifecycle, event: 'ping' } }))).to.equal(
      undefined,
    );
  });

  it('is rejected if it does not identify the connection', () => {
    const { fd: _, ...rest } = lifecycle;
    expect(parseLifecycleLine(JSON.stringify({ lifecycle: rest }))).to.have.property('error');
  });

  for (const line of ['', '{"time": "17', 'null', '[]', '{}', '{"lifecycle":{"event":"tunnel_setup"}}']) {
    it(`is rejected if it is ${JSON.stringify(line)}`, () => {
      expect(parseLifecycleLine(line)).to.have.property('error');
    });
  }
});
