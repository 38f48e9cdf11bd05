/** The API server, or etcd behind it, is away for a while; streams must not notice. */
import { setTimeout as delay } from 'node:timers/promises';
import { apiWrites, startApi } from './api-return.ts';
import { changeFor } from './changes.ts';
import type { Figure } from './figure.ts';
import { common, converged, photograph, rowWritesOf, served, streamCounts, writesSince } from './judge.ts';
import type { FaultScenario, Sizes } from './scenario.ts';
import type { Stage } from './stage.ts';

const DEADLINE_MS = 90_000;
/** Of a write that was answered by nobody it is not known whether it was carried out. */
const IN_FLIGHT = 64;

interface Outage {
  readonly name: string;
  readonly about: string;
  /** Seconds until rows are the truth again; default 10. */
  readonly within?: number;
  /** `long`: as the sizes say. */
  readonly lasts: number | 'long';
  readonly harm: (stage: Stage) => Promise<void> | void;
  /** Resolves when it is there again. */
  readonly heal: (stage: Stage) => Promise<void> | void;
}

const PROCESSES: readonly Omit<Outage, 'lasts'>[] = [
  {
    name: 'api-killed',
    about: 'kube-apiserver killed -9',
    harm: ({ controlPlane }) => controlPlane.apiserver.kill(),
    heal: startApi,
  },
  {
    name: 'api-stopped',
    about: 'kube-apiserver stopped (SIGSTOP)',
    harm: ({ controlPlane }) => controlPlane.apiserver.pause(),
    heal: ({ controlPlane }) => controlPlane.apiserver.resume(),
  },
  {
    name: 'api-unreachable',
    about: 'every packet between operators and kube-apiserver lost',
    harm: ({ apiWay }) => apiWay.stall(),
    heal: ({ apiWay }) => apiWay.pass(),
  },
];

const OTHERS: readonly Outage[] = [
  {
    name: 'api-terminated',
    about: 'kube-apiserver SIGTERMed and started again, connections cut',
    lasts: 1000,
    async harm({ controlPlane, apiWay }) {
      const ended = controlPlane.apiserver.kill('SIGTERM');
      // It stays for a minute while watches are open; a load balancer before it takes it out.
      apiWay.cut();
      await ended;
    },
    async heal(stage) {
      await startApi(stage);
      stage.apiWay.pass();
    },
  },
  {
    name: 'api-narrow',
    about: '20 kB a second a connection between operators and kube-apiserver',
    lasts: 5000,
    harm: ({ apiWay }) => apiWay.slow(20_000),
    heal: ({ apiWay }) => apiWay.pass(),
  },
  {
    name: 'etcd-killed',
    about: 'etcd killed -9 and started again',
    lasts: 3000,
    harm: ({ controlPlane }) => controlPlane.etcd.kill(),
    async heal(stage) {
      await stage.controlPlane.etcd.start();
      await apiWrites(stage);
    },
  },
  {
    name: 'etcd-terminated',
    about: 'etcd SIGTERMed and started again',
    lasts: 1000,
    harm: ({ controlPlane }) => controlPlane.etcd.kill('SIGTERM'),
    async heal(stage) {
      await stage.controlPlane.etcd.start();
      await apiWrites(stage);
    },
  },
  {
    name: 'etcd-stopped',
    about: 'etcd stopped (SIGSTOP) for 15 s',
    lasts: 15_000,
    harm: ({ controlPlane }) => controlPlane.etcd.pause(),
    async heal(stage) {
      stage.controlPlane.etcd.resume();
      await apiWrites(stage);
    },
  },
];

/**
 * What was under way on a connection that is half-open is waited for until its own deadline, which is 30 s for a list:
 * another fault within that time is judged by longer bounds than its own.
 */
export const apiHalfOpen: FaultScenario = scenarioOf({
  name: 'api-half-open',
  about: 'every connection to kube-apiserver half-open: its end is gone, the operators hear nothing of it',
  lasts: 1000,
  // By time-outs alone: of a write 10 s, then of the watch, which a failed write makes suspect.
  within: 30,
  harm: ({ apiWay }) => apiWay.halfOpen('targets'),
  heal: () => {},
});

/** Each of the API server's for 1 s and for long, then the rest. */
export const apiOutages: readonly FaultScenario[] = [
  ...PROCESSES.flatMap((one): Outage[] => [
    { ...one, name: `${one.name}-1s`, about: `${one.about} for 1 s`, lasts: 1000 },
    { ...one, name: `${one.name}-long`, about: `${one.about} for long (the table: 60 s)`, lasts: 'long' },
  ]),
  ...OTHERS,
].map(scenarioOf);

