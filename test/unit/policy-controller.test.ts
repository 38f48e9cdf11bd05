import { expect } from 'chai';
import { pino } from 'pino';
import { ANONYMOUS } from '../../src/core/peer.ts';
import type { PolicyObject } from '../../src/core/policy-object.ts';
import type { ApiClient } from '../../src/k8s/client.ts';
import type { ResourceClient } from '../../src/k8s/resource-client.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createPolicyController, type PolicyController } from '../../src/policy-controller.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { flushEventLoop } from '../support/fake-time.ts';
import { RESPONDER } from '../support/sample-tunnels.ts';

/** One policy, which allows nothing. */
const POLICY: PolicyObject = {
  metadata: { name: 'nothing', uid: 'u', resourceVersion: '1', generation: 1 },
  spec: { rules: [] },
};

const resource: Pick<ResourceClient<PolicyObject>, 'title' | 'list' | 'watch' | 'patchStatus'> = {
  title: 'policies',
  list: () => Promise.resolve({ items: [POLICY], continueToken: undefined, resourceVersion: '1' }),
  watch: ({ signal }) =>
    new Promise((resolve) => signal?.addEventListener('abort', () => resolve(), { once: true })),
  patchStatus: () => Promise.resolve(POLICY),
};

/** What happened, in order, when the policies were listed for the first time. @param before what happens first */
async function firstList(before: (policing: PolicyController) => void): Promise<string[]> {
  const happened: string[] = [];
  const clock = new FakeClock();
  const policing: PolicyController = createPolicyController({
    namespace: 'default',
    client: { resource: () => resource } as unknown as ApiClient,
    objectsSynced: () => true,
    onGrantChanged: () => happened.push('another grant'),
    onPeerChanged() {},
    onPolicyChanged() {
      const inForce = policing.authorizer.peerRejection(ANONYMOUS) !== undefined;
      happened.push(inForce ? 'streams asked for' : 'streams asked for too early');
    },
    onPoliciesSynced: () => happened.push('known'),
    isLeader: () => false,
    clock,
    random: () => 0.5,
    metrics: createMetrics(),
    log: pino({ level: 'silent' }),
  });
  before(policing);
  const ended = new AbortController();
  const running = policing.start(ended.signal);
  await flushEventLoop();
  clock.advance(0);
  ended.abort();
  policing.stop();
  await running;
  return happened;
}

describe('policies that become known', () => {
  it('end streams before they count as known, and so before anything is written', async () => {
    expect(await firstList(() => {})).to.deep.equal(['streams asked for', 'known']);
  });

  it('end streams before what a reporter holds is looked at by them', async () => {
    const happened = await firstList(({ authorizer }) => authorizer.onStreamOpened(RESPONDER, ANONYMOUS));
    expect(happened).to.deep.equal(['streams asked for', 'another grant', 'known']);
  });
});
