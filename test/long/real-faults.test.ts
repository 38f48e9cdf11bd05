import { expect } from 'chai';
import { apiHalfOpen, apiOutages, apiRejects } from '../faults/real/api-outages.ts';
import {
  formatMetric,
  isWithinBounds,
  SMALL,
  type FaultScenario,
  type Metric,
} from '../faults/real/scenario.ts';
import { waitForInitialSync } from '../faults/real/convergence.ts';
import { tunnelCrdDeleted } from '../faults/real/crd-and-namespace-faults.ts';
import { rejectedByPolicy } from '../faults/real/rejected-objects.ts';
import { openFaultFixture, type FaultFixture } from '../faults/real/fault-fixture.ts';
import { etcdCompacted, etcdRestored } from '../faults/real/etcd-faults.ts';
import { FIRST_START_TIMEOUT_MS } from '../support/control-plane.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';
import { reportMeasurement } from '../support/report-measurement.ts';

const DEADLINE_MS = 120_000;
/** The table bounds times on an idle machine. They are not what is tested here, so a busy one gets more. */
const TIME_FACTOR = 5;

function withMoreTime(metric: Metric): Metric {
  const { unit, atMost } = metric;
  return unit === 's' && atMost !== undefined ? { ...metric, atMost: TIME_FACTOR * atMost } : metric;
}

/** A small part of `npm run test:faults -- --real` for every run. */
describe('faults of real processes', () => {
  let fixture: FaultFixture;

  before('starts a control plane, two replicas and 200 tunnels', async function () {
    this.timeout(FIRST_START_TIMEOUT_MS);
    fixture = await openFaultFixture({
      ...{ replicas: 2, reporters: 10, tunnels: 20, seed: 1 },
      maxRetries: PATIENT_MAX_RETRIES,
    });
    await waitForInitialSync(fixture, DEADLINE_MS);
  });
  after(() => fixture.close());

  const scenarios: readonly FaultScenario[] = [
    // Only outages that no other test covers; `npm run test:faults -- --real` runs all.
    ...apiOutages.filter(({ name }) => name === 'api-unreachable-1s'),
    apiRejects,
    etcdCompacted,
    etcdRestored,
    ...rejectedByPolicy.slice(0, 1),
    tunnelCrdDeleted,
    apiHalfOpen,
  ];
  for (const scenario of scenarios) {
    it(`converges after: ${scenario.description}`, async function () {
      this.timeout(3 * DEADLINE_MS);
      const metrics = (await scenario.run(fixture, SMALL, () => {})).map(withMoreTime);
      reportMeasurement(metrics.map(formatMetric).join(', '));
      expect(metrics.filter((metric) => !isWithinBounds(metric))).to.deep.equal([]);
    });
  }
});
