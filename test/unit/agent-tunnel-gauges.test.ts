import { expect } from 'chai';
import { parseTunnelGauges, splitGaugeName, tunnelGaugesPath } from '../../src/agent/tunnel-gauges.ts';

describe('The tunnel gauges of Envoy', () => {
  const text = [
    'edge.clusters.eu-1: 2',
    'edge.nodes.node-17: 2',
    'edge.nodes.node-18: 0',
    'edge.tunnels.eu-1:node-17: 2',
    'edge.tunnels.eu-1:node-18: 0',
    '',
  ].join('\n');

  it('are the tunnels with at least one connection', () => {
    expect(parseTunnelGauges(text, 'edge')).to.deep.equal({
      tunnels: new Map([['eu-1:node-17', 2]]),
      clusters: new Set(['eu-1']),
      nodes: new Set(['node-17']),
    });
  });

  it('may be absent, as long as no tunnel was ever up', () => {
    expect(parseTunnelGauges('', 'edge')).to.have.property('tunnels').with.property('size', 0);
  });

  const rejected = {
    'a login page': '<html><title>Sign in</title></html>\n',
    'half a line': 'edge.tunnels.eu-1:node-17: 2\nedge.tunnels.eu-1:no',
    'gauges of another prefix': 'other.tunnels.eu-1:node-17: 2\n',
    'other gauges of the prefix': 'edge.workers.worker_0: 2\n',
    'a count that is not a number': 'edge.tunnels.eu-1:node-17: many\n',
    'a negative count': 'edge.tunnels.eu-1:node-17: -1\n',
    'a gauge without a count': 'edge.tunnels.eu-1:node-17\n',
  };
  for (const [what, body] of Object.entries(rejected)) {
    it(`reject ${what}`, () => {
      expect(parseTunnelGauges(body, 'edge')).to.have.property('error');
    });
  }

  it('are requested by a filter in which the prefix is literal', () => {
    expect(decodeURIComponent(tunnelGaugesPath('a.b'))).to.include(
      String.raw`^a\.b\.(tunnels|clusters|nodes)\.`,
    );
  });

  it('name tenant, cluster and node under tenant isolation', () => {
    const none = { clusters: new Set<string>(), nodes: new Set<string>() };
    expect(splitGaugeName('acme:eu-1:node-17', true, none)).to.deep.equal([
      { tenantID: 'acme', clusterID: 'eu-1', nodeID: 'node-17' },
    ]);
    expect(splitGaugeName('eu-1:node-17', true, none)).to.deep.equal([]);
  });

  it('decide where an ID contains a colon', () => {
    const known = { clusters: new Set(['eu:1', 'us']), nodes: new Set(['node-17', 'x:y']) };
    expect(splitGaugeName('eu:1:node-17', false, known)).to.deep.equal([
      { tenantID: undefined, clusterID: 'eu:1', nodeID: 'node-17' },
    ]);
    expect(splitGaugeName('us:x:y', false, known)).to.deep.equal([
      { tenantID: undefined, clusterID: 'us', nodeID: 'x:y' },
    ]);
  });

  it('leave several splits where they do not decide', () => {
    const known = { clusters: new Set(['a', 'a:b']), nodes: new Set(['c', 'b:c']) };
    expect(splitGaugeName('a:b:c', false, known)).to.have.length(2);
  });
});
