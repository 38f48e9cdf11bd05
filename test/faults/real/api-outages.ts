/** Outages of the API server or of etcd, which streams must not notice. */
import { setTimeout as delay } from 'node:timers/promises';
import { waitUntilWritable, startApiServer } from './api-readiness.ts';
import { applyChangesOver, waitForAcks } from './changes.ts';
import { createScenario, type ChangesDuringFault } from './changes-during-fault.ts';
import { commonMetrics, waitForConvergence, snapshot, waitUntilServed, streamCounts } from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';
import type { FaultScenario } from './scenario.ts';

type Outage = Pick<ChangesDuringFault, 'name' | 'description' | 'changesMs' | 'inject' | 'recover'>;

const API_SERVER_OUTAGES: readonly Omit<Outage, 'changesMs'>[] = [
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

const startEtcd = async (fixture: FaultFixture): Promise<void> => {
  await fixture.controlPlane.etcd.start();
  await waitUntilWritable(fixture);
};

const OTHER_OUTAGES: readonly Outage[] = [
  {
    name: 'api-terminated',
    description: 'kube-apiserver SIGTERMed and started again, connections cut',
    changesMs: 1000,
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
    changesMs: 5000,
    inject: ({ apiProxy }) => apiProxy.throttle(20_000),
    recover: ({ apiProxy }) => apiProxy.restore(),
  },
  {
    name: 'etcd-killed',
    description: 'etcd killed -9 and started again',
    changesMs: 3000,
    inject: ({ controlPlane }) => controlPlane.etcd.kill(),
    recover: startEtcd,
  },
  {
    name: 'etcd-terminated',
    description: 'etcd SIGTERMed and started again',
    changesMs: 1000,
    inject: ({ controlPlane }) => controlPlane.etcd.kill('SIGTERM'),
    recover: startEtcd,
  },
  {
    name: 'etcd-stopped',
    description: 'etcd stopped (SIGSTOP) for 15 s',
    changesMs: 15_000,
    inject: ({ controlPlane }) => controlPlane.etcd.pause(),
    async recover(fixture) {
      fixture.controlPlane.etcd.resume();
      await waitUntilWritable(fixture);
    },
  },
];

/** Adds the bounds. A write without a response may or may not have been carried out, and up to 64 are in flight. */
function createOutage(outage: Outage, converged = 10): FaultScenario {
  return createScenario({ ...outage, isHidden: true, bounds: { converged, inSync: 30 }, extraWrites: 64 });
}

/**
 * A call in flight on a half-open connection waits for its own timeout, which is 30 s for a list. A fault within
 * that time is measured with longer bounds than its own. It is detected by timeouts only: 10 s for a write, then the
 * watch, which a failed write causes to be checked.
 */
export const apiHalfOpen: FaultScenario = createOutage(
  {
    name: 'api-half-open',
    description: 'every connection to kube-apiserver half-open, without a notification of the operators',
    changesMs: 1000,
    inject: ({ apiProxy }) => apiProxy.halfOpen('targets'),
    recover: () => {},
  },
  30,
);

/** Each outage of the API server for 1 s and for long, then the others. */
export const apiOutages: readonly FaultScenario[] = [
  ...API_SERVER_OUTAGES.flatMap(({ name, description, ...outage }): Outage[] => [
    { ...outage, name: `${name}-1s`, description: `${description} for 1 s`, changesMs: 1000 },
    {
      ...outage,
      name: `${name}-long`,
      description: `${description} for long (60 s at full scale)`,
      changesMs: 'long',
    },
  ]),
  ...OTHER_OUTAGES,
].map((outage) => createOutage(outage));

/**
 * 30 % of the calls rejected with 429 and 503, and each call delayed by 2 s; compared with the same changes without
 * faults.
 */
export const apiRejects: FaultScenario = {
  name: 'api-rejects',
  description: 'kube-apiserver rejects 30 % of calls with 429 or 503, each call delayed by 2 s',
  async run(fixture, scale, setStatus) {
    const { rejectingProxy } = fixture;
    const measurePeriod = async () => {
      const before = rejectingProxy.calls();
      const startedMs = performance.now();
      await applyChangesOver(fixture, scale.changes, scale.rejectionMs / 3);
      const ackedMs = await waitForAcks(fixture);
      await delay(Math.max(0, scale.rejectionMs - (performance.now() - startedMs)));
      const now = rejectingProxy.calls();
      return {
        all: now.all - before.all,
        objectWrites: now.objectWrites - before.objectWrites,
        rejected: now.rejected - before.rejected,
        ackedMs,
      };
    };
    fixture.setRejecting(true);
    try {
      await waitUntilServed(fixture);
      const before = await snapshot(fixture);
      setStatus('without faults');
      const healthy = await measurePeriod();
      await waitForConvergence(fixture, before);
      setStatus('rejecting and delaying calls');
      const streamsBefore = streamCounts(fixture);
      rejectingProxy.setFaults({ delayMs: 2000, rejectedPercent: 30 });
      const degraded = await measurePeriod();
      const { disconnects } = streamCounts(fixture);
      rejectingProxy.setFaults({ delayMs: 0, rejectedPercent: 0 });
      const after = await waitForConvergence(fixture, before);
      await waitUntilServed(fixture);
      return [
        ...commonMetrics(fixture, after, 10),
        { name: 'ACK delay of changes', value: degraded.ackedMs / 1000, unit: 's', atMost: 3 },
        { name: 'streams ended', value: disconnects - streamsBefore.disconnects, atMost: 0 },
        { name: 'calls rejected', value: degraded.rejected, atLeast: 1 },
        {
          name: 'object write attempts relative to a fault-free run',
          value: degraded.objectWrites / healthy.objectWrites,
          atMost: 2,
        },
        { name: 'calls relative to a fault-free run', value: degraded.all / healthy.all, atMost: 2 },
      ];
    } finally {
      rejectingProxy.setFaults({ delayMs: 0, rejectedPercent: 0 });
      fixture.setRejecting(false);
    }
  },
};
