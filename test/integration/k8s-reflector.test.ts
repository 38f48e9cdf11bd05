import { expect } from 'chai';
import { setTimeout as delay } from 'node:timers/promises';
import type { ControlPlane } from '../../control-plane/start.ts';
import { systemClock } from '../../src/clock.ts';
import type { ApiObject, ResourceClient } from '../../src/k8s/resource-client.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import { createApiClient, type ApiClient } from '../../src/k8s/client.ts';
import { Reflector } from '../../src/k8s/reflector.ts';
import { resolveConnection } from '../../src/k8s/connection.ts';
import { createNamespace, FIRST_START_TIMEOUT_MS, startWithCrds } from '../support/control-plane.ts';
import { TUNNEL_SPEC } from '../support/crd-objects.ts';
import { eventually } from '../support/eventually.ts';
import { RecordingHandler } from '../support/reflector-fixture.ts';

const CRDS = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/reversetunnels.reverse-tunnel.io';
/**
 * fault-injection.md requires convergence within 10 s of the API server's return. A busy machine gets more, because
 * the time is not what is tested.
 */
const CONVERGED_MS = 60_000;

/** A separate control plane, because the API server is killed here. */
describe('reflector with a real API server', function () {
  this.timeout(6 * CONVERGED_MS);
  let controlPlane: ControlPlane;
  let client: ApiClient;
  let tunnels: ResourceClient<ApiObject>;
  let store: RecordingHandler;
  let states: string[];
  let reflector: Reflector<ApiObject>;
  let abort: AbortController;
  let running: Promise<void>;
  let written = 0;

  before(async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    controlPlane = await startWithCrds({ onUnexpectedExit: () => undefined });
  });

  after(() => controlPlane?.stop());

  beforeEach(async () => {
    const namespace = await createNamespace(controlPlane, 'reflector');
    client = createApiClient({
      connection: await resolveConnection({
        kubeconfig: controlPlane.kubeconfigPath,
        env: {},
        clock: systemClock,
      }),
      clock: systemClock,
      userAgent: 'reverse-tunnel-operator/test',
      connections: 16,
    });
    tunnels = client.resource<ApiObject>({
      group: 'reverse-tunnel.io',
      version: 'v1alpha1',
      plural: 'reversetunnels',
      namespace,
    });
    store = new RecordingHandler();
    states = [];
    abort = new AbortController();
    reflector = new Reflector<ApiObject>({
      source: tunnels,
      handler: store,
      clock: systemClock,
      random: Math.random,
      log: { debug: () => undefined, info: () => undefined, warn: () => undefined },
      onStateChange: (state) => states.push(state),
      pageLimit: 25,
    });
  });

  afterEach(async () => {
    abort.abort();
    await running;
    await client.close();
  });

  function run(): void {
    running = reflector.run(abort.signal);
  }

  function create(): Promise<ApiObject> {
    written += 1;
    return tunnels.create({
      apiVersion: 'reverse-tunnel.io/v1alpha1',
      kind: 'ReverseTunnel',
      metadata: { name: `tunnel-${written}` },
      spec: TUNNEL_SPEC,
    });
  }

  /** Creates objects until one succeeds after at least this many failures. */
  async function createPatiently(failures = 0): Promise<void> {
    const deadlineMs = performance.now() + CONVERGED_MS;
    for (let failed = 0; ;) {
      try {
        await create();
        if (failed >= failures) return;
      } catch (error) {
        failed += 1;
        if (!(error instanceof ApiError) || performance.now() > deadlineMs) throw error;
        if (error.kind === 'unavailable') reflector.retryNow();
      }
      await delay(200);
    }
  }

  /** Lists with retries: a starting API server answers 429 while its watch cache fills. */
  async function listPatiently(): ReturnType<typeof tunnels.list> {
    const deadlineMs = performance.now() + CONVERGED_MS;
    for (;;) {
      try {
        return await tunnels.list();
      } catch (error) {
        if (!(error instanceof ApiError) || error.kind !== 'throttled') throw error;
        if (performance.now() > deadlineMs) throw error;
      }
      await delay(100);
    }
  }

  async function converge(): Promise<void> {
    const { items } = await listPatiently();
    const stored = new RecordingHandler();
    for (const item of items) stored.event('ADDED', item);
    await eventually(
      `the store to hold ${stored.versions.size} objects`,
      () => store.toString() === String(stored),
      CONVERGED_MS,
    );
  }

  function lists(): number {
    return states.filter((state) => state === 'listing').length;
  }

  it('reflects existing objects and changes', async () => {
    const first = await Promise.all(Array.from({ length: 60 }, create));
    run();
    await eventually('synced', () => reflector.hasSynced, CONVERGED_MS);
    expect(store.calls.filter((call) => call.startsWith('item'))).to.have.length(60);
    await Promise.all(first.slice(0, 20).map(({ metadata }) => tunnels.delete(metadata.name, metadata)));
    await Promise.all(
      first.slice(20, 40).map(({ metadata }) =>
        tunnels.patch(metadata.name, {
          metadata: { resourceVersion: metadata.resourceVersion },
          spec: { createdAt: null },
        }),
      ),
    );
    await Promise.all(Array.from({ length: 20 }, create));
    await converge();
    expect(store.versions.size).to.equal(60);
    expect(lists()).to.equal(1);
  });

  it('continues after the API server was killed and restarted', async () => {
    await Promise.all(Array.from({ length: 30 }, create));
    run();
    await eventually('watching', () => states.at(-1) === 'watching', CONVERGED_MS);
    const deleted = await create();
    await controlPlane.apiserver.kill();
    await eventually('broken', () => states.at(-1) === 'broken', CONVERGED_MS);
    expect(store.versions.size, 'nothing is removed meanwhile').to.be.at.least(30);
    await controlPlane.apiserver.start();
    await createPatiently();
    await tunnels.delete(deleted.metadata.name, deleted.metadata);
    await converge();
    expect(store.versions.size).to.equal(31);
  });

  it('does not wait for a terminating API server to close the watch if writes fail', async () => {
    run();
    await eventually('watching', () => states.at(-1) === 'watching', CONVERGED_MS);
    await create();
    await converge();
    const stoppedMs = performance.now();
    // Left alone, it would end its watches after a minute.
    const stopped = controlPlane.apiserver.kill('SIGTERM');
    const pendingCreate = createPatiently(1);
    await stopped;
    expect(performance.now() - stoppedMs).to.be.below(45_000);
    await controlPlane.apiserver.start();
    await pendingCreate;
    await converge();
    expect(store.versions.size).to.be.at.least(2);
  });

  it('relists after a change of the CRD, which ends its watches', async () => {
    await create();
    run();
    await eventually('watching', () => states.at(-1) === 'watching', CONVERGED_MS);
    const before = await controlPlane.request('GET', CRDS);
    const crd = before.body as {
      spec: { versions: { additionalPrinterColumns: { priority?: number }[] }[] };
    };
    const column = crd.spec.versions[0]?.additionalPrinterColumns.at(-1);
    if (column === undefined) throw new Error('CRD without columns');
    column.priority = (column.priority ?? 0) + 1;
    expect((await controlPlane.request('PUT', CRDS, crd)).status).to.equal(200);
    await eventually('a second list', () => lists() >= 2 && states.at(-1) === 'watching', CONVERGED_MS);
    await createPatiently();
    await converge();
    expect(store.versions.size).to.equal(2);
  });

  it('removes all objects when the CRD is deleted and lists them again when it is back', async () => {
    await create();
    run();
    await eventually('watching', () => states.at(-1) === 'watching', CONVERGED_MS);
    const { body } = await controlPlane.request('GET', CRDS);
    const { metadata: _metadata, status: _status, ...crd } = body as { metadata: object; status: object };
    expect((await controlPlane.request('DELETE', CRDS)).status).to.equal(200);
    await eventually(
      'no objects',
      () => store.versions.size === 0 && states.at(-1) === 'broken',
      CONVERGED_MS,
    );
    const again = { ...crd, metadata: { name: 'reversetunnels.reverse-tunnel.io' } };
    expect((await controlPlane.request('POST', CRDS.replace(/\/[^/]+$/, ''), again)).status).to.equal(201);
    await createPatiently();
    await eventually('the object created since', () => store.versions.size === 1, CONVERGED_MS);
  });
});
