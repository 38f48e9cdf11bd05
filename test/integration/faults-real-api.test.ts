import { expect } from 'chai';
import { unavailable } from '../faults/sim/api-refusals.ts';
import { openRealApi } from '../faults/sim/real-api.ts';
import { createRealServer, type RealServer } from '../faults/sim/real-server.ts';
import { failureText, playOnce, runSeeds } from '../faults/sim/run.ts';
import type { Course } from '../faults/sim/course.ts';
import { useControlPlane } from '../support/control-plane.ts';

/** A share of what `npm run test:faults -- --api real` plays; some 1 s each. */
const SEEDS = 6;

/** A namespace that goes and comes back while it does, beside a hand that holds a row. */
const NAMESPACE_GONE: Course = {
  seed: 73,
  replicas: 2,
  reporters: 2,
  tunnels: 2,
  steps: [
    { atMs: 20_000, do: 'hand-holds-row', pick: 1, other: 1, forMs: 60_000 },
    { atMs: 30_000, do: 'namespace-gone', pick: 0, other: 10, forMs: 5000 },
    { atMs: 35_000, do: 'namespace-gone', pick: 0, other: 10, forMs: 3000 },
  ],
};

describe('the operator as a whole, in fake time, against a real API server', () => {
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

  it('comes right after any faults, and everything goes as it does with the API server in memory', async function () {
    this.timeout(120_000);
    const { failures, requests } = await runSeeds(1, SEEDS, {
      mostFailures: 1,
      openApi: (changed, failed) => openRealApi(server, changed, failed),
    });
    expect(failures.map((failure) => failureText(failure, 'real')).join('\n\n')).to.equal('');
    expect(requests, 'requests, so that something happened').to.be.greaterThan(20 * SEEDS);
    expect(await rowsStored(), 'rows that stand in a real store').to.be.greaterThan(0);
  });

  it('does so, too, when its namespace goes and comes back', async function () {
    this.timeout(60_000);
    const { wrongs } = await playOnce(NAMESPACE_GONE, {
      openApi: (changed, failed) => openRealApi(server, changed, failed),
    });
    expect(wrongs).to.deep.equal([]);
  });

  it('shows where an API server does otherwise than the one in memory', async function () {
    this.timeout(60_000);
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
    const { wrongs } = await playOnce(
      { ...NAMESPACE_GONE, steps: [] },
      {
        openApi: (changed, failed) => openRealApi(other, changed, failed),
      },
    );
    expect(refused).to.equal(1);
    expect(wrongs.join('\n')).to.match(/line \d+, real: .*\n.*line \d+, in memory: /);
  });
});
