import { expect } from 'chai';
import { pino } from 'pino';
import { ANONYMOUS } from '../../src/core/peer.ts';
import type { ApiClient } from '../../src/k8s/client.ts';
import type { ListPage, ResourceClient, WatchOptions, WatchSink } from '../../src/k8s/resource-client.ts';
import { createMetrics } from '../../src/metrics.ts';
import { createPolicyController } from '../../src/policy-controller.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime } from '../support/fake-time.ts';

const RULE = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };

/** An API server that answers lists with what is stored, and whose watch shows nothing, as after a restore of etcd. */
function silentServer(stored: () => object[]): ApiClient {
  const resource = {
    title: 'reversetunnelpolicies in default',
    list: (): Promise<ListPage<unknown>> =>
      Promise.resolve({ items: stored(), resourceVersion: '7', continueToken: undefined }),
    watch({ signal }: WatchOptions, sink: WatchSink): Promise<void> {
      sink.onOpen();
      return new Promise((resolve) => signal?.addEventListener('abort', () => resolve()));
    },
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- The other calls are not made here.
  return { resource: <T>() => resource as unknown as ResourceClient<T> } as unknown as ApiClient;
}

describe('policies of a namespace', () => {
  it('that went back with etcd hold as soon as they are listed again: their watch tells nothing', async () => {
    const clock = new FakeClock();
    let rules = [RULE];
    const policing = createPolicyController({
      namespace: 'default',
      client: silentServer(() => [
        { metadata: { name: 'edge', uid: 'u', resourceVersion: '5', generation: 2 }, spec: { rules } },
      ]),
      objectsSynced: () => true,
      onGrantChanged() {},
      onPeerChanged() {},
      onPolicyChanged() {},
      onPoliciesSynced() {},
      isLeader: () => false,
      clock,
      random: () => 0.5,
      metrics: createMetrics(),
      log: pino({ level: 'silent' }),
    });
    const ended = new AbortController();
    const running = policing.start(ended.signal);
    await advanceTime(clock, 1000);
    expect(policing.authorizer.peerRejection(ANONYMOUS)).to.equal(undefined);
    rules = [];
    await advanceTime(clock, 20_000);
    expect(policing.authorizer.peerRejection(ANONYMOUS), 'not known yet').to.equal(undefined);
    policing.relist();
    await advanceTime(clock, 1000);
    expect(policing.authorizer.peerRejection(ANONYMOUS)).not.to.equal(undefined);
    policing.stop();
    ended.abort();
    await running;
  });
});
