/** Outages of the API server or of etcd, which streams must not notice. */
import { setTimeout as delay } from 'node:timers/promises';
import { waitUntilWritable, startApiServer } from './api-readiness.ts';
import { applyChangesOver } from './changes.ts';
import type { Metric, FaultScenario, Scale } from './scenario.ts';
import {
  commonMetrics,
  waitForConvergence,
  snapshot,
  objectWriteCount,
  waitUntilServed,
  streamCounts,
  writesSince,
} from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';

const DEADLINE_MS = 90_000;
/** A write without a response may or may not have been carried out. */
const MAX_IN_FLIGHT = 64;

interface Outage {
  readonly name: string;
  readonly description: string;
  /** Maximum seconds until the objects match. Default 10. */
  readonly withinSeconds?: number;
  /** `long`: as given by the scale. */
  readonly duration: number | 'long';
  readonly inject: (fixture: FaultFixture) => Promise<void> | void;
  /** Resolves when the API server serves again. */
  readonly recover: (fixture: FaultFixture) => Promise<void> | void;
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
      // kube-apiserver keeps running for a minute while watches are open; a load balancer would stop sending it
      // requests.
      apiProxy.cut();
      await ended;
    },
    async recover(fixture) {
      await startApiServer(fixture);
      fixture.apiProxy.restore();
    },
  },
  {
    name: 'api-bandwidth-limited',
    description: '20 kB/s per connection between operators and kube-apiserver',
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
 * A call in flight on a half-open connection waits for its own timeout, which is 30 s for a list. A fault within
 * that time is measured with longer bounds than its own.
 */
export const apiHalfOpen: FaultScenario = createScenario({
  name: 'api-half-open',
  description: 'every connection to kube-apiserver half-open, without a notification of the operators',
  duration: 1000,
  // Detected by timeouts only: 10 s for a write, then the watch, which a failed write causes to be checked.
  withinSeconds: 30,
  inject: ({ apiProxy }) => apiProxy.halfOpen('targets'),
  recover: () => {},
});

/** Each outage of the API server for 1 s and for long, then the others. */
export const apiOutages: readonly FaultScenario[] = [
  ...API_SERVER_OUTAGES.flatMap((outage): Outage[] => [
    { ...outage, name: `${outage.name}-1s`, description: `${outage.description} for 1 s`, duration: 1000 },
    {
      ...outage,
      name: `${outage.name}-long`,
      description: `${outage.description} for long (60 s at full scale)`,
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
      // The recovery of the API server does not wait for slow ACKs.
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
        { name: 'ACK delay of changes during the outage', value: ackedMs / 1000, unit: 's', atMost: 3 },
        { name: 'streams ended', value: meanwhile.disconnects - before.disconnects, atMost: 0 },
        { name: 'objects deleted', value: writes.delete, atMost: changes.delete },
        { name: 'object writes', value: objectWriteCount(writes), atMost: needed + MAX_IN_FLIGHT },
      ];
      if (durationMs >= 3000) {
        const expectedAcks = (fixture.fleet.reporters.length * passedMs) / 1000;
        const acks = meanwhile.acks - before.acks;
        metrics.push({
          name: 'share of expected ACKs',
          value: (acks * 100) / expectedAcks,
          unit: '%',
          atLeast: 80,
        });
      }
      return metrics;
    },
  };
}

/**
 * 30 % of the calls rejected with 429 and 503, and each call delayed by 2 s; compared with the same changes without
 * faults.
 */
export const apiRejects: FaultScenario = {
  name: 'api-rejects',
  description: 'kube-apiserver rejects 30 % of calls with 429 or 503, each call delayed by 2 s',
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
    objectWrites: number;
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
      objectWrites: now.objectWrites - calls.objectWrites,
      refused: now.rejected - calls.rejected,
      ackedMs,
    };
  };
  const before = await snapshot(fixture);
  setStatus('without faults');
  const healthy = await measurePeriod();
  await waitForConvergence(fixture, before, DEADLINE_MS);
  setStatus('rejecting and delaying calls');
  const streamsBefore = streamCounts(fixture);
  fixture.rejectingProxy.setFaults({ delayMs: 2000, rejectedPercent: 30 });
  const degraded = await measurePeriod();
  const { disconnects } = streamCounts(fixture);
  fixture.rejectingProxy.setFaults({ delayMs: 0, rejectedPercent: 0 });
  const after = await waitForConvergence(fixture, before, DEADLINE_MS);
  await waitUntilServed(fixture, DEADLINE_MS);
  return [
    ...commonMetrics(fixture, after, 10),
    { name: 'ACK delay of changes', value: degraded.ackedMs / 1000, unit: 's', atMost: 3 },
    { name: 'streams ended', value: disconnects - streamsBefore.disconnects, atMost: 0 },
    { name: 'calls rejected', value: degraded.refused, atLeast: 1 },
    {
      name: 'object write attempts relative to a fault-free run',
      value: degraded.objectWrites / healthy.objectWrites,
      atMost: 2,
    },
    { name: 'calls relative to a fault-free run', value: degraded.all / healthy.all, atMost: 2 },
  ];
}
