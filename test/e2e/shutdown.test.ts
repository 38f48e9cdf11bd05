import { expect } from 'chai';
import { setTimeout as delay } from 'node:timers/promises';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import type { ReportStream } from '../../src/grpc/report-message.ts';
import { concurrent } from '../support/concurrent.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import {
  OPERATOR_RBAC_RULES,
  startOperatorProcess,
  type OperatorProcess,
} from '../support/operator-process.ts';

/** The documented limit of a shutdown. */
const SHUTDOWN_LIMIT_MS = 10_000;

describe('The shutdown of the operator', () => {
  const controlPlane = useControlPlane();
  // A shutdown may take as long as its limit, in which the operator waits.
  const it = concurrent({
    timeoutMs: 20 * SHUTDOWN_LIMIT_MS,
    open: startOperator,
    close: (operator) => operator.kill(),
  });

  async function startOperator(): Promise<OperatorProcess> {
    const namespace = await createNamespace(controlPlane(), 'shutdown');
    const account = { namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES };
    const { kubeconfigPath } = await controlPlane().kubeconfigFor(account);
    const operator = await startOperatorProcess({ kubeconfigPath, namespace });
    await operator.ready();
    return operator;
  }

  async function openStream(address: string, index: number) {
    const connection = dialReportingService({ address });
    let stream: ReportStream | undefined;
    await new Promise<void>((resolve) => {
      stream = connection.openStream({ onResponse: () => resolve(), onEnd: () => resolve() });
      const node = { id: `responder-${index}`, cluster: 'edge' };
      stream.send({ node, added: [], removedNames: [], fullPush: true, nonce: 1n });
    });
    return { connection, stream };
  }

  for (const pauseMs of [0, 1, 2, 5]) {
    it(`ends with code 0 if clients cancel their streams and close ${pauseMs} ms before`, async (operator) => {
      const open = await Promise.all([0, 1, 2].map((index) => openStream(operator.grpcAddress, index)));
      for (const { connection, stream } of open) {
        stream?.reset();
        connection.close();
      }
      await delay(pauseMs);
      const late = delay(SHUTDOWN_LIMIT_MS * 2, 'late' as const, { ref: false });
      expect(await Promise.race([operator.stop(), late])).to.equal(0);
      expect(operator.log.map(({ msg }) => msg)).to.include('stopped');
    });
  }
});
