/** The API server, or etcd behind it, is away for a while; streams must not notice. */
import { setTimeout as delay } from 'node:timers/promises';
import { waitUntilWritable, startApiServer } from './api-readiness.ts';
import { applyChangesOver } from './changes.ts';
import type { Metric } from './metric.ts';
import {
  commonMetrics,
  waitForConvergence,
  snapshot,
  objectWriteCount,
  waitUntilServed,
  streamCounts,
  writesSince,
} from './convergence.ts';
import type { FaultScenario, Scale } from './scenario.ts';
import type { FaultFixture } from './fault-fixture.ts';

const DEADLINE_MS = 90_000;
/** Of a write that was answered by nobody it is not known whether it was carried out. */
const MAX_IN_FLIGHT = 64;

interface Outage {
  readonly name: string;
  readonly description: string;
  /** Seconds until rows are the truth again; default 10. */
  readonly withinSeconds?: number;
  /** `long`: as the sizes say. */
  readonly duration: number | 'long';
  readonly inject: (stage: FaultFixture) => Promise<void> | void;
  /** Resolves when it is there again. */
  readonly recover: (stage: FaultFixture) => Promise<void> | void;
}

const API_SERVER_OUTAGES: readonly Omit<Outage, 'duration'>[] = [
  {
    name: 'api-killed',
    description: 'kube-apiserver killed -9',
    inject: ({ controlPlane }) => controlPlane.apiserver.kill(),
    recover: startApiServer,
  },
  {
    name: 'api-stopped',
    description: 'kube-apiserver stopped (SIGSTOP)',
    inject: ({ controlPlane }) => controlPlane.apiserver.pause(),
    recover: ({ controlPlane }) => controlPlane.apiserver.resume(),
  },
  {
    name: 'api-unreachable',
    description: 'every packet between operators and kube-apiserver lost',
    inject: ({ apiProxy }) => apiProxy.stall(),
    recover: ({ apiProxy }) => apiProxy.restore(),
  },
];

const OTHER_OUTAGES: readonly Outage[] = [
  {
    name: 'api-terminated',
    description: 'kube-apiserver SIGTERMed and started again, connections cut',
    duration: 1000,
    async inject({ controlPlane, apiProxy }) {
      const ended = controlPlane.apiserver.kill('SIGTERM');
      // It stays for a minute while watches are open; a load balancer before it takes it out.
      apiProxy.cut();
      await ended;
    },
    async recover(fixture) {
      await startApiServer(fixture);
      fixture.apiProxy.restore();
    },
  },
  {
    name: 'api-narrow',
    description: '20 kB a second a connection between operators and kube-apiserver',
    duration: 5000,
    inject: ({ apiProxy }) => apiProxy.throttle(20_000),
    recover: ({ apiProxy }) => apiProxy.restore(),
  },
  {
    name: 'etcd-killed',
    description: 'etcd killed -9 and started again',
    duration: 3000,
    inject: ({ controlPlane }) => controlPlane.etcd.kill(),
    async recover(fixture) {
      await fixture.controlPlane.etcd.start();
      await waitUntilWritable(fixture);
    },
  },
  {
    name: 'etcd-terminated',
    description: 'etcd SIGTERMed and started again',
    duration: 1000,
    inject: ({ controlPlane }) => controlPlane.etcd.kill('SIGTERM'),
    async recover(fixture) {
      await fixture.controlPlane.etcd.start();
      await waitUntilWritable(fixture);
    },
  },
  {
    name: 'etcd-stopped',
    description: 'etcd stopped (SIGSTOP) for 15 s',
    duration: 15_000,
    inject: ({ controlPlane }) => controlPlane.etcd.pause(),
    async recover(fixture) {
      fixture.controlPlane.etcd.resume();
      await waitUntilWritable(fixture);
    },
  },
];

/**
 * What was under way on a connection that is half-open is waited for until its own deadline, which is 30 s for a list:
 * another fault within that time is judged by longer bounds than its own.
 */
export const apiHalfOpen: FaultScenario = createScenario({
  name: 'api-half-open',
  description:
    'every connection to kube-apiserver half-open: its end is gone, the operators hear nothing of it',
  duration: 1000,
  // By time-outs alone: of a write 10 s, then of the watch, which a failed write makes suspect.
  withinSeconds: 30,
  inject: ({ apiProxy }) => apiProxy.halfOpen('targets'),
  recover: () => {},
});

/** Each of the API server's for 1 s and for long, then the rest. */
export const apiOutages: readonly FaultScenario[] = [
  ...API_SERVER_OUTAGES.flatMap((outage): Outage[] => [
    { ...outage, name: `${outage.name}-1s`, description: `${outage.description} for 1 s`, duration: 1000 },
    {
      ...outage,
      name: `${outage.name}-long`,
      description: `${outage.description} for long (the table: 60 s)`,
      duration: 'long',
    },
  ]),
  ...OTHER_OUTAGES,
].map(createScenario);

