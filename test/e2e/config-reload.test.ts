import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createFleet } from '../../src/simulate/fleet.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { OPERATOR_RBAC_RULES, poll, startOperatorProcess } from '../support/operator-process.ts';
import { PATIENT_MAX_RETRIES } from '../support/patient-fleet.ts';

const DEADLINE_MS = 60_000;

describe('configuration file that changes at runtime', () => {
  const controlPlane = useControlPlane();

  it('sends the new report interval to open streams, logs what needs a restart, and ignores an invalid file', async function () {
    this.timeout(3 * DEADLINE_MS);
    const namespace = await createNamespace(controlPlane(), 'reload');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const folder = await mkdtemp(join(tmpdir(), 'reverse-tunnel-reload-'));
    const file = join(folder, 'config.yaml');
    await writeFile(file, 'report-interval: 1s\n');
    const operator = await startOperatorProcess({ kubeconfigPath, namespace, flags: ['--config', file] });
    const fleet = createFleet({
      address: operator.grpcAddress,
      tunnels: 1,
      maxRetries: PATIENT_MAX_RETRIES,
    });
    try {
      await fleet.start();
      await fleet.settled();
      await writeFile(file, 'report-interval: nonsense\n');
      await poll(DEADLINE_MS, () =>
        operator.log.find(({ msg }) => msg.startsWith('failed to reload configuration')),
      );
      await writeFile(file, 'report-interval: 25ms\nwrite-concurrency: 8\n');
      const { needRestart } = await poll(DEADLINE_MS, () =>
        operator.log.find(({ msg }) => msg === 'configuration changed'),
      );
      expect(needRestart).to.deep.equal(['writeConcurrency']);
      // The stream has been open throughout; at the old interval, a hundred reports would take 100 s.
      const before = fleet.statistics().acks;
      await poll(DEADLINE_MS, () => (fleet.statistics().acks - before > 100 ? true : undefined));
      expect(fleet.statistics().connects).to.equal(1);
    } finally {
      await fleet.stop();
      await operator.kill();
      await rm(folder, { recursive: true });
    }
  });
});
