/** Reporters that disconnect, all at once or without notification. */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../support/eventually.ts';
import { conditionText } from '../../support/replicas.ts';
import { applyChangesOver } from './changes.ts';
import {
  commonMetrics,
  waitForConvergence,
  snapshot,
  objectWriteCount,
  waitUntilServed,
  writesSince,
} from './convergence.ts';
import type { FaultScenario } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';

const DEADLINE_MS = 120_000;
/** Number of half-open reporters. */
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
    const shownMs = await waitUntil('disconnected reporters', startedMs, async () => {
      const observed = await fixture.replicas.reporters();
      const disconnected = observed.filter(
        ({ spec, status }) => ids.has(spec.id) && conditionText(status, 'Connected').startsWith('False'),
      );
      return disconnected.length === SILENT_REPORTERS;
    });
    const endedMs = await waitUntil('ended streams', startedMs, async () => {
      let open = 0;
      for (const { process } of fixture.replicas.running) {
        open += await process.metric('reverse_tunnel_reporters_connected');
      }
      return open === fixture.reporterCount() - SILENT_REPORTERS;
    });
    for (const reporter of silent) reporter.start();
    await fleet.settled();
    await waitUntilServed(fixture, DEADLINE_MS);
    setStatus('all half-open and reconnecting');
    for (const reporter of fleet.reporters) reporter.halfOpenConnection();
    // No reporter may count as settled on a connection that it no longer has.
    await delay(500);
    await fleet.settled();
    await waitUntilServed(fixture, DEADLINE_MS);
    const after = await waitForConvergence(fixture, before, DEADLINE_MS);
    const writes = await writesSince(fixture, before);
    return [
      ...commonMetrics(fixture, after, 10),
      { name: 'shown as disconnected', value: shownMs / 1000, unit: 's', atMost: 45 },
      { name: 'stream ended', value: endedMs / 1000, unit: 's', atMost: 45 },
      { name: 'object writes', value: objectWriteCount(writes), atMost: 0 },
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
    await waitUntil('broken connections', startedMs, () => fleet.statistics().connected < total / 2);
    const ackedMs = await waitUntil(
      'reconnected reporters',
      startedMs,
      () => fleet.statistics().connected === total,
    );
    await fleet.settled();
    setStatus('all ACKed');
    const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
    const after = await waitForConvergence(fixture, before, DEADLINE_MS);
    const writes = await writesSince(fixture, before);
    return [
      ...commonMetrics(fixture, after, 10),
      { name: 'all ACKed', value: ackedMs / 1000, unit: 's', atMost: 30 },
      { name: 'reporters in sync after that', value: servedMs / 1000, unit: 's', atMost: 30 },
      {
        name: 'object writes',
        value: objectWriteCount(writes),
        atMost: Math.floor(before.objects.size / 100),
      },
      { name: 'objects deleted', value: writes.delete, atMost: 0 },
      { name: 'reporter object status writes', value: writes.reporters },
      { name: 'tunnels', value: before.objects.size },
    ];
  },
};

/** The network of the reporters fails for 5 s, which must not change any object. */
function createReporterScenario(
  name: string,
  about: string,
  inject: (fixture: FaultFixture) => Promise<void>,
): FaultScenario {
  return {
    name,
    description: about,
    async run(fixture, scale, setStatus) {
      const before = await snapshot(fixture);
      setStatus('failing');
      const changing = applyChangesOver(fixture, scale.changes, 5000);
      await inject(fixture);
      const { changes } = await changing;
      const after = await waitForConvergence(fixture, before, DEADLINE_MS);
      const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
      const writes = objectWriteCount(await writesSince(fixture, before));
      const needed = changes.create + changes.patch + changes.delete;
      return [
        ...commonMetrics(fixture, after, 20),
        { name: 'reporters in sync', value: (after.durationMs + servedMs) / 1000, unit: 's', atMost: 30 },
        { name: 'object writes', value: writes, atMost: needed },
      ];
    },
  };
}

/** Each ends within half a minute. */
export const reporterFaults: readonly FaultScenario[] = [
  createReporterScenario(
    'reporters-stalled',
    'every packet of reporters lost for 5 s',
    async ({ reporterProxy }) => {
      reporterProxy.stall();
      await delay(5000);
      reporterProxy.restore();
    },
  ),
  createReporterScenario('reporters-cut', 'reporters cut off for 5 s', async ({ reporterProxy }) => {
    reporterProxy.cut();
    await delay(5000);
    reporterProxy.restore();
  }),
  createReporterScenario(
    'reporters-half-open',
    'all reporters’ connections half-open, reconnecting at once',
    ({ reporterProxy }) => {
      reporterProxy.halfOpen('clients');
      return Promise.resolve();
    },
  ),
  createReporterScenario(
    'reporters-bandwidth-limited',
    '2 kB/s per reporter for 5 s',
    async ({ reporterProxy }) => {
      reporterProxy.throttle(2000);
      await delay(5000);
      reporterProxy.restore();
    },
  ),
];

/** Waits for a condition, checked every 100 ms. Returns the milliseconds since `startedMs`. */
async function waitUntil(
  what: string,
  startedMs: number,
  predicate: () => boolean | Promise<boolean>,
): Promise<number> {
  await eventually(what, predicate, DEADLINE_MS, 100);
  return performance.now() - startedMs;
}
