import { expect } from 'chai';
import type { Fleet } from '../../src/simulate/fleet.ts';
import { useControlPlane } from '../support/control-plane.ts';
import { poll } from '../support/operator-process.ts';
import {
  conditionText,
  createReplicas,
  countUnchanged,
  type Replicas,
  type ObservedReporter,
} from '../support/replicas.ts';
import { concurrent } from '../support/concurrent.ts';
import { listTunnelObjects, waitForMatch } from '../support/expected-objects.ts';

const DEADLINE_MS = 60_000;

describe('reporters as objects', () => {
  const controlPlane = useControlPlane();
  // Most of them wait for a reporter to be lost.
  const it = concurrent({
    timeoutMs: 5 * DEADLINE_MS,
    open: async () => worldOf(await createReplicas(controlPlane(), 'reporters')),
    close: ({ replicas }) => replicas.stop(),
  });

  function worldOf(replicas: Replicas) {
    const { namespace } = replicas;
    const { request } = controlPlane();
    const kubectl = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await controlPlane().kubectl(['-n', namespace, ...args]);
      expect(code, stderr).to.equal(0);
      return stdout;
    };
    return {
      replicas,
      kubectl,
      rows: () => listTunnelObjects(request, namespace),
      equal: (fleet: Fleet) => waitForMatch(fleet, request, namespace, DEADLINE_MS),
      only: async (): Promise<ObservedReporter> => {
        const [reporter] = await replicas.reporters();
        if (reporter === undefined) throw new Error('there is no reporter');
        return reporter;
      },
      patchStatus: async (name: string, status: object): Promise<void> => {
        const patch = ['--type=merge', '-p', JSON.stringify({ status })];
        await kubectl('patch', 'rtr', name, '--subresource=status', ...patch);
      },
      /** Until the one reporter is served. */
      settled: (): Promise<void> => replicas.waitUntilServed(1, DEADLINE_MS),
      /**
       * Writes by operators since there were so many, as `verb resource`; but for those that come in their own time: Leases,
       * and events, which are sent beside everything else.
       */
      since: async (count: number): Promise<string[]> =>
        (await replicas.writes())
          .slice(count)
          .filter(({ resource }) => resource !== 'leases' && resource !== 'events')
          .map(({ verb, resource }) => `${verb} ${resource}`),
    };
  }

  it('kubectl get rtr tells who serves which Envoy, how many tunnels, and whether the mirror lags', async (world) => {
    const { replicas, only, kubectl, settled } = world;
    const { process } = await replicas.start();
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 7 });
    await settled();
    const [header = '', line = ''] = (await kubectl('get', 'rtr')).split('\n');
    expect(header.split(/\s{2,}/)).to.deep.equal([
      'NAME',
      'CLUSTER',
      'CONNECTED',
      'SYNCED',
      'TUNNELS',
      'OWNER',
      'AGE',
    ]);
    const [, cluster, connected, synced, tunnels, owner] = line.split(/\s+/);
    expect([cluster, connected, synced, tunnels, owner]).to.deep.equal([
      'edge',
      'True',
      'True',
      '7',
      process.replica,
    ]);
    await kubectl('wait', '--for=condition=Ready', 'rtr', '--all', '--timeout=10s');
    const { status } = await only();
    expect(status.tunnels).to.deep.equal({ reported: 7, applied: 7, rejected: 0 });
    expect(conditionText(status, 'Ready')).to.equal('True Synced');

    const [reporter] = fleet.reporters;
    reporter?.stop();
    await poll(DEADLINE_MS, async () =>
      conditionText((await only()).status, 'Connected') === 'False StreamEnded' ? true : undefined,
    );
    expect(conditionText((await only()).status, 'Synced')).to.equal('Unknown NotConnected');
    expect(conditionText((await only()).status, 'Ready')).to.equal('False NotConnected');
    // Events are sent beside everything else.
    await poll(DEADLINE_MS, async () => {
      const each = '{range .items[*]}{.reason} {.regarding.kind} {end}';
      const events = await kubectl('get', 'events.events.k8s.io', '-o', `jsonpath=${each}`);
      const told = (reason: string): boolean => events.includes(`${reason} ReverseTunnelReporter`);
      return (told('Connected') && told('Disconnected')) || undefined;
    });
  });

  it('a heartbeat writes nothing, and changed counts at most one status in 10 s', async (world, told) => {
    const { replicas, only, settled, since } = world;
    await replicas.start(['--report-interval', '100ms']);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 50 });
    await settled();
    const [reporter] = fleet.reporters;
    if (reporter === undefined) throw new Error('one reporter was asked for');
    const quietMs = performance.now();
    const count = (await replicas.writes()).length;
    await poll(DEADLINE_MS, () => (performance.now() - quietMs > 3000 ? true : undefined));
    expect(await since(count), '30 heartbeats').to.deep.equal([]);

    const startMs = performance.now();
    let changes = 0;
    await poll(DEADLINE_MS, () => {
      reporter.connectTunnel(fleet.newInitiator());
      changes += 1;
      return performance.now() - startMs > 25_000 ? true : undefined;
    });
    await fleet.settled();
    await poll(DEADLINE_MS, async () =>
      (await only()).status.tunnels?.applied === 50 + changes ? true : undefined,
    );
    const written = await since(count);
    const passedS = (performance.now() - startMs) / 1000;
    const statuses = written.filter((write) => write.endsWith('reversetunnelreporters/status')).length;
    told(`${changes} tunnels added in ${Math.round(passedS)} s: ${statuses} status writes`);
    expect(written.filter((write) => write === 'create reversetunnels').length).to.equal(changes);
    // One that was due, and one more for being in sync again.
    expect(statuses).to.be.within(1, 2 + Math.ceil(passedS / 10));
  });

  it('lost: rows stay, then Unknown; back at any point it costs only differences; lost for good, all goes', async (world) => {
    const { replicas, rows, equal, only, settled, since } = world;
    await replicas.start(['--unknown-after', '8s', '--expire-after', '18s']);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 40 });
    await settled();
    const before = await rows();
    const [reporter] = fleet.reporters;
    if (reporter === undefined) throw new Error('one reporter was asked for');

    // Back before Unknown.
    let count = (await replicas.writes()).length;
    reporter.stop();
    await poll(DEADLINE_MS, async () =>
      conditionText((await only()).status, 'Connected').startsWith('False') ? true : undefined,
    );
    reporter.start();
    await settled();
    expect((await since(count)).filter((write) => write.includes('reversetunnels'))).to.deep.equal([]);
    expect(countUnchanged(before, await rows())).to.equal(40);

    // Back after Unknown.
    reporter.stop();
    await poll(DEADLINE_MS, async () =>
      (await rows()).every(({ status }) => status.state === 'Unknown') ? true : undefined,
    );
    expect(await rows()).to.have.length(40);
    count = (await replicas.writes()).length;
    reporter.start();
    await equal(fleet);
    await settled();
    const back = (await since(count)).filter((write) => write.includes('reversetunnels'));
    expect(back).to.deep.equal(Array.from({ length: 40 }, () => 'patch reversetunnels/status'));

    // Gone for good.
    reporter.stop();
    const startMs = performance.now();
    await poll(2 * DEADLINE_MS, async () => ((await replicas.reporters()).length === 0 ? true : undefined));
    expect(performance.now() - startMs).to.be.greaterThan(17_000);
    expect(await rows()).to.deep.equal([]);
    const { metadata } = before[0] ?? { metadata: { uid: '' } };
    reporter.start();
    await settled();
    expect((await rows()).some(({ metadata: { uid } }) => uid === metadata.uid)).to.equal(false);
    expect(await rows()).to.have.length(40);
  });

  it('its object deleted by hand while it is connected: the object is back, and no row is touched', async (world) => {
    const { replicas, rows, only, kubectl, settled } = world;
    await replicas.start();
    await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await settled();
    const before = await rows();
    const { metadata } = await only();
    await kubectl('delete', 'rtr', metadata.name);
    await poll(DEADLINE_MS, async () => {
      const [now] = await replicas.reporters();
      return now !== undefined && now.metadata.uid !== metadata.uid ? true : undefined;
    });
    await settled();
    expect(countUnchanged(before, await rows())).to.equal(20);
  });

  it('its status edited by others, the owner too: it is put right, and no row is touched', async (world) => {
    const { replicas, rows, only, patchStatus, settled } = world;
    await replicas.start();
    await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await settled();
    const before = await rows();
    const { metadata } = await only();
    const lie = {
      type: 'Ready',
      status: 'False',
      reason: 'ByHand',
      message: '',
      lastTransitionTime: '2026-11-23T05:00:00Z',
    };
    await patchStatus(metadata.name, { conditions: [lie] });
    await settled();
    await patchStatus(metadata.name, { owner: { replica: 'somebody', epoch: 99 } });
    await settled();
    await patchStatus(metadata.name, { owner: null });
    await settled();
    const { status } = await only();
    expect(status.conditions.map(({ type }) => type)).to.deep.equal(['Connected', 'Synced', 'Ready']);
    expect(countUnchanged(before, await rows())).to.equal(20);
  });
});
