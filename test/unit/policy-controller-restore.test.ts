import { expect } from 'chai';
import { pino } from 'pino';
import { Authorizer } from '../../src/controller/authorizer.ts';
import { createCaches } from '../../src/controllers.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { ANONYMOUS } from '../../src/core/peer.ts';
import type { ApiClient } from '../../src/k8s/client.ts';
import type {
  ListPage,
  ResourceClient,
  ResourceType,
  WatchOptions,
  WatchSink,
} from '../../src/k8s/resource-client.ts';
import { createMetrics } from '../../src/metrics.ts';
import { Reflectors } from '../../src/reflectors.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { advanceTime } from '../support/fake-time.ts';
import { names } from '../support/sample-tunnels.ts';

const RULE = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };

/** An API server that lists the stored policies, and whose watches show nothing, as after a restore of etcd. */
function silentServer(stored: () => object[]): ApiClient {
  const resource = (plural: string) => ({
    title: `${plural} in default`,
    list: (): Promise<ListPage<unknown>> =>
      Promise.resolve({
        items: plural === 'reversetunnelpolicies' ? stored() : [],
        resourceVersion: '7',
        continueToken: undefined,
      }),
    watch({ signal }: WatchOptions, sink: WatchSink): Promise<void> {
      sink.onOpen();
      return new Promise((resolve) => signal?.addEventListener('abort', () => resolve()));
    },
  });
  return {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- The test makes no other calls.
    resource: <T>({ plural }: ResourceType) => resource(plural) as unknown as ResourceClient<T>,
  } as unknown as ApiClient;
}

describe('policies that went back in time with etcd', () => {
  it('apply as soon as they are listed again, because the watch shows nothing', async () => {
    const clock = new FakeClock();
    const log = pino({ level: 'silent' });
    const caches = createCaches({ names, ledger: new Ledger(), clock, metrics: createMetrics(), log });
    const authorizer = new Authorizer(clock);
    caches.policies.addEventHandler(authorizer);
    let rules = [RULE];
    const reflectors = new Reflectors({
      client: silentServer(() => [
        { metadata: { name: 'edge', uid: 'u', resourceVersion: '5', generation: 2 }, spec: { rules } },
      ]),
      namespace: 'default',
      caches,
      clock,
      random: () => 0.5,
      log,
    });
    const ended = new AbortController();
    const running = reflectors.run(ended.signal);
    await advanceTime(clock, 1000);
    expect(authorizer.peerRejection(ANONYMOUS)).to.equal(undefined);
    rules = [];
    await advanceTime(clock, 20_000);
    expect(authorizer.peerRejection(ANONYMOUS), 'not known yet').to.equal(undefined);
    reflectors.relistAll();
    await advanceTime(clock, 1000);
    expect(authorizer.peerRejection(ANONYMOUS)).not.to.equal(undefined);
    caches.policies.stop();
    ended.abort();
    await running;
  });
});
