import { expect } from 'chai';
import { createFleet } from '../../src/simulate/fleet.ts';
import { countTunnelWrites } from '../support/audit-log.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { waitForMatch } from '../support/expected-objects.ts';
import { OPERATOR_RBAC_RULES, poll, startOperatorProcess } from '../support/operator-process.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';

const DEADLINE_MS = 300_000;

describe('objects under churn', () => {
  const controlPlane = useControlPlane();

  it('match the tunnels of 20 reporters after 4,000 tunnels were added and 4,000 removed, with flaps', async function () {
    this.timeout(4 * DEADLINE_MS);
    const namespace = await createNamespace(controlPlane(), 'churn');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const flags = ['--report-interval', '500ms'];
    const operator = await startOperatorProcess({ kubeconfigPath, namespace, flags });
    const fleet = createFleet({
      address: operator.grpcAddress,
      connectRetryIntervalMs: 200,
      maxRetries: PATIENT_MAX_RETRIES,
      reporters: 20,
      tunnels: 250,
      tenants: 5,
      churnPerSecond: 80,
      flapsPerSecond: 80,
    });
    try {
      await operator.ready();
      await fleet.start();
      await poll(2 * DEADLINE_MS, () => {
        const { tunnelsAdded, tunnelsRemoved } = fleet.statistics();
        return (tunnelsAdded - 5000 >= 4000 && tunnelsRemoved >= 4000) || undefined;
      });
      fleet.pauseChurn();
      await fleet.settled();
      await waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
      const { nacks, outOfOrderAcks } = fleet.statistics();
      expect({ nacks, outOfOrderAcks }).to.deep.equal({ nacks: 0, outOfOrderAcks: 0 });
      const { failed } = await countTunnelWrites(controlPlane().auditLogPath ?? '', namespace);
      expect(failed, 'rejected or conflicting writes').to.equal(0);
    } finally {
      await fleet.stop();
      await operator.kill();
    }
  });
});
