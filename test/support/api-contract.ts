import { createApiLink } from '../faults/sim/api-link.ts';
import { SimApiServer } from '../faults/sim/api-server.ts';
import { startEmbeddedApiServer } from '../../embedded-api-server/start.ts';
import { ApiStore } from '../../embedded-api-server/store.ts';
import { createPrng } from '../faults/sim/prng.ts';
import { SimProcess } from '../faults/sim/process.ts';
import { SimTime } from '../faults/sim/time.ts';
import type { ControlPlaneClient } from '../../control-plane/start.ts';
import { systemClock } from '../../src/clock.ts';
import { createApiClient, type ApiClient } from '../../src/k8s/client.ts';
import { resolveConnection } from '../../src/k8s/connection.ts';
import { createNamespace } from './control-plane.ts';
import { eventually } from './eventually.ts';

/** An API server, real or in memory, that the cases of the contract run against. */
export interface ContractServer {
  readonly client: ApiClient;
  readonly namespace: string;
  /** Awaits a call; advances fake time as needed. */
  settle<T>(call: Promise<T>): Promise<T>;
  /** Waits for the effect of a watch event. */
  waitUntil(what: string, isSo: () => boolean): Promise<void>;
  close(): Promise<void>;
}

/** Starts the API server of the simulation; its fake time advances as needed. */
export function startMemoryServer(): ContractServer {
  const time = new SimTime();
  const process = new SimProcess('client', time);
  const store = new ApiStore({
    namespace: 'default',
    now: () => '2026-11-23T05:00:00Z',
    onChange: (change) => server.onChange(change),
  });
  const prng = createPrng(1);
  const server: SimApiServer = new SimApiServer(time, prng, store);
  const { client } = createApiLink(process, server, {
    time,
    prng,
    serverWallMs: () => process.wallMs(),
    onSend: () => {},
  });
  return {
    client,
    namespace: store.namespace,
    async settle(call) {
      const state = { settled: false };
      const watched = call.finally(() => {
        state.settled = true;
      });
      watched.catch(() => undefined);
      for (let passed = 0; !state.settled && passed < 1000; passed += 1) await time.advance(10);
      return await watched;
    },
    async waitUntil(what, predicate) {
      for (let passed = 0; !predicate(); passed += 1) {
        if (passed > 1000) throw new Error(`10 s of fake time passed without ${what}`);
        await time.advance(10);
      }
    },
    close: () => client.close(),
  };
}

/** Starts the embedded API server, and connects to it over HTTP. */
export async function startHttpServer(): Promise<ContractServer> {
  const embedded = await startEmbeddedApiServer();
  return connect(embedded.kubeconfigPath, 'default', () => embedded.stop());
}

/** Connects to a real API server with a ServiceAccount that has the permissions of the cases. */
export async function connectToRealServer(controlPlane: ControlPlaneClient): Promise<ContractServer> {
  const namespace = await createNamespace(controlPlane, 'contract');
  const all = ['get', 'list', 'watch', 'create', 'patch', 'delete'];
  const rules = [
    {
      apiGroups: ['reverse-tunnel.io'],
      resources: ['reversetunnels', 'reversetunnelreporters', 'nonesuch'],
      verbs: all,
    },
    {
      apiGroups: ['reverse-tunnel.io'],
      resources: ['reversetunnels/status', 'reversetunnelreporters/status'],
      verbs: ['patch'],
    },
    { apiGroups: ['coordination.k8s.io'], resources: ['leases'], verbs: all },
  ];
  const { kubeconfigPath } = await controlPlane.kubeconfigFor({
    namespace,
    serviceAccount: 'contract',
    rules,
  });
  return connect(kubeconfigPath, namespace, () => Promise.resolve());
}

async function connect(
  kubeconfig: string,
  namespace: string,
  close: () => Promise<void>,
): Promise<ContractServer> {
  const client = createApiClient({
    connection: await resolveConnection({ kubeconfig, env: {}, clock: systemClock }),
    clock: systemClock,
    userAgent: 'reverse-tunnel-operator/contract',
    connections: 4,
  });
  return {
    client,
    namespace,
    settle: (call) => call,
    waitUntil: (what, predicate) => eventually(what, predicate),
    async close() {
      await client.close();
      await close();
    },
  };
}
