import { expect } from 'chai';
import { unavailable } from '../../embedded-api-server/responses.ts';
import { openRealApi } from '../faults/sim/real-api.ts';
import { createRealServer, type RealServer } from '../faults/sim/real-server.ts';
import { formatFailure, runOnce, runSeeds } from '../faults/sim/run-seeds.ts';
import type { Schedule } from '../faults/sim/schedule.ts';
import { useControlPlane } from '../support/control-plane.ts';

/** A few of the seeds of `npm run test:faults -- --api real`; about 1 s each. */
const SEEDS = 6;

/** A namespace that is deleted and recreated, while an object is held by a manual finalizer. */
const NAMESPACE_GONE: Schedule = {
  seed: 73,
  replicas: 2,
  reporters: 2,
  tunnels: 2,
  faults: [
    { atMs: 20_000, kind: 'kubectl-holds-object', pick: 1, variant: 1, durationMs: 60_000 },
    { atMs: 30_000, kind: 'namespace-deleted', pick: 0, variant: 10, durationMs: 5000 },
    { atMs: 35_000, kind: 'namespace-deleted', pick: 0, variant: 10, durationMs: 3000 },
  ],
};

describe('simulation of the whole operator in fake time with a real API server', () => {
  const controlPlane = useControlPlane();
  let server: RealServer;

  before(() => {
    server = createRealServer(controlPlane());
  });
  after(() => server.close());

  async function rowsStored(): Promise<number> {
    const { body } = await controlPlane().request('GET', '/apis/reverse-tunnel.io/v1alpha1/reversetunnels');
    const { items } = body as { items: { metadata: { namespace: string } }[] };
    return items.filter(({ metadata }) => metadata.namespace.startsWith('sim-')).length;
  }

  it('converges after any faults with the same trace as with the in-memory API server', async function () {
    this.timeout(300_000);
    const { failures, requests } = await runSeeds(1, SEEDS, {
      maxFailures: 1,
      openApi: (changed, failed) => openRealApi(server, changed, failed),
    });
    expect(failures.map((failure) => formatFailure(failure, 'real')).join('\n\n')).to.equal('');
    expect(requests, 'requests, to show that something happened').to.be.greaterThan(20 * SEEDS);
    expect(await rowsStored(), 'objects in a real store').to.be.greaterThan(0);
  });

  it('also does so when its namespace is deleted and recreated', async function () {
    this.timeout(180_000);
    const { violations } = await runOnce(NAMESPACE_GONE, {
      openApi: (changed, failed) => openRealApi(server, changed, failed),
    });
    expect(violations).to.deep.equal([]);
  });

  it('detects a difference between a real API server and the in-memory one', async function () {
    this.timeout(180_000);
    let refused = 0;
    const other: RealServer = {
      ...server,
      async send(method, path, body) {
        const isRow = method === 'POST' && /\/reversetunnels(?:\?|$)/.test(path);
        if (!isRow || refused > 0) return await server.send(method, path, body);
        refused += 1;
        return unavailable();
      },
    };
    const { violations } = await runOnce(
      { ...NAMESPACE_GONE, faults: [] },
      {
        openApi: (changed, failed) => openRealApi(other, changed, failed),
      },
    );
    expect(refused).to.equal(1);
    expect(violations.join('\n')).to.match(/line \d+, real: .*\n.*line \d+, in memory: /);
  });
});
