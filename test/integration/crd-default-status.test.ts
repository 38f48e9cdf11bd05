import { expect } from 'chai';

import { useControlPlane } from '../support/control-plane.ts';
import { createCrdNamespace, TUNNEL_SPEC, type CrdNamespace } from '../support/crd-objects.ts';

const REPORTED = { state: 'Connected', conditions: [{ type: 'Ready', status: 'True', reason: 'Reported' }] };
const LOST = { state: 'Unknown', conditions: [{ type: 'Ready', status: 'Unknown', reason: 'ReporterLost' }] };
const tunnels = 'reversetunnels';

describe('default status on a real API server', () => {
  const controlPlane = useControlPlane();
  let space: CrdNamespace;
  before(async () => {
    space = await createCrdNamespace(controlPlane());
  });

  /** Creates an object with the default status. */
  async function createTunnel(name: string): Promise<void> {
    const { code } = await space.create(tunnels, { name, spec: TUNNEL_SPEC });
    expect(code).to.equal(201);
  }

  async function patchStatus(name: string, status: object | null): Promise<void> {
    await space.kubectl(...statusPatch(name, status));
  }

  describe('ReverseTunnel', () => {
    it('makes an object Ready with one POST, without an owner or a status write', async () => {
      const { code, object } = await space.create(tunnels, { name: 'one-post', spec: TUNNEL_SPEC });
      expect(code).to.equal(201);
      expect(object?.status).to.deep.equal(REPORTED);
      const read = await space.get(tunnels, 'one-post');
      expect(read.status).to.deep.equal(REPORTED);
      expect(read.metadata.resourceVersion).to.equal(object?.metadata.resourceVersion);
      expect(read.metadata.managedFields).to.have.length(1);
      expect(read.metadata.managedFields[0]?.fieldsV1).to.not.have.property('f:status');
    });

    it('ignores a status in the POST', async () => {
      const { object } = await space.create(tunnels, { spec: TUNNEL_SPEC, status: LOST });
      expect(object?.status).to.deep.equal(REPORTED);
    });

    it('lets kubectl wait for Ready return immediately, also after a change of createdAt', async () => {
      await createTunnel('wait');
      const wait = ['wait', '--for=condition=Ready', 'rt/wait', '--timeout=60s'];
      expect(await space.kubectl(...wait)).to.contain('condition met');
      await space.kubectl(
        'patch',
        'rt/wait',
        '--type=merge',
        '-p={"spec":{"createdAt":"2026-11-23T06:00:00Z"}}',
      );
      expect(await space.kubectl(...wait)).to.contain('condition met');
    });

    it('accepts the status of a disconnected reporter and the return to the default', async () => {
      await createTunnel('lost');
      await patchStatus('lost', LOST);
      expect((await space.get(tunnels, 'lost')).status).to.deep.equal(LOST);
      const rejected = await space.kubectlRejected(
        'wait',
        '--for=condition=Ready',
        'rt/lost',
        '--timeout=1s',
      );
      expect(rejected).to.contain('timed out');
      const written = {
        ...REPORTED,
        conditions: [{ ...REPORTED.conditions[0], lastTransitionTime: '2026-11-23T05:00:00Z' }],
      };
      await patchStatus('lost', written);
      expect((await space.get(tunnels, 'lost')).status).to.deep.equal(written);
    });

    it('applies the default again when the whole status is removed', async () => {
      await createTunnel('reset');
      await patchStatus('reset', LOST);
      await patchStatus('reset', null);
      expect((await space.get(tunnels, 'reset')).status).to.deep.equal(REPORTED);
    });

    it('keeps the status when the spec is patched', async () => {
      await createTunnel('kept');
      await patchStatus('kept', LOST);
      await space.kubectl('patch', 'rt/kept', '--type=merge', '-p={"spec":{"createdAt":null}}');
      expect((await space.get(tunnels, 'kept')).status).to.deep.equal(LOST);
    });

    const ready = REPORTED.conditions[0];
    const rejections: [string, object, string][] = [
      [
        'no conditions, which tools would interpret as ready',
        { conditions: null },
        'status.conditions: Required value',
      ],
      ['an empty list of conditions', { conditions: [] }, 'should have at least 1 items'],
      ['no state, which no selector would match', { state: null }, 'status.state: Required value'],
      ['an unknown state', { state: 'Lost' }, 'status.state: Unsupported value: "Lost"'],
      ['a repeated condition type', { conditions: [ready, ready] }, 'Duplicate value'],
      ['an unknown condition status', { conditions: [{ ...ready, status: 'Maybe' }] }, 'supported values'],
      ['a reason with spaces', { conditions: [{ ...ready, reason: 'not a word' }] }, 'reason'],
      ['an escape character in a message', { conditions: [{ ...ready, message: '\u001b[2J' }] }, 'message'],
    ];
    for (const [index, [what, status, message]] of rejections.entries()) {
      it(`rejects a status with ${what}`, async () => {
        const name = `rejected-${index}`;
        await createTunnel(name);
        expect(await space.kubectlRejected(...statusPatch(name, status))).to.contain(message);
        expect((await space.get(tunnels, name)).status).to.deep.equal(REPORTED);
      });
    }
  });

  describe('ReverseTunnelReporter', () => {
    it('sets every condition of a reporter object to Unknown until it is claimed', async () => {
      const spec = { id: 'responder-0', cluster: '' };
      const { code, object } = await space.create('reversetunnelreporters', { name: 'new', spec });
      expect(code).to.equal(201);
      const pending = {
        status: 'Unknown',
        reason: 'Pending',
        message: '',
        lastTransitionTime: '1970-01-01T00:00:00Z',
      };
      expect(object?.status).to.deep.equal({
        conditions: [
          { type: 'Connected', ...pending },
          { type: 'Synced', ...pending },
          { type: 'Ready', ...pending },
        ],
      });
      const rejected = await space.kubectlRejected(
        'wait',
        '--for=condition=Ready',
        'rtr/new',
        '--timeout=1s',
      );
      expect(rejected).to.contain('timed out');
    });
  });
});

function statusPatch(name: string, status: object | null): string[] {
  return ['patch', `rt/${name}`, '--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
}
