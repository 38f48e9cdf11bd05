import { expect } from 'chai';
import {
  missingGauge,
  parseTunnelGauges,
  splitGaugeName,
  tunnelGaugesPath,
  type TunnelGauges,
} from '../../src/agent/tunnel-gauges.ts';

function parse(...lines: readonly string[]): TunnelGauges {
  const gauges = parseTunnelGauges(lines.map((line) => `edge.${line}\n`).join(''), 'edge');
  if ('error' in gauges) throw new Error(gauges.error);
  return gauges;
}

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
      endedTunnels: new Set(['eu-1:node-18']),
      endedClusters: new Set(),
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
    'a gauge with an empty count': 'edge.tunnels.eu-1:node-17: \n',
    'a count with a fraction': 'edge.tunnels.eu-1:node-17: 1.5\n',
    'a count that is NaN': 'edge.tunnels.eu-1:node-17: NaN\n',
    'a count with an exponent': 'edge.tunnels.eu-1:node-17: 1e3\n',
    'a hexadecimal count': 'edge.tunnels.eu-1:node-17: 0x1\n',
    'a count that is too large': 'edge.tunnels.eu-1:node-17: 18446744073709551615\n',
    'a histogram': 'edge.tunnels.eu-1:node-17: P0(nan,1) P100(nan,1)\n',
    'a text readout': 'edge.tunnels.eu-1:node-17: "1"\n',
    'the format of Prometheus': 'edge_tunnels{node="node-17"} 1\n',
    'the format of JSON': '{"stats":[{"name":"edge.tunnels.eu-1:node-17","value":1}]}\n',
    'line breaks of another system': 'edge.tunnels.eu-1:node-17: 1\r\n',
    'the prefix alone': 'edge.: 1\n',
    'a kind of gauge alone': 'edge.tunnels: 1\n',
    'binary data': '\u001f\u008b\u0008\u0000\n',
  };
  for (const [what, body] of Object.entries(rejected)) {
    it(`reject ${what}`, () => {
      expect(parseTunnelGauges(body, 'edge')).to.have.property('error');
    });
  }

  const whole = [
    'clusters.eu-1: 1',
    'clusters.eu:2: 1',
    'nodes.node-17: 1',
    'nodes.node:18: 1',
    'tunnels.eu-1:node-17: 1',
    'tunnels.eu:2:node:18: 1',
  ];

  it('are complete if each cluster and node that has a connection has a tunnel', () => {
    expect(missingGauge(parse(...whole), undefined, false)).to.equal(undefined);
    expect(missingGauge(parse(), undefined, false)).to.equal(undefined);
  });

  it('are complete if a tunnel ends while Envoy writes the list', () => {
    const ending = ['clusters.eu-1: 1', 'nodes.node-17: 1', 'tunnels.eu-1:node-17: 0'];
    expect(missingGauge(parse(...ending), undefined, false)).to.equal(undefined);
  });

  it('are complete under tenant isolation, where clusters and nodes are counted without their tenant', () => {
    const isolated = ['clusters.eu-1: 2', 'nodes.node-17: 2', 'tunnels.acme:eu-1:node-17: 2'];
    expect(missingGauge(parse(...isolated), undefined, true)).to.equal(undefined);
  });

  for (let length = 1; length < whole.length; length += 1) {
    it(`are incomplete if only the first ${length} of ${whole.length} lines arrive`, () => {
      expect(missingGauge(parse(...whole.slice(0, length)), undefined, false)).to.match(
        /^(cluster|node) "\S+" has connections, but no tunnel$/,
      );
    });
  }

  it('are incomplete if a cluster that was known has disappeared, because Envoy keeps its gauge', () => {
    const before = parse('clusters.eu-1: 0', 'nodes.node-17: 0', 'tunnels.eu-1:node-17: 0');
    expect(missingGauge(before, before, false)).to.equal(undefined);
    expect(missingGauge(parse(), before, false)).to.equal('the gauge of cluster "eu-1" has disappeared');
    expect(missingGauge(parse(), parse(...whole), false)).to.match(/has disappeared$/);
  });

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
    expect(splitGaugeName('eu-1:node-17', true, none)).to.equal(undefined);
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
    expect(splitGaugeName('x:y:z', false, known)).to.deep.equal([]);
  });
});
