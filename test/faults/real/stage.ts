/** Real processes to hurt: a control plane, replicas of the operator, and fleets, with a proxy between each two. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ServiceAccountRequest } from '../../../control-plane/service-account.ts';
import type { ControlPlane } from '../../../control-plane/start.ts';
import type { ReporterId } from '../../../src/core/tunnel.ts';
import type { ReportedTunnel } from '../../../src/grpc/report-message.ts';
import type { Fleet } from '../../../src/simulate/fleet.ts';
import type { FleetOptions } from '../../../src/simulate/fleet-options.ts';
import { seededRandom, type Random } from '../../../src/simulate/random.ts';
import { poll } from '../../support/operator-process.ts';
import { startWithCrds } from '../../support/own-control-plane.ts';
import { createReplicas, type Replicas, type RunningReplica } from '../../support/replicas.ts';
import { openFaultProxy, type FaultProxy } from './fault-proxy.ts';
import { openRefusingProxy, type RefusingProxy } from './refusing-proxy.ts';

/** Each link is two more connections of this process. */
const MOST_LINKS = 200;
/** For every reporter to have reported twice. */
const SECOND_REPORTS_MS = 60_000;
const RBAC = '/apis/rbac.authorization.k8s.io/v1/namespaces';

/** How large a world. */
export interface StageOptions {
  readonly replicas: number;
  /** Reporters of the first fleet; up to 200 have a link of their own each, that can be left half-open. */
  readonly reporters: number;
  /** Of each reporter. */
  readonly tunnels: number;
  /** Needed where namespaces are to go, or quotas to count. */
  readonly controllerManager?: boolean;
  /** Flags of the operator and of its Node. */
  readonly flags?: readonly string[];
  readonly nodeFlags?: readonly string[];
  readonly seed: number;
}

/** A world that runs. */
export interface Stage {
  readonly controlPlane: ControlPlane;
  readonly namespace: string;
  readonly replicas: Replicas;
  /** Between the operators and `refusing`. */
  readonly apiWay: FaultProxy;
  /** Between `apiWay` and kube-apiserver, once it is put there. */
  readonly refusing: RefusingProxy;
  /** Between reporters and the balancer before the operators. */
  readonly reporterWay: FaultProxy;
  readonly fleet: Fleet;
  readonly random: Random;
  /** New connections to the API server pass the refusing proxy, or not; open ones are broken. */
  throughRefusing(through: boolean): void;
  /** A fleet beside the first one. */
  addFleet(options: Partial<FleetOptions>): Promise<Fleet>;
  startReplica(): Promise<RunningReplica>;
  /** What all fleets hold. */
  truth(): ReadonlyMap<ReporterId, ReadonlyMap<string, ReportedTunnel>>;
  reporterCount(): number;
  /** Gives every replica its rights once more, after the namespace has gone. */
  grant(): Promise<void>;
  close(): Promise<void>;
}

/** Starts all; rows may not be there yet. */
export async function openStage(options: StageOptions): Promise<Stage> {
  const random = seededRandom(options.seed);
  const undo: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    const controlPlane = await startWithCrds({
      audit: true,
      controllerManager: options.controllerManager === true,
    });
    undo.push(() => controlPlane.stop());
    const direct = new URL(controlPlane.url).host;
    const apiWay = await openFaultProxy(direct);
    undo.push(() => apiWay.close());
    const refusing = await openRefusingProxy(controlPlane, random);
    undo.push(() => refusing.close());

    const granted: ServiceAccountRequest[] = [];
    const grant = async (): Promise<void> => {
      for (const request of granted) await giveRights(controlPlane, request);
    };
    const replicas = await createReplicas(
      {
        ...controlPlane,
        // The account lives elsewhere, so that it outlives its namespace, and its way leads through the proxy.
        async kubeconfigFor(request) {
          const { serviceAccount } = request;
          const account = await controlPlane.kubeconfigFor({ namespace: 'default', serviceAccount });
          await giveRights(controlPlane, request);
          granted.push(request);
          const text = await readFile(account.kubeconfigPath, 'utf8');
          const kubeconfigPath = join(controlPlane.folder, `${serviceAccount}.proxied.kubeconfig`);
          await writeFile(kubeconfigPath, text.replaceAll(direct, apiWay.address), { mode: 0o600 });
          return { ...account, kubeconfigPath };
        },
      },
      'faults',
    );
    undo.push(() => replicas.stop());
    const reporterWay = await openFaultProxy(replicas.balancer.address);
    undo.push(() => reporterWay.close());
    const startReplica = (): Promise<RunningReplica> =>
      replicas.start(options.flags ?? [], 0, options.nodeFlags ?? []);
    for (let i = 0; i < options.replicas; i += 1) await startReplica();

    const fleets: Fleet[] = [];
    const addFleet = async (wanted: Partial<FleetOptions>): Promise<Fleet> => {
      const fleet = await replicas.startFleet({
        address: reporterWay.address,
        seed: options.seed,
        ...wanted,
      });
      fleets.push(fleet);
      return fleet;
    };
    const { reporters, tunnels } = options;
    const fleet = await addFleet({ reporters, tunnels, faultyLinks: reporters <= MOST_LINKS });
    // The interval that a reporter is told with its first ACK holds from its second report on, which comes after Envoy's own 5 s.
    await poll(SECOND_REPORTS_MS, () => {
      const { delta, heartbeat } = fleet.statistics().reports;
      return Promise.resolve(delta + heartbeat >= reporters ? true : undefined);
    });
    return {
      controlPlane,
      namespace: replicas.namespace,
      replicas,
      apiWay,
      refusing,
      reporterWay,
      fleet,
      random,
      throughRefusing(through) {
        apiWay.setTarget(through ? refusing.address : direct);
        apiWay.reset();
      },
      addFleet,
      startReplica,
      truth: () => new Map(fleets.flatMap((one) => [...one.truth()])),
      reporterCount: () => fleets.reduce((sum, one) => sum + one.reporters.length, 0),
      grant,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A Role and its binding in the namespace for an account of `default`; those that are there stay. */
async function giveRights(
  { request }: ControlPlane,
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
    const { status } = await request('POST', `${RBAC}/${namespace}/${resource}`, body);
    if (status !== 201 && status !== 409) throw new Error(`POST ${resource} of ${name}: ${status}`);
  }
}
