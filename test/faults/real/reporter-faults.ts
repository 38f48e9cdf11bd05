/** Reporters that disconnect, all at once or without notification. */
import { setTimeout as delay } from 'node:timers/promises';
import { conditionText } from '../../support/replicas.ts';
import { createScenario } from './changes-during-fault.ts';
import {
  countObjectWrites,
  listOperatorWrites,
  measureRecovery,
  snapshot,
  waitUntil,
  waitUntilServed,
} from './convergence.ts';
import type { FaultProxy } from './fault-proxy.ts';
import type { FaultScenario } from './scenario.ts';

const SILENT_REPORTERS = 5;

/** Half-open reporters that stay away until they are detected, then all at once that reconnect before. */
export const reporterHalfOpen: FaultScenario = {
  name: 'reporter-half-open',
  description: `${SILENT_REPORTERS} reporters half-open until they are detected; then all half-open and reconnecting at once`,
  async run(fixture, _scale, setStatus) {
    const { fleet } = fixture;
    const before = await snapshot(fixture);
    const silent = fleet.reporters.slice(0, SILENT_REPORTERS);
    const startedMs = performance.now();
    for (const reporter of silent) {
      reporter.halfOpenConnection();
      reporter.stop();
    }
    setStatus('silent');
    const ids = new Set(silent.map(({ id }) => id.id));
    await waitUntil('disconnected reporters', async () => {
      const observed = await fixture.replicas.reporters();
      const disconnected = observed.filter(
        ({ spec, status }) => ids.has(spec.id) && conditionText(status, 'Connected').startsWith('False'),
      );
      return disconnected.length === SILENT_REPORTERS;
    });
    const shownMs = performance.now() - startedMs;
    await waitUntil('ended streams', async () => {
      let open = 0;
      for (const { process } of fixture.replicas.running) {
        open += await process.metric('reverse_tunnel_reporters_connected');
      }
      return open === fixture.reporterCount() - SILENT_REPORTERS;
    });
    const endedMs = performance.now() - startedMs;
    for (const reporter of silent) reporter.start();
    await fleet.settled();
    await waitUntilServed(fixture);
    setStatus('all half-open and reconnecting');
    for (const reporter of fleet.reporters) reporter.halfOpenConnection();
    // No reporter may count as settled on a connection that it no longer has.
    await delay(500);
    await fleet.settled();
    return [
      ...(await measureRecovery(fixture, before, { converged: 10, writes: 0 })),
      { name: 'shown as disconnected', value: shownMs / 1000, unit: 's', atMost: 45 },
      { name: 'stream ended', value: endedMs / 1000, unit: 's', atMost: 45 },
    ];
  },
};

/** All connections are reset at the same moment; a fleet of 2,000 reconnects within seconds. */
export const allReportersDropped: FaultScenario = {
  name: 'reporters-drop',
  description: 'every reporter’s connection reset at once (the table: 2,000 × 50 tunnels)',
  async run(fixture, _scale, setStatus) {
    const { fleet } = fixture;
    const before = await snapshot(fixture);
    const total = fleet.reporters.length;
    setStatus('reset');
    const startedMs = performance.now();
    fixture.reporterProxy.reset();
    await waitUntil('broken connections', () => fleet.statistics().connected < total / 2, 100);
    await waitUntil('reconnected reporters', () => fleet.statistics().connected === total, 100);
    const ackedMs = performance.now() - startedMs;
    await fleet.settled();
    setStatus('all ACKed');
    const servedMs = await waitUntilServed(fixture);
    const writes = Math.floor(before.objects.size / 100);
    const metrics = await measureRecovery(fixture, before, { converged: 10, writes });
    const all = await listOperatorWrites(fixture, before);
    return [
      ...metrics,
      { name: 'all ACKed', value: ackedMs / 1000, unit: 's', atMost: 30 },
      { name: 'reporters in sync after that', value: servedMs / 1000, unit: 's', atMost: 30 },
      {
        name: 'objects deleted',
        value: await countObjectWrites(fixture, before, 'delete'),
        atMost: 0,
      },
      {
        name: 'reporter object status writes',
        value: all.filter(({ resource }) => resource === 'reversetunnelreporters/status').length,
      },
      { name: 'tunnels', value: before.objects.size },
    ];
  },
};

type NetworkFault = readonly [name: string, description: string, inject: (proxy: FaultProxy) => void];
const NETWORK_FAULTS: readonly NetworkFault[] = [
  ['reporters-stalled', 'every packet of reporters lost for 5 s', (proxy) => proxy.stall()],
  ['reporters-cut', 'reporters cut off for 5 s', (proxy) => proxy.cut()],
  [
    'reporters-half-open',
    'all reporters’ connections half-open, reconnecting at once',
    (proxy) => proxy.halfOpen('clients'),
  ],
  ['reporters-bandwidth-limited', '2 kB/s per reporter for 5 s', (proxy) => proxy.throttle(2000)],
];

/** The network of the reporters fails for 5 s, which must not change any object. */
export const reporterFaults: readonly FaultScenario[] = NETWORK_FAULTS.map(([name, description, inject]) =>
  createScenario({
    name,
    description,
    changesMs: 5000,
    inject: ({ reporterProxy }) => inject(reporterProxy),
    recover: ({ reporterProxy }) => reporterProxy.restore(),
    bounds: { converged: 20, inSync: 30 },
    extraWrites: 0,
  }),
);
