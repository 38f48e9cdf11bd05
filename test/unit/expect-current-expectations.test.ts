import { expect } from 'chai';
import { sliceManifest } from '../../src/core/slice-object.ts';
import { names, RESPONDER, tunnel as reported } from '../support/sample-tunnels.ts';
import {
  connectedTunnel,
  connectedTunnels,
  currentExpectations,
  type ConnectedTunnel,
} from '../../src/expect/current-expectations.ts';
import { reporterKey } from '../../src/core/tunnel.ts';

const OPTIONS = { apiVersion: 'reverse-tunnel.io/v1alpha1', namespace: 'tunnels', gracePeriod: undefined };

function tunnel(nodeID: string, reporter: string, tenantID = 'acme', clusterID = 'eu-1'): ConnectedTunnel {
  return { tenantID, clusterID, nodeID, reporter };
}

/** Returns the expectations of the tunnels in short: name, nodes, reporters. */
function shortly(...tunnels: readonly ConnectedTunnel[]): unknown[] {
  return currentExpectations(tunnels, OPTIONS).map(({ metadata, spec }) => [
    metadata.name,
    spec.match.nodes.join(' '),
    spec.minReporters,
  ]);
}

describe('expectations for what is connected now', () => {
  it('list the nodes of a tenant and cluster by the number of their reporters', () => {
    expect(
      shortly(
        tunnel('b', 'r-0'),
        tunnel('a', 'r-0'),
        tunnel('a', 'r-1'),
        tunnel('a', 'r-1'),
        tunnel('a', 'r-0', 'acme', 'us-1'),
        tunnel('a', 'r-0', 'Globex Inc.'),
      ),
    ).to.deep.equal([
      ['globex-inc-eu-1', 'a', 1],
      ['acme-eu-1', 'a', 2],
      ['acme-eu-1-2', 'b', 1],
      ['acme-us-1', 'a', 1],
    ]);
  });

  it('are complete objects', () => {
    expect(currentExpectations([tunnel('a', 'r-0')], { ...OPTIONS, gracePeriod: '5m' })).to.deep.equal([
      {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelExpectation',
        metadata: { name: 'acme-eu-1', namespace: 'tunnels' },
        spec: {
          match: { tenantID: 'acme', clusterID: 'eu-1', nodes: ['a'] },
          minReporters: 1,
          gracePeriod: '5m',
        },
      },
    ]);
  });

  it('count the connected entries of slices, with the labels that their objects would have', () => {
    const { spec } = sliceManifest(names, RESPONDER, 'acme', 0, [
      reported('a'),
      reported('b'),
      reported('c'),
    ]);
    const metadata = { name: 's', uid: 'u', resourceVersion: '1' };
    const status = { state: 'Connected', tunnels: [{ name: 'b', state: 'Unknown' }] };
    const slice = { metadata, spec, status };
    const nodes = (labels: Readonly<Record<string, string>>): boolean =>
      labels['reverse-tunnel.io/node'] !== 'c' && labels['reverse-tunnel.io/tenant'] === 'acme';
    expect(connectedTunnels(names, slice, () => true).map(({ nodeID }) => nodeID)).to.deep.equal(['a', 'c']);
    expect(connectedTunnels(names, slice, nodes)).to.deep.equal([
      { tenantID: 'acme', clusterID: 'eu-1', nodeID: 'a', reporter: reporterKey(RESPONDER) },
    ]);
    const deleted = { ...slice, metadata: { ...metadata, deletionTimestamp: '2026-11-23T05:00:00Z' } };
    expect(connectedTunnels(names, deleted, () => true)).to.deep.equal([]);
  });

  it('list at most 1,000 nodes each, in a stable order', () => {
    const tunnels = Array.from({ length: 2500 }, (_, index) =>
      tunnel(`n-${String(index).padStart(4, '0')}`, 'r'),
    );
    const expectations = currentExpectations(tunnels, OPTIONS);
    expect(expectations.map(({ spec }) => spec.match.nodes.length)).to.deep.equal([1000, 1000, 500]);
    expect(currentExpectations(tunnels.toReversed(), OPTIONS)).to.deep.equal(expectations);
  });

  for (const [tenantID, clusterID, name] of [
    ['acme', 'acme:eu-1', 'acme-acme-eu-1'],
    ['é', 'ü', 'tunnels'],
    ['-a-', '.b.', 'a-b'],
    ['x'.repeat(128), 'y'.repeat(257), `${'x'.repeat(128)}-${'y'.repeat(71)}`],
  ] as const) {
    it(`have the valid name ${name.slice(0, 20)} for ${tenantID.slice(0, 20)} and ${clusterID.slice(0, 20)}`, () => {
      expect(shortly(tunnel('a', 'r', tenantID, clusterID))).to.deep.equal([[name, 'a', 1]]);
    });
  }

  it('ignore tunnels that are Unknown, have closed or are being deleted', () => {
    const spec = {
      tunnelName: 't',
      tenantID: 'acme',
      clusterID: 'eu-1',
      nodeID: 'a',
      reporter: { id: 'r', cluster: 'edge' },
    };
    const metadata = { name: 'x', uid: 'u', resourceVersion: '1' };
    expect(connectedTunnel({ metadata, spec, status: { state: 'Connected' } })).to.deep.equal({
      tenantID: 'acme',
      clusterID: 'eu-1',
      nodeID: 'a',
      reporter: reporterKey(spec.reporter),
    });
    const deleted = { ...metadata, deletionTimestamp: '2026-11-23T05:00:00Z' };
    for (const object of [
      { metadata, spec, status: { state: 'Unknown' } },
      { metadata, spec, status: { state: 'Closed' } },
      { metadata: deleted, spec, status: { state: 'Connected' } },
    ])
      expect(connectedTunnel(object)).to.equal(undefined);
  });
});
