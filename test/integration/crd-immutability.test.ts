import { expect } from 'chai';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, TUNNEL_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

describe('Immutable identities on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
    const row = await space.create('reversetunnels', { name: 'row', spec: TUNNEL_SPEC });
    expect(row.code).to.equal(201);
    const reporter = await space.create('reversetunnelreporters', {
      name: 'reporter',
      spec: { id: 'responder-0', cluster: '' },
    });
    expect(reporter.code).to.equal(201);
  });

  const changes: [object: string, change: object, refused: string][] = [
    ['rt/row', { tunnelName: 'other' }, 'only createdAt may change; differs: tunnelName\n'],
    ['rt/row', { tenantID: 'other' }, 'only createdAt may change; differs: tenantID\n'],
    ['rt/row', { clusterID: 'other' }, 'only createdAt may change; differs: clusterID\n'],
    ['rt/row', { nodeID: 'other' }, 'only createdAt may change; differs: nodeID\n'],
    ['rt/row', { reporter: { id: 'other' } }, 'only createdAt may change; differs: reporter.id\n'],
    ['rt/row', { reporter: { cluster: '' } }, 'only createdAt may change; differs: reporter.cluster\n'],
    ['rt/row', { nodeID: 'other', createdAt: null }, 'only createdAt may change; differs: nodeID\n'],
    [
      'rt/row',
      { tenantID: 'other', nodeID: 'other' },
      'only createdAt may change; differs: tenantID nodeID\n',
    ],
    ['rt/row', { reporter: { cluster: null } }, 'spec.reporter.cluster: Required value'],
    ['rt/row', { reporter: null }, 'spec.reporter: Required value'],
    ['rtr/reporter', { id: 'other' }, "a reporter's identity is immutable; differs: id\n"],
    ['rtr/reporter', { cluster: 'other' }, "a reporter's identity is immutable; differs: cluster\n"],
    ['rtr/reporter', { cluster: null }, 'spec.cluster: Required value'],
  ];
  for (const [object, change, refused] of changes) {
    it(`refuses ${JSON.stringify(change)} on ${object} and names the field`, async () => {
      const patch = JSON.stringify({ spec: change });
      const before = await space.kubectl('get', object, '-o', 'jsonpath={.spec}');
      expect(await space.kubectlRejected('patch', object, '--type=merge', '-p', patch)).to.contain(refused);
      expect(await space.kubectl('get', object, '-o', 'jsonpath={.spec}')).to.equal(before);
    });
  }

  it('lets createdAt change, be taken away and come again, on the same row', async () => {
    const { metadata } = await space.get('reversetunnels', 'row');
    const { createdAt, ...identity } = TUNNEL_SPEC;
    for (const next of ['2026-11-23T06:00:00Z', null, createdAt]) {
      const patch = JSON.stringify({ spec: { createdAt: next } });
      await space.kubectl('patch', 'rt/row', '--type=merge', '-p', patch);
      const row = await space.get('reversetunnels', 'row');
      expect(row.spec).to.deep.equal(next === null ? identity : { ...identity, createdAt: next });
      expect(row.metadata.uid).to.equal(metadata.uid);
    }
  });
});
