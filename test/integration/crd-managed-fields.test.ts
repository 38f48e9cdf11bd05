import { expect } from 'chai';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, TUNNEL_SPEC, type CrdNamespace, type Resource } from '../support/crd-objects.ts';

const TIME = '2026-11-23T05:00:00Z';

/** Returns a complete condition. */
function condition(type: string): object {
  return { type, status: 'True', reason: 'Reported', message: '', lastTransitionTime: TIME };
}

const REPORTER_STATUS = {
  owner: { replica: 'operator-0-abcd', epoch: 1 },
  lastFullPush: { time: TIME, tunnels: 2 },
  tunnels: { reported: 2, applied: 2, rejected: 0 },
  locality: { region: 'eu-central-1', zone: 'a' },
  conditions: [condition('Connected'), condition('Synced'), condition('Ready')],
};

describe('managed fields on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
  });

  async function patchStatus(object: string, status: object): Promise<void> {
    const patch = JSON.stringify({ status });
    await space.kubectl('patch', object, '--subresource=status', '--type=merge', '-p', patch);
  }

  /** Returns the managed fields of an object itself, and those of its status. */
  async function managedFields(resource: Resource, name: string): Promise<object[]> {
    const { metadata } = await space.get(resource, name);
    return metadata.managedFields.map(({ fieldsV1 }) => fieldsV1);
  }

  it('contain what the operator writes of a ReverseTunnel as a whole', async () => {
    await space.create('reversetunnels', { name: 'tunnel', spec: TUNNEL_SPEC });
    await patchStatus('rt/tunnel', {
      state: 'Unknown',
      conditions: [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }],
    });
    expect(await managedFields('reversetunnels', 'tunnel')).to.have.deep.members([
      { 'f:spec': {} },
      { 'f:status': {} },
    ]);
  });

  it('contain what the operator writes of a ReverseTunnelReporter as a whole', async () => {
    await space.create('reversetunnelreporters', {
      name: 'reporter',
      spec: { id: 'responder-0', cluster: '' },
    });
    await patchStatus('rtr/reporter', REPORTER_STATUS);
    expect(await managedFields('reversetunnelreporters', 'reporter')).to.have.deep.members([
      { 'f:spec': {} },
      { 'f:status': {} },
    ]);
  });
});
