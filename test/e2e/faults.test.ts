import { expect } from 'chai';
import { apiHalfOpen, apiOutages, apiRejects } from '../faults/real/api-outages.ts';
import { formatMetric, isWithinBounds } from '../faults/real/metric.ts';
import { waitForInitialSync } from '../faults/real/convergence.ts';
import { tunnelCrdDeleted } from '../faults/real/crd-and-namespace-faults.ts';
import { rejectedByPolicy } from '../faults/real/rejected-objects.ts';
import { SMALL, type FaultScenario } from '../faults/real/scenario.ts';
import { openFaultFixture, type FaultFixture } from '../faults/real/fault-fixture.ts';
import { etcdCompacted, etcdRestored } from '../faults/real/etcd-faults.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

const DEADLINE_MS = 120_000;

/** A share of `npm run test:faults -- --real`, small and in every run. */
describe('faults over real processes', () => {
  let stage: FaultFixture;

  before('a control plane of its own, two replicas, 200 tunnels', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    stage = await openFaultFixture({ replicas: 2, reporters: 10, tunnels: 20, seed: 1 });
    await waitForInitialSync(stage, DEADLINE_MS);
  });
  after(() => stage.close());

  const scenarios: readonly FaultScenario[] = [
    // Of the outages those that no other test has; `npm run test:faults -- --real` has all.
    ...apiOutages.filter(({ name }) => name === 'api-unreachable-1s'),
    apiRejects,
    etcdCompacted,
    etcdRestored,
    ...rejectedByPolicy.slice(0, 1),
    tunnelCrdDeleted,
    apiHalfOpen,
  ];
  for (const scenario of scenarios) {
    it(`${scenario.description}: rows are the truth again, and nobody is touched who need not be`, async function () {
      this.timeout(DEADLINE_MS);
      const figures = await scenario.run(stage, SMALL, () => {});
      reportMeasurement(figures.map(formatMetric).join(', '));
      expect(figures.filter((figure) => !isWithinBounds(figure))).to.deep.equal([]);
    });
  }
});