function scenarioOf({ name, about, lasts, within = 10, harm, heal }: Outage): FaultScenario {
  return {
    name,
    about,
    async run(stage, sizes, doing) {
      const forMs = lasts === 'long' ? sizes.outageMs : lasts;
      const before = await photograph(stage);
      doing('away');
      await harm(stage);
      // The API server's return is no reason to wait with it when changes take longer to be ACKed.
      const awayMs = performance.now();
      const { changes, ackedMs } = await changeFor(stage, sizes.changes, forMs);
      const meanwhile = streamCounts(stage);
      const passedMs = performance.now() - awayMs;
      await heal(stage);
      doing('back');
      const after = await converged(stage, before, DEADLINE_MS);
      const servedMs = await served(stage, DEADLINE_MS);
      const writes = await writesSince(stage, before);
      const needed = changes.create + changes.patch + changes.delete;
      const figures: Figure[] = [
        ...common(stage, after, within),
        { what: 'reporters in sync', value: (after.tookMs + servedMs) / 1000, unit: 's', atMost: 30 },
        { what: 'changes ACKed meanwhile, after the last', value: ackedMs / 1000, unit: 's', atMost: 3 },
        { what: 'streams ended', value: meanwhile.disconnects - before.disconnects, atMost: 0 },
        { what: 'rows deleted', value: writes.delete, atMost: changes.delete },
        { what: 'row writes', value: rowWritesOf(writes), atMost: needed + IN_FLIGHT },
      ];
      if (forMs >= 3000) {
        const due = (stage.fleet.reporters.length * passedMs) / 1000;
        const acks = meanwhile.acks - before.acks;
        figures.push({ what: 'ACKs of those due', value: (acks * 100) / due, unit: '%', atLeast: 80 });
      }
      return figures;
    },
  };
}

/** 30 % refused by 429 and 503, each call 2 s late: compared with the same changes in fair weather. */
export const apiRefuses: FaultScenario = {
  name: 'api-refuses',
  about: 'kube-apiserver answers 30 % of calls with 429 or 503, each after 2 s more',
  async run(stage, sizes, doing) {
    stage.throughRefusing(true);
    try {
      return await refusedFor(stage, sizes, doing);
    } finally {
      stage.refusing.setWeather({ delayMs: 0, refusedPercent: 0 });
      stage.throughRefusing(false);
    }
  },
};

async function refusedFor(stage: Stage, sizes: Sizes, doing: (what: string) => void): Promise<Figure[]> {
  await served(stage, DEADLINE_MS);
  const spell = async (): Promise<{ all: number; rowWrites: number; ackedMs: number; refused: number }> => {
    const calls = stage.refusing.calls();
    const startedMs = performance.now();
    const { ackedMs } = await changeFor(stage, sizes.changes, sizes.refusedMs / 3);
    await delay(Math.max(0, sizes.refusedMs - (performance.now() - startedMs)));
    const now = stage.refusing.calls();
    return {
      all: now.all - calls.all,
      rowWrites: now.rowWrites - calls.rowWrites,
      refused: now.refused - calls.refused,
      ackedMs,
    };
  };
  const before = await photograph(stage);
  doing('fair weather');
  const fair = await spell();
  await converged(stage, before, DEADLINE_MS);
  doing('calls are refused and slow');
  const then = streamCounts(stage);
  stage.refusing.setWeather({ delayMs: 2000, refusedPercent: 30 });
  const foul = await spell();
  const { disconnects } = streamCounts(stage);
  stage.refusing.setWeather({ delayMs: 0, refusedPercent: 0 });
  const after = await converged(stage, before, DEADLINE_MS);
  await served(stage, DEADLINE_MS);
  return [
    ...common(stage, after, 10),
    { what: 'changes ACKed, after the last', value: foul.ackedMs / 1000, unit: 's', atMost: 3 },
    { what: 'streams ended', value: disconnects - then.disconnects, atMost: 0 },
    { what: 'calls refused', value: foul.refused, atLeast: 1 },
    {
      what: 'row writes tried over those of fair weather',
      value: foul.rowWrites / fair.rowWrites,
      atMost: 2,
    },
    { what: 'all calls over those of fair weather', value: foul.all / fair.all, atMost: 2 },
  ];
}
