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

describe('reporter objects', () => {
  const controlPlane = useControlPlane();
  // Most scenarios wait for a reporter to be disconnected.
  const it = concurrent({
    timeoutMs: 5 * DEADLINE_MS,
    open: async () => createFixture(await createReplicas(controlPlane(), 'reporters')),
    close: ({ replicas }) => replicas.stop(),
  });

  function createFixture(replicas: Replicas) {
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
      listObjects: () => listTunnelObjects(request, namespace),
      waitForObjects: (fleet: Fleet) => waitForMatch(fleet, request, namespace, DEADLINE_MS),
      getReporter: async (): Promise<ObservedReporter> => {
        const [reporter] = await replicas.reporters();
        if (reporter === undefined) throw new Error('there is no reporter');
        return reporter;
      },
      patchStatus: async (name: string, status: object): Promise<void> => {
        const patch = ['--type=merge', '-p', JSON.stringify({ status })];
        await kubectl('patch', 'rtr', name, '--subresource=status', ...patch);
      },
      /** Waits until the reporter is served. */
      waitUntilServed: (): Promise<void> => replicas.waitUntilServed(1, DEADLINE_MS),
      /**
       * Returns the operators' writes after the first `count` writes as `verb resource`, without Leases and events,
       * which are written asynchronously.
       */
      writesSince: async (count: number): Promise<string[]> =>
        (await replicas.writes())
          .slice(count)
          .filter(({ resource }) => resource !== 'leases' && resource !== 'events')
          .map(({ verb, resource }) => `${verb} ${resource}`),
    };
  }

  it('kubectl get rtr shows the owner, the number of tunnels and whether they are in sync', async (fixture) => {
    const { replicas, getReporter, kubectl, waitUntilServed } = fixture;
    const { process } = await replicas.start();
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 7 });
    await waitUntilServed();
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
    await kubectl('wait', '--for=condition=Ready', 'rtr', '--all', '--timeout=60s');
    const { status } = await getReporter();
    expect(status.tunnels).to.deep.equal({ reported: 7, applied: 7, rejected: 0 });
    expect(conditionText(status, 'Ready')).to.equal('True Synced');

    const [reporter] = fleet.reporters;
    reporter?.stop();
    await poll(DEADLINE_MS, async () =>
      conditionText((await getReporter()).status, 'Connected') === 'False StreamEnded' ? true : undefined,
    );
    expect(conditionText((await getReporter()).status, 'Synced')).to.equal('Unknown NotConnected');
    expect(conditionText((await getReporter()).status, 'Ready')).to.equal('False NotConnected');
    // Events are sent asynchronously.
    await poll(DEADLINE_MS, async () => {
      const each = '{range .items[*]}{.reason} {.regarding.kind} {end}';
      const events = await kubectl('get', 'events.events.k8s.io', '-o', `jsonpath=${each}`);
      const report = (reason: string): boolean => events.includes(`${reason} ReverseTunnelReporter`);
      return (report('Connected') && report('Disconnected')) || undefined;
    });
  });

  it('heartbeats cause no writes, and changed counts at most one status write per 10 s', async (fixture, report) => {
    const { replicas, getReporter, waitUntilServed, writesSince } = fixture;
    await replicas.start(['--report-interval', '100ms']);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 50 });
    await waitUntilServed();
    const [reporter] = fleet.reporters;
    if (reporter === undefined) throw new Error('the fleet has one reporter');
    const quietMs = performance.now();
    const count = (await replicas.writes()).length;
    await poll(DEADLINE_MS, () => (performance.now() - quietMs > 3000 ? true : undefined));
    expect(await writesSince(count), '30 heartbeats').to.deep.equal([]);

    const startMs = performance.now();
    let changes = 0;
    await poll(DEADLINE_MS, () => {
      reporter.connectTunnel(fleet.newInitiator());
      changes += 1;
      return performance.now() - startMs > 25_000 ? true : undefined;
    });
    await fleet.settled();
    await poll(DEADLINE_MS, async () =>
      (await getReporter()).status.tunnels?.applied === 50 + changes ? true : undefined,
    );
    const written = await writesSince(count);
    const passedS = (performance.now() - startMs) / 1000;
    const statuses = written.filter((write) => write.endsWith('reversetunnelreporters/status')).length;
    report(`${changes} tunnels added in ${Math.round(passedS)} s: ${statuses} status writes`);
    expect(written.filter((write) => write === 'create reversetunnels').length).to.equal(changes);
    // One that was due, and one for being in sync again.
    expect(statuses).to.be.within(1, 2 + Math.ceil(passedS / 10));
  });

  it('objects of a disconnected reporter become Unknown and expire; a reconnect before that writes only differences', async (fixture) => {
    const { replicas, listObjects, waitForObjects, getReporter, waitUntilServed, writesSince } = fixture;
    // Each phase is longer than a busy machine takes to reconnect in it.
    await replicas.start(['--unknown-after', '10s', '--expire-after', '22s']);
    const fleet = await replicas.startFleet({ reporters: 1, tunnels: 40 });
    await waitUntilServed();
    const before = await listObjects();
    const [reporter] = fleet.reporters;
    if (reporter === undefined) throw new Error('the fleet has one reporter');

    // Reconnect in the grace phase.
    let count = (await replicas.writes()).length;
    reporter.stop();
    await poll(DEADLINE_MS, async () =>
      conditionText((await getReporter()).status, 'Connected').startsWith('False') ? true : undefined,
    );
    reporter.start();
    await waitUntilServed();
    expect((await writesSince(count)).filter((write) => write.includes('reversetunnels'))).to.deep.equal([]);
    expect(countUnchanged(before, await listObjects())).to.equal(40);

    // Reconnect in phase unknown.
    reporter.stop();
    await poll(DEADLINE_MS, async () =>
      (await listObjects()).every(({ status }) => status.state === 'Unknown') ? true : undefined,
    );
    expect(await listObjects()).to.have.length(40);
    count = (await replicas.writes()).length;
    reporter.start();
    await waitForObjects(fleet);
    await waitUntilServed();
    const back = (await writesSince(count)).filter((write) => write.includes('reversetunnels'));
    expect(back).to.deep.equal(Array.from({ length: 40 }, () => 'patch reversetunnels/status'));

    // Expiry.
    reporter.stop();
    const startMs = performance.now();
    await poll(2 * DEADLINE_MS, async () => ((await replicas.reporters()).length === 0 ? true : undefined));
    expect(performance.now() - startMs).to.be.greaterThan(21_000);
    expect(await listObjects()).to.deep.equal([]);
    const { metadata } = before[0] ?? { metadata: { uid: '' } };
    reporter.start();
    await waitUntilServed();
    expect((await listObjects()).some(({ metadata: { uid } }) => uid === metadata.uid)).to.equal(false);
    expect(await listObjects()).to.have.length(40);
  });

  it('a deleted reporter object of a connected reporter is recreated without an object write', async (fixture) => {
    const { replicas, listObjects, getReporter, kubectl, waitUntilServed } = fixture;
    await replicas.start();
    await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await waitUntilServed();
    const before = await listObjects();
    const { metadata } = await getReporter();
    await kubectl('delete', 'rtr', metadata.name);
    await poll(DEADLINE_MS, async () => {
      const [now] = await replicas.reporters();
      return now !== undefined && now.metadata.uid !== metadata.uid ? true : undefined;
    });
    await waitUntilServed();
    expect(countUnchanged(before, await listObjects())).to.equal(20);
  });

  it('a manually edited status, including the owner, is reverted without an object write', async (fixture) => {
    const { replicas, listObjects, getReporter, patchStatus, waitUntilServed } = fixture;
    await replicas.start();
    await replicas.startFleet({ reporters: 1, tunnels: 20 });
    await waitUntilServed();
    const before = await listObjects();
    const { metadata } = await getReporter();
    const edit = {
      type: 'Ready',
      status: 'False',
      reason: 'ByHand',
      message: '',
      lastTransitionTime: '2026-11-23T05:00:00Z',
    };
    await patchStatus(metadata.name, { conditions: [edit] });
    await waitUntilServed();
    await patchStatus(metadata.name, { owner: { replica: 'another-replica', epoch: 99 } });
    await waitUntilServed();
    await patchStatus(metadata.name, { owner: null });
    await waitUntilServed();
    const { status } = await getReporter();
    expect(status.conditions.map(({ type }) => type)).to.deep.equal(['Connected', 'Synced', 'Ready']);
    expect(countUnchanged(before, await listObjects())).to.equal(20);
  });
});
