import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createFleet } from '../../src/simulate/fleet.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { OPERATOR_RBAC_RULES, poll, startOperatorProcess } from '../support/operator-process.ts';

const DEADLINE_MS = 30_000;

describe('a configuration file that changes while the operator runs', () => {
  const controlPlane = useControlPlane();

  it('tells open streams the new report interval, says what needs a restart, and keeps what is wrong out', async function () {
    this.timeout(3 * DEADLINE_MS);
    const namespace = await createNamespace(controlPlane(), 'reload');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const folder = await mkdtemp(join(tmpdir(), 'reverse-tunnel-reload-'));
    const file = join(folder, 'config.yaml');
    await writeFile(file, 'report-interval: 1s\n');
    const operator = await startOperatorProcess({ kubeconfigPath, namespace, flags: ['--config', file] });
    const fleet = createFleet({ address: operator.grpcAddress, tunnels: 1 });
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
      // On the stream that was open all along: a hundred reports would take it 100 s at the old interval.
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
