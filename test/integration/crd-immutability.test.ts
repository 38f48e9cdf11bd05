import { expect } from 'chai';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, SLICE_SPEC, TUNNEL_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

describe('immutable identities on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
    const tunnel = await space.create('reversetunnels', { name: 'tunnel', spec: TUNNEL_SPEC });
    expect(tunnel.code).to.equal(201);
    const reporter = await space.create('reversetunnelreporters', {
      name: 'reporter',
      spec: { id: 'responder-0', cluster: '' },
    });
    expect(reporter.code).to.equal(201);
    const slice = await space.create('reversetunnelslices', { name: 'slice', spec: SLICE_SPEC });
    expect(slice.code).to.equal(201);
  });

  const changes: [object: string, change: object, message: string][] = [
    ['rt/tunnel', { tunnelName: 'other' }, 'only createdAt may change; differs: tunnelName\n'],
    ['rt/tunnel', { tenantID: 'other' }, 'only createdAt may change; differs: tenantID\n'],
    ['rt/tunnel', { clusterID: 'other' }, 'only createdAt may change; differs: clusterID\n'],
    ['rt/tunnel', { nodeID: 'other' }, 'only createdAt may change; differs: nodeID\n'],
    ['rt/tunnel', { reporter: { id: 'other' } }, 'only createdAt may change; differs: reporter.id\n'],
    ['rt/tunnel', { reporter: { cluster: '' } }, 'only createdAt may change; differs: reporter.cluster\n'],
    ['rt/tunnel', { nodeID: 'other', createdAt: null }, 'only createdAt may change; differs: nodeID\n'],
    [
      'rt/tunnel',
      { tenantID: 'other', nodeID: 'other' },
      'only createdAt may change; differs: tenantID nodeID\n',
    ],
    ['rt/tunnel', { reporter: { cluster: null } }, 'spec.reporter.cluster: Required value'],
    ['rt/tunnel', { reporter: null }, 'spec.reporter: Required value'],
    ['rtr/reporter', { id: 'other' }, "a reporter's identity is immutable; differs: id\n"],
    ['rtr/reporter', { cluster: 'other' }, "a reporter's identity is immutable; differs: cluster\n"],
    ['rtr/reporter', { cluster: null }, 'spec.cluster: Required value'],
    ['rts/slice', { tenantID: 'other' }, 'only tunnels may change; differs: tenantID\n'],
    ['rts/slice', { reporter: { id: 'other' } }, 'only tunnels may change; differs: reporter.id\n'],
    ['rts/slice', { reporter: { cluster: '' } }, 'only tunnels may change; differs: reporter.cluster\n'],
    [
      'rts/slice',
      { tenantID: 'other', reporter: { id: 'other' }, tunnelCount: 1, tunnels: SLICE_SPEC.tunnels.slice(1) },
      'only tunnels may change; differs: tenantID reporter.id\n',
    ],
    ['rts/slice', { reporter: null }, 'spec.reporter: Required value'],
    ['rts/slice', { reporter: { cluster: null } }, 'spec.reporter.cluster: Required value'],
  ];
  for (const [object, change, message] of changes) {
    it(`rejects ${JSON.stringify(change)} on ${object} and names the field`, async () => {
      const patch = JSON.stringify({ spec: change });
      const before = await space.kubectl('get', object, '-o', 'jsonpath={.spec}');
      expect(await space.kubectlRejected('patch', object, '--type=merge', '-p', patch)).to.contain(message);
      expect(await space.kubectl('get', object, '-o', 'jsonpath={.spec}')).to.equal(before);
    });
  }

  it('lets createdAt change, be removed and be added again on the same object', async () => {
    const { metadata } = await space.get('reversetunnels', 'tunnel');
    const { createdAt, ...identity } = TUNNEL_SPEC;
    for (const next of ['2026-11-23T06:00:00Z', null, createdAt]) {
      const patch = JSON.stringify({ spec: { createdAt: next } });
      await space.kubectl('patch', 'rt/tunnel', '--type=merge', '-p', patch);
      const tunnel = await space.get('reversetunnels', 'tunnel');
      expect(tunnel.spec).to.deep.equal(next === null ? identity : { ...identity, createdAt: next });
      expect(tunnel.metadata.uid).to.equal(metadata.uid);
    }
  });
});