function createScenario({
  name,
  description,
  duration,
  withinSeconds = 10,
  inject,
  recover,
}: Outage): FaultScenario {
  return {
    name,
    description,
    async run(fixture, scale, setStatus) {
      const durationMs = duration === 'long' ? scale.outageMs : duration;
      const before = await snapshot(fixture);
      setStatus('away');
      await inject(fixture);
      // The API server's return is no reason to wait with it when changes take longer to be ACKed.
      const injectedMs = performance.now();
      const { changes, ackedMs } = await applyChangesOver(fixture, scale.changes, durationMs);
      const meanwhile = streamCounts(fixture);
      const passedMs = performance.now() - injectedMs;
      await recover(fixture);
      setStatus('back');
      const after = await waitForConvergence(fixture, before, DEADLINE_MS);
      const servedMs = await waitUntilServed(fixture, DEADLINE_MS);
      const writes = await writesSince(fixture, before);
      const needed = changes.create + changes.patch + changes.delete;
      const metrics: Metric[] = [
        ...commonMetrics(fixture, after, withinSeconds),
        { name: 'reporters in sync', value: (after.durationMs + servedMs) / 1000, unit: 's', atMost: 30 },
        { name: 'changes ACKed meanwhile, after the last', value: ackedMs / 1000, unit: 's', atMost: 3 },
        { name: 'streams ended', value: meanwhile.disconnects - before.disconnects, atMost: 0 },
        { name: 'rows deleted', value: writes.delete, atMost: changes.delete },
        { name: 'row writes', value: objectWriteCount(writes), atMost: needed + MAX_IN_FLIGHT },
      ];
      if (durationMs >= 3000) {
        const expectedAcks = (fixture.fleet.reporters.length * passedMs) / 1000;
        const acks = meanwhile.acks - before.acks;
        metrics.push({
          name: 'ACKs of those due',
          value: (acks * 100) / expectedAcks,
          unit: '%',
          atLeast: 80,
        });
      }
      return metrics;
    },
  };
}

/** 30 % refused by 429 and 503, each call 2 s late: compared with the same changes in fair weather. */
export const apiRejects: FaultScenario = {
  name: 'api-refuses',
  description: 'kube-apiserver answers 30 % of calls with 429 or 503, each after 2 s more',
  async run(fixture, scale, setStatus) {
    fixture.setRejecting(true);
    try {
      return await measureRejections(fixture, scale, setStatus);
    } finally {
      fixture.rejectingProxy.setFaults({ delayMs: 0, rejectedPercent: 0 });
      fixture.setRejecting(false);
    }
  },
};

async function measureRejections(
  fixture: FaultFixture,
  scale: Scale,
  setStatus: (what: string) => void,
): Promise<Metric[]> {
  await waitUntilServed(fixture, DEADLINE_MS);
  const measurePeriod = async (): Promise<{
    all: number;
    rowWrites: number;
    ackedMs: number;
    refused: number;
  }> => {
    const calls = fixture.rejectingProxy.calls();
    const startedMs = performance.now();
    const { ackedMs } = await applyChangesOver(fixture, scale.changes, scale.rejectionMs / 3);
    await delay(Math.max(0, scale.rejectionMs - (performance.now() - startedMs)));
    const now = fixture.rejectingProxy.calls();
    return {
      all: now.all - calls.all,
      rowWrites: now.objectWrites - calls.objectWrites,
      refused: now.rejected - calls.rejected,
      ackedMs,
    };
  };
  const before = await snapshot(fixture);
  setStatus('fair weather');
  const healthy = await measurePeriod();
  await waitForConvergence(fixture, before, DEADLINE_MS);
  setStatus('calls are refused and slow');
  const streamsBefore = streamCounts(fixture);
  fixture.rejectingProxy.setFaults({ delayMs: 2000, rejectedPercent: 30 });
  const degraded = await measurePeriod();
  const { disconnects } = streamCounts(fixture);
  fixture.rejectingProxy.setFaults({ delayMs: 0, rejectedPercent: 0 });
  const after = await waitForConvergence(fixture, before, DEADLINE_MS);
  await waitUntilServed(fixture, DEADLINE_MS);
  return [
    ...commonMetrics(fixture, after, 10),
    { name: 'changes ACKed, after the last', value: degraded.ackedMs / 1000, unit: 's', atMost: 3 },
    { name: 'streams ended', value: disconnects - streamsBefore.disconnects, atMost: 0 },
    { name: 'calls refused', value: degraded.refused, atLeast: 1 },
    {
      name: 'row writes tried over those of fair weather',
      value: degraded.rowWrites / healthy.rowWrites,
      atMost: 2,
    },
    { name: 'all calls over those of fair weather', value: degraded.all / healthy.all, atMost: 2 },
  ];
}
