/** Real processes for fault injection: a control plane, replicas and fleets, with a proxy between each two. */
import { readFile, writeFile, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import type { ServiceAccountRequest } from '../../../control-plane/service-account.ts';
import type { ControlPlane, ControlPlaneClient } from '../../../control-plane/start.ts';
import type { ReporterId } from '../../../src/core/tunnel.ts';
import type { ReportedTunnel } from '../../../src/grpc/report-message.ts';
import { FLEET_DEFAULTS, type Fleet, type FleetOptions } from '../../../src/simulate/fleet.ts';
import { seededRandom } from '../../../src/simulate/random.ts';
import { startWithCrds } from '../../support/start-with-crds.ts';
import { createReplicas, type RunningReplica } from '../../support/replicas.ts';
import { openFaultProxy } from './fault-proxy.ts';
import { openRejectingProxy } from './rejecting-proxy.ts';
import { tmpdir } from 'node:os';

/** Each link needs two more connections of this process. */
const MAX_LINKS = 200;
const RBAC_PATH = '/apis/rbac.authorization.k8s.io/v1/namespaces';

export interface FaultFixtureOptions {
  readonly replicas: number;
  /** Reporters of the first fleet. Up to 200 reporters have a link of their own that can be made half-open. */
  readonly reporters: number;
  readonly tunnels: number;
  /** See `ChurnPlan`. Default: 0. */
  readonly churnPerSecond?: number;
  /** See `FleetOptions`. Default: Envoy's. */
  readonly maxRetries?: number;
  /** Needed for the deletion of namespaces and for quotas. */
  readonly controllerManager?: boolean;
  /** Flags of the operator and of Node. */
  readonly flags?: readonly string[];
  readonly nodeFlags?: readonly string[];
  readonly seed: number;
  /** A control plane that outlives the fixture. Default: one of its own. */
  readonly controlPlane?: ControlPlane;
  /** The beginning of the name of the namespace. Default: faults. */
  readonly hint?: string;
}

export type FaultFixture = Awaited<ReturnType<typeof openFaultFixture>>;

/** Starts everything; objects may not exist yet when it resolves. */
export async function openFaultFixture(options: FaultFixtureOptions) {
  const random = seededRandom(options.seed);
  const cleanup: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (let cleanUp = cleanup.pop(); cleanUp !== undefined; cleanUp = cleanup.pop()) await cleanUp();
  };
  try {
    const controlPlane =
      options.controlPlane ??
      (await startWithCrds({ audit: true, controllerManager: options.controllerManager === true }));
    if (options.controlPlane === undefined) cleanup.push(() => controlPlane.stop());
    const directAddress = new URL(controlPlane.url).host;
    const apiProxy = await openFaultProxy(directAddress);
    cleanup.push(() => apiProxy.close());
    const rejectingProxy = await openRejectingProxy(controlPlane, random);
    cleanup.push(() => rejectingProxy.close());

    const grantedRoles: ServiceAccountRequest[] = [];
    const regrantRoles = async (): Promise<void> => {
      for (const request of grantedRoles) await grantRole(controlPlane, request);
    };
    const replicas = await createReplicas(
      {
        ...controlPlane,
        // The account lives in another namespace, so that it survives the deletion of this one, and it connects
        // through the proxy.
        async kubeconfigFor(request) {
          const { serviceAccount, namespace } = request;
          const account = await controlPlane.kubeconfigFor({ namespace: 'default', serviceAccount });
          await grantRole(controlPlane, request);
          grantedRoles.push(request);
          const text = await readFile(account.kubeconfigPath, 'utf8');
          const kubeconfigPath = join(controlPlane.folder, `${namespace}.${serviceAccount}.kubeconfig`);
          await writeFile(kubeconfigPath, text.replaceAll(directAddress, apiProxy.address), { mode: 0o600 });
          return { ...account, kubeconfigPath };
        },
      },
      options.hint ?? 'faults',
    );
    cleanup.push(() => replicas.stop());
    const reporterProxy = await openFaultProxy(replicas.balancer.address);
    cleanup.push(() => reporterProxy.close());
    const startReplica = (): Promise<RunningReplica> =>
      replicas.start(options.flags ?? [], 0, options.nodeFlags ?? []);
    for (let i = 0; i < options.replicas; i += 1) await startReplica();

    const fleets: Fleet[] = [];
    const addFleet = async (fleetOptions: Partial<FleetOptions>): Promise<Fleet> => {
      const fleet = await replicas.startFleet({
        address: reporterProxy.address,
        seed: options.seed,
        maxRetries: options.maxRetries ?? FLEET_DEFAULTS.maxRetries,
        ...fleetOptions,
      });
      fleets.push(fleet);
      return fleet;
    };
    const { reporters, tunnels, churnPerSecond = 0 } = options;
    const fleet = await addFleet({
      ...{ reporters, tunnels, churnPerSecond },
      faultyLinks: reporters <= MAX_LINKS,
    });
    return {
      controlPlane,
      namespace: replicas.namespace,
      replicas,
      /** Between the operators and kube-apiserver, or `rejectingProxy`. */
      apiProxy,
      /** Between `apiProxy` and kube-apiserver, when enabled by `setRejecting`. */
      rejectingProxy,
      /** Between the reporters and the load balancer of the operators. */
      reporterProxy,
      fleet,
      random,
      /** Routes new connections to the API server through the rejecting proxy, or not, and resets open ones. */
      setRejecting: (rejecting: boolean): void => {
        apiProxy.setTargets(rejecting ? rejectingProxy.address : directAddress);
        apiProxy.reset();
      },
      addFleet,
      startReplica,
      expectedTunnels: (): ReadonlyMap<ReporterId, ReadonlyMap<string, ReportedTunnel>> =>
        new Map(fleets.flatMap((one) => [...one.expectedTunnels()])),
      reporterCount: (): number => fleets.reduce((sum, one) => sum + one.reporters.length, 0),
      /** Grants all replicas their permissions again after the namespace was recreated. */
      regrantRoles,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Creates a Role and its binding in the namespace for an account of `default`; existing ones are kept. */
async function grantRole(
  { request }: ControlPlaneClient,
  { namespace, serviceAccount: name, rules = [] }: ServiceAccountRequest,
): Promise<void> {
  const bodies = {
    roles: { metadata: { name }, rules },
    rolebindings: {
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name },
      subjects: [{ kind: 'ServiceAccount', name, namespace: 'default' }],
    },
  };
  for (const [resource, body] of Object.entries(bodies)) {
    const { status } = await request('POST', `${RBAC_PATH}/${namespace}/${resource}`, body);
    if (status !== 201 && status !== 409) throw new Error(`POST ${resource} of ${name}: ${status}`);
  }
}

/** Writes the operators' logs into a folder that is kept, for the analysis of a failure. */
export async function saveLogs({ replicas }: FaultFixture, name: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `reverse-tunnel-faults-${name}-`));
  for (const { account, process: operator } of replicas.running) {
    const lines = operator.log.map((line) => JSON.stringify(line));
    await writeFile(join(folder, `${account}.log`), [...lines, operator.stderr].join('\n'));
  }
  return folder;
}
