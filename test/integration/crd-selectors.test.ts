import { expect } from 'chai';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, SLICE_SPEC, TUNNEL_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

const { reporter } = TUNNEL_SPEC;
/** Each object differs from `base` only in the field that names it. */
const ROWS: Readonly<Record<string, object>> = {
  base: TUNNEL_SPEC,
  tenant: { ...TUNNEL_SPEC, tenantID: 'globex' },
  cluster: { ...TUNNEL_SPEC, clusterID: 'us-1' },
  node: { ...TUNNEL_SPEC, nodeID: 'acme:node/18 é, a=b' },
  'reporter-id': { ...TUNNEL_SPEC, reporter: { ...reporter, id: 'responder-1' } },
  'reporter-cluster': { ...TUNNEL_SPEC, reporter: { ...reporter, cluster: '' } },
  unknown: TUNNEL_SPEC,
};

/** Returns the names of the other objects, in list order. */
function allBut(name: string): string[] {
  return Object.keys(ROWS)
    .filter((candidate) => candidate !== name)
    .toSorted();
}

describe('field selectors on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
    for (const [name, spec] of Object.entries(ROWS)) {
      expect((await space.create('reversetunnels', { name, spec })).code, name).to.equal(201);
    }
    const lost = {
      status: {
        state: 'Unknown',
        conditions: [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }],
      },
    };
    await space.kubectl(
      'patch',
      'rt/unknown',
      '--subresource=status',
      '--type=merge',
      '-p',
      JSON.stringify(lost),
    );
    for (const [name, spec] of [
      ['first', { id: 'responder-0', cluster: 'edge' }],
      ['second', { id: 'responder-1', cluster: '' }],
    ] as const) {
      expect((await space.create('reversetunnelreporters', { name, spec })).code, name).to.equal(201);
    }
    for (const [name, spec] of [
      ['slice', SLICE_SPEC],
      ['slice-of-globex', { ...SLICE_SPEC, tenantID: 'globex' }],
      ['slice-without-cluster', { ...SLICE_SPEC, reporter: { id: 'responder-1', cluster: '' } }],
    ] as const) {
      expect((await space.create('reversetunnelslices', { name, spec })).code, name).to.equal(201);
    }
    const owned = { status: { owner: { replica: 'replica-a-1', epoch: 1 } } };
    await space.kubectl(
      'patch',
      'rtr/second',
      '--subresource=status',
      '--type=merge',
      '-p',
      JSON.stringify(owned),
    );
  });

  const selections: [selector: string, wanted: string[]][] = [
    ['spec.tenantID=globex', ['tenant']],
    ['spec.tenantID=acme', allBut('tenant')],
    ['spec.clusterID=us-1', ['cluster']],
    ['spec.clusterID!=us-1', allBut('cluster')],
    ['spec.nodeID=acme:node/18 é\\, a\\=b', ['node']],
    ['spec.nodeID=node-17', allBut('node')],
    ['spec.reporter.id=responder-1', ['reporter-id']],
    ['spec.reporter.cluster=', ['reporter-cluster']],
    ['spec.reporter.cluster=edge', allBut('reporter-cluster')],
    ['status.state=Unknown', ['unknown']],
    ['status.state=Connected', allBut('unknown')],
    ['spec.tenantID=acme,spec.reporter.id=responder-1,status.state=Connected', ['reporter-id']],
    ['spec.tenantID=globex,status.state=Unknown', []],
  ];
  for (const [selector, wanted] of selections) {
    it(`ReverseTunnel: ${selector}`, async () => {
      expect(await space.select('reversetunnels', selector)).to.deep.equal(wanted);
    });
  }

  for (const [selector, wanted] of [
    ['spec.id=responder-0', ['first']],
    ['spec.cluster=', ['second']],
    ['status.owner.replica=replica-a-1', ['second']],
    ['status.owner.replica=', ['first']],
  ] as const) {
    it(`ReverseTunnelReporter: ${selector}`, async () => {
      expect(await space.select('reversetunnelreporters', selector)).to.deep.equal(wanted);
    });
  }

  for (const [selector, wanted] of [
    ['spec.tenantID=globex', ['slice-of-globex']],
    ['spec.reporter.id=responder-1', ['slice-without-cluster']],
    ['spec.reporter.cluster=edge', ['slice', 'slice-of-globex']],
    ['status.state=Connected,spec.tenantID=acme', ['slice', 'slice-without-cluster']],
    ['status.state=Unknown', []],
  ] as const) {
    it(`ReverseTunnelSlice: ${selector}`, async () => {
      expect(await space.select('reversetunnelslices', selector)).to.deep.equal(wanted);
    });
  }

  it('reject a field that is not selectable instead of matching nothing', async () => {
    expect(await space.select('reversetunnels', 'spec.tunnelName=acme:node-17')).to.equal(undefined);
  });

  it('work in kubectl as in the API', async () => {
    const names = await space.kubectl('get', 'rt', '--field-selector=status.state=Unknown', '-o', 'name');
    expect(names).to.equal('reversetunnel.reverse-tunnel.io/unknown\n');
  });
});
