/** Reporters drop, all at once or without a word. */
import { setTimeout as delay } from 'node:timers/promises';
import { condition } from '../../support/replicas.ts';
import { changeFor } from './changes.ts';
import { common, converged, photograph, rowWritesOf, served, writesSince } from './judge.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';

const DEADLINE_MS = 120_000;
/** Reporters that fall silent. */
const SILENT = 5;

/** Silent ones that stay away until they are noticed, then all at once that return before they are. */
export const halfOpen: FaultScenario = {
  name: 'reporter-half-open',
  about: `${SILENT} reporters fall silent, their connections half-open, and return once noticed; then all return at once`,
  async run(stage, _sizes, doing) {
    const { fleet } = stage;
    const before = await photograph(stage);
    const silent = fleet.reporters.slice(0, SILENT);
    const startedMs = performance.now();
    for (const reporter of silent) {
      reporter.abandonConnection();
      reporter.stop();
    }
    doing('silent');
    const ids = new Set(silent.map(({ id }) => id.id));
    const saidMs = await until(startedMs, async () => {
      const shown = await stage.replicas.reporters();
      const lost = shown.filter(
        ({ spec, status }) => ids.has(spec.id) && condition(status, 'Connected').startsWith('False'),
      );
      return lost.length === SILENT;
    });
    const endedMs = await until(startedMs, async () => {
      let open = 0;
      for (const { process } of stage.replicas.running) {
        open += await process.metric('reverse_tunnel_reporters_connected');
      }
      return open === stage.reporterCount() - SILENT;
    });
    for (const reporter of silent) reporter.start();
    await fleet.settled();
    await served(stage, DEADLINE_MS);
    doing('all half-open, and back at once');
    for (const reporter of fleet.reporters) reporter.abandonConnection();
    // So that none is taken for settled on a connection that it no longer has.
    await delay(500);
    await fleet.settled();
    await served(stage, DEADLINE_MS);
    const after = await converged(stage, before, DEADLINE_MS);
    const writes = await writesSince(stage, before);
    return [
      ...common(stage, after, 10),
      { what: 'shown as not connected', value: saidMs / 1000, unit: 's', atMost: 45 },
      { what: 'stream ended', value: endedMs / 1000, unit: 's', atMost: 45 },
      { what: 'row writes', value: rowWritesOf(writes), atMost: 0 },
    ];
  },
};

/** Every connection breaks at the same moment; a fleet of 2,000 comes back within seconds. */
export const allDrop: FaultScenario = {
  name: 'reporters-drop',
  about: 'every reporter’s connection reset at once (the table: 2,000 × 50 tunnels)',
  async run(stage, _sizes, doing) {
    const { fleet } = stage;
    const before = await photograph(stage);
    const total = fleet.reporters.length;
    doing('reset');
    const startedMs = performance.now();
    stage.reporterWay.reset();
    await until(startedMs, () => fleet.statistics().connected < total / 2);
    const ackedMs = await until(startedMs, () => fleet.statistics().connected === total);
    await fleet.settled();
    doing('all are ACKed');
    const servedMs = await served(stage, DEADLINE_MS);
    const after = await converged(stage, before, DEADLINE_MS);
    const writes = await writesSince(stage, before);
    return [
      ...common(stage, after, 10),
      { what: 'all ACKed', value: ackedMs / 1000, unit: 's', atMost: 30 },
      { what: 'reporters in sync, after that', value: servedMs / 1000, unit: 's', atMost: 30 },
      { what: 'row writes', value: rowWritesOf(writes), atMost: Math.floor(before.rows.size / 100) },
      { what: 'rows deleted', value: writes.delete, atMost: 0 },
      { what: 'status writes of reporters', value: writes.reporters },
      { what: 'tunnels', value: before.rows.size },
    ];
  },
};

/** The reporters' way fails for 5 s; nothing that they hold changes because of it. */
function reportersHarmed(name: string, about: string, harm: (stage: Stage) => Promise<void>): FaultScenario {
  return {
    name,
    about,
    async run(stage, sizes, doing) {
      const before = await photograph(stage);
      doing('failing');
      const changing = changeFor(stage, sizes.changes, 5000);
      await harm(stage);
      const { changes } = await changing;
      const after = await converged(stage, before, DEADLINE_MS);
      const servedMs = await served(stage, DEADLINE_MS);
      const writes = rowWritesOf(await writesSince(stage, before));
      const needed = changes.create + changes.patch + changes.delete;
      return [
        ...common(stage, after, 20),
        { what: 'reporters in sync', value: (after.tookMs + servedMs) / 1000, unit: 's', atMost: 30 },
        { what: 'row writes', value: writes, atMost: needed },
      ];
    },
  };
}

/** Each is over within half a minute. */
export const reporterFaults: readonly FaultScenario[] = [
  reportersHarmed('reporters-stalled', 'every packet of reporters lost for 5 s', async ({ reporterWay }) => {
    reporterWay.stall();
    await delay(5000);
    reporterWay.pass();
  }),
  reportersHarmed('reporters-cut', 'reporters cut off for 5 s', async ({ reporterWay }) => {
    reporterWay.cut();
    await delay(5000);
    reporterWay.pass();
  }),
  reportersHarmed(
    'reporters-half-open',
    'all reporters’ connections half-open, back at once',
    ({ reporterWay }) => {
      reporterWay.halfOpen('clients');
      return Promise.resolve();
    },
  ),
  reportersHarmed('reporters-narrow', '2 kB a second a reporter for 5 s', async ({ reporterWay }) => {
    reporterWay.slow(2000);
    await delay(5000);
    reporterWay.pass();
  }),
];

/** How long after `startedMs` it holds. */
async function until(startedMs: number, holds: () => boolean | Promise<boolean>): Promise<number> {
  for (;;) {
    if (await holds()) return performance.now() - startedMs;
    const passedMs = performance.now() - startedMs;
    if (passedMs > DEADLINE_MS) throw new Error(`not within ${DEADLINE_MS / 1000} s`);
    await delay(100);
  }
}
