import { expect } from 'chai';
import { createFleet } from '../../src/simulate/fleet.ts';
import { countTunnelWrites } from '../support/audit-log.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { waitForMatch } from '../support/expected-objects.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';
import { OPERATOR_RBAC_RULES, startOperatorProcess } from '../support/operator-process.ts';

const TUNNELS = 20_000;
const DEADLINE_MS = 600_000;

describe('large report', () => {
  const controlPlane = useControlPlane();

  /**
   * The report exceeds gRPC's default limit of 4 MiB, decoding it yields about twenty times, and its objects fill
   * ten pages of a list. grpc-stream-registry.test.ts sends 100,000 tunnels, and the benchmark also syncs them.
   */
  it('a full push of 20,000 tunnels in 5 MB is ACKed and synced', async function () {
    this.timeout(1.2 * DEADLINE_MS);
    const namespace = await createNamespace(controlPlane(), 'large-report');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const operator = await startOperatorProcess({ kubeconfigPath, namespace });
    const fleet = createFleet({
      address: operator.grpcAddress,
      tunnels: 0,
      maxRetries: PATIENT_MAX_RETRIES,
    });
    try {
      await operator.ready();
      const node = 'x'.repeat(100);
      for (let i = 0; i < TUNNELS; i += 1)
        fleet.reporters[0]?.connectTunnel({ ...fleet.newInitiator(), nodeID: `${node}-${i}` });
      await fleet.start();
      await fleet.settled();
      expect(fleet.statistics()).to.include({ nacks: 0, attempts: 1 });
      await waitForMatch(fleet, controlPlane().request, namespace, DEADLINE_MS);
      const writes = await countTunnelWrites(controlPlane().auditLogPath ?? '', namespace);
      expect(writes.create).to.equal(TUNNELS);
    } finally {
      await fleet.stop();
      await operator.kill();
    }
  });
});
