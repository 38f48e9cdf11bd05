/** One operator with a fleet, in a namespace of its own, so that its faults affect no other. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { reservePorts } from '../../../control-plane/ports.ts';
import type { ControlPlane } from '../../../control-plane/start.ts';
import { createFleet, type Fleet, type FleetOptions } from '../../../src/simulate/fleet.ts';
import { seededRandom } from '../../../src/simulate/random.ts';
import {
  OPERATOR_RBAC_RULES,
  startOperatorProcess,
  type OperatorProcess,
} from '../../support/operator-process.ts';
import { openFaultProxy, type FaultProxy } from '../real/fault-proxy.ts';
import { openRejectingProxy, type RejectingProxy } from '../real/rejecting-proxy.ts';

export interface Installation {
  readonly controlPlane: ControlPlane;
  readonly namespace: string;
  /** The address of the metrics, also after a restart. */
  readonly httpAddress: string;
  readonly operator: OperatorProcess;
  readonly fleet: Fleet;
  /** Between the operator and the API server. */
  readonly apiProxy: FaultProxy;
  readonly rejectingProxy: RejectingProxy;
  startOperator(): Promise<void>;
  /** Starts another fleet. */
  addFleet(options: Partial<FleetOptions>): Promise<Fleet>;
  close(): Promise<void>;
}

/** Starts an operator and a fleet. Resolves when the operator is ready. */
export async function openInstallation(
  controlPlane: ControlPlane,
  namespace: string,
  flags: readonly string[],
  fleetOptions: Partial<FleetOptions>,
): Promise<Installation> {
  await controlPlane.request('POST', '/api/v1/namespaces', { metadata: { name: namespace } });
  const directAddress = new URL(controlPlane.url).host;
  const apiProxy = await openFaultProxy(directAddress);
  const rejectingProxy = await openRejectingProxy(controlPlane, seededRandom(1));
  const account = await controlPlane.kubeconfigFor({
    namespace,
    serviceAccount: 'operator',
    rules: OPERATOR_RBAC_RULES,
  });
  const text = await readFile(account.kubeconfigPath, 'utf8');
  const kubeconfigPath = join(controlPlane.folder, `${namespace}.proxied.kubeconfig`);
  await writeFile(kubeconfigPath, text.replaceAll(directAddress, apiProxy.address), { mode: 0o600 });
  const ports = await reservePorts(2);
  const [grpcAddress, httpAddress] = [`127.0.0.1:${ports.first}`, `127.0.0.1:${ports.first + 1}`];
  const start = async (): Promise<OperatorProcess> => {
    const addresses = ['--grpc-address', grpcAddress, '--http-address', httpAddress];
    const started = await startOperatorProcess({
      kubeconfigPath,
      namespace,
      flags: [...addresses, '--replica-id', namespace, ...flags],
    });
    await started.ready();
    return started;
  };
  let operator = await start();
  const fleets: Fleet[] = [];
  const addFleet = async (options: Partial<FleetOptions>): Promise<Fleet> => {
    const fleet = createFleet({ address: grpcAddress, reporters: 1, tunnels: 3, ...options });
    fleets.push(fleet);
    await fleet.start();
    return fleet;
  };
  const fleet = await addFleet(fleetOptions);
  return {
    controlPlane,
    namespace,
    httpAddress,
    get operator() {
      return operator;
    },
    fleet,
    apiProxy,
    rejectingProxy,
    async startOperator() {
      operator = await start();
    },
    addFleet,
    async close() {
      for (const running of fleets) await running.stop();
      await operator.kill();
      await apiProxy.close();
      await rejectingProxy.close();
      await ports.release();
    },
  };
}
