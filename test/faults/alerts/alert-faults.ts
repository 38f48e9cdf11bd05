/** Faults, each with the alerts that must fire while it lasts. */
import type { Fleet, FleetOptions } from '../../../src/simulate/fleet.ts';
import { createPolicy } from '../../support/create-policy.ts';
import { startMutatingWebhook, type MutatingWebhook } from '../../support/mutating-webhook.ts';
import { acceptCreates, rejectCreates } from '../../support/tunnel-admission.ts';
import type { FaultFixture, FaultFixtureOptions } from '../real/fault-fixture.ts';

export interface AlertFault {
  /** Also the beginning of the name of the namespace. */
  readonly name: string;
  readonly description: string;
  /** Alerts that must fire, with `reason` if the alert has that label. Others are reported. */
  readonly alerts: readonly string[];
  readonly flags?: readonly string[];
  /** Default: one reporter with 3 tunnels. */
  readonly fleet?: Pick<FaultFixtureOptions, 'reporters' | 'tunnels' | 'churnPerSecond'>;
  inject(fixture: FaultFixture): Promise<void>;
  recover(fixture: FaultFixture): Promise<void>;
}

const RULE = { peers: [{ any: true }], reporters: { ids: ['*'] }, tenants: ['*'] };

function addPolicy({ controlPlane, namespace }: FaultFixture, rule: object): Promise<void> {
  return createPolicy(controlPlane, namespace, 'fault', [rule]);
}

async function deletePolicy({ controlPlane, namespace }: FaultFixture): Promise<void> {
  const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnelpolicies/fault`;
  await controlPlane.request('DELETE', path);
}

async function setLeaseVerbs(fixture: FaultFixture, verbs: readonly string[]): Promise<void> {
  const { controlPlane, namespace } = fixture;
  const path = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}/roles/replica-0`;
  const role = (await controlPlane.request('GET', path)).body as { rules: { resources: string[] }[] };
  const rules = role.rules.map((rule) =>
    Object.assign(rule, rule.resources.includes('leases') ? { verbs } : {}),
  );
  await controlPlane.request('PUT', path, { ...role, rules });
}

/** The fleets that faults have added, by namespace. */
const added = new Map<string, Fleet>();

async function addFleet(fixture: FaultFixture, options: Partial<FleetOptions>): Promise<void> {
  added.set(fixture.namespace, await fixture.addFleet({ tunnels: 3, ...options }));
}

async function stopAddedFleet({ namespace }: FaultFixture): Promise<void> {
  await added.get(namespace)?.stop();
}

async function killOperator({ replicas }: FaultFixture): Promise<void> {
  for (const replica of [...replicas.running]) await replicas.end(replica, 'SIGKILL');
}

/** The webhooks that faults have registered, by namespace. */
const webhooks = new Map<string, MutatingWebhook>();

const CHURN = { reporters: 2, tunnels: 20, churnPerSecond: 2 };

export const ALERT_FAULTS: readonly AlertFault[] = [
  {
    name: 'operator-killed',
    description: 'the only replica is killed, and started again',
    alerts: ['ReverseTunnelOperatorAbsent'],
    inject: killOperator,
    recover: async (fixture) => void (await fixture.startReplica()),
  },
  {
    name: 'lease-permissions',
    description: 'the permissions on Leases are removed',
    alerts: ['ReverseTunnelReplicaWithoutLease', 'ReverseTunnelNoLeader'],
    inject: async (fixture) => setLeaseVerbs(fixture, ['get']),
    recover: async (fixture) => setLeaseVerbs(fixture, ['get', 'list', 'watch', 'create', 'patch', 'delete']),
  },
  {
    name: 'reporters-stopped',
    description: 'all reporters stop; their objects expire after 5 min',
    alerts: ['ReverseTunnelReporterLost'],
    inject: async ({ fleet }) => fleet.stop(),
    recover: async () => {},
  },
  {
    name: 'api-outage',
    description: 'the API server is unreachable while tunnels change',
    alerts: ['ReverseTunnelSyncLagging', 'ReverseTunnelReplicaWithoutLease', 'ReverseTunnelNoLeader'],
    fleet: CHURN,
    inject: async ({ apiProxy }) => Promise.resolve(apiProxy.cut()),
    recover: async ({ apiProxy }) => Promise.resolve(apiProxy.restore()),
  },
  {
    name: 'api-rejects',
    description: 'a third of all requests is answered with 429 or 503 while tunnels change',
    alerts: ['ReverseTunnelApiWritesFailing'],
    fleet: CHURN,
    async inject({ rejectingProxy, setRejecting }) {
      rejectingProxy.setFaults({ delayMs: 0, rejectedPercent: 33 });
      await Promise.resolve(setRejecting(true));
    },
    recover: async ({ setRejecting }) => Promise.resolve(setRejecting(false)),
  },
  {
    name: 'admission-rejects',
    description: 'an admission policy rejects new objects',
    alerts: ['ReverseTunnelTunnelsRejected{rejected}'],
    async inject(fixture) {
      await rejectCreates(fixture.controlPlane.request, fixture.namespace, {
        expression: `object.metadata.namespace != '${fixture.namespace}'`,
        message: 'rejected',
        reason: 'Invalid',
      });
      await addFleet(fixture, { reporterCluster: 'second' });
    },
    recover: ({ controlPlane, namespace }) => acceptCreates(controlPlane.request, namespace),
  },
  {
    name: 'same-identity',
    description: 'a second Envoy reports with the same node.cluster and node.id',
    alerts: ['ReverseTunnelIdentityConflict'],
    inject: async (fixture) => addFleet(fixture, {}),
    recover: stopAddedFleet,
  },
  {
    name: 'report-too-large',
    description: 'a reporter reports more tunnels than --max-tunnels-per-reporter',
    alerts: ['ReverseTunnelReportsRejected{over_limit}'],
    flags: ['--max-tunnels-per-reporter', '10'],
    inject: async (fixture) => addFleet(fixture, { tunnels: 30, reporterCluster: 'second' }),
    recover: stopAddedFleet,
  },
  {
    name: 'peer-not-allowed',
    description: 'a policy does not name the peers of the reporters',
    alerts: ['ReverseTunnelClientsRejected{policy}'],
    inject: (fixture) => addPolicy(fixture, { ...RULE, peers: [{ dnsName: 'a.example' }] }),
    recover: deletePolicy,
  },
  {
    name: 'invalid-policy',
    description: 'a policy has an invalid pattern',
    alerts: ['ReverseTunnelPolicyNotAccepted'],
    inject: (fixture) => addPolicy(fixture, { ...RULE, tenants: ['a*b'] }),
    recover: deletePolicy,
  },
  {
    name: 'too-many-connections',
    description: 'more reporters connect from one address than --max-connections-per-address',
    alerts: ['ReverseTunnelConnectionLimitReached{address_connections}'],
    flags: ['--max-connections-per-address', '5'],
    inject: async (fixture) => addFleet(fixture, { reporters: 10, reporterCluster: 'second' }),
    recover: stopAddedFleet,
  },
  {
    name: 'admission-rewrites',
    description: 'a mutating webhook replaces a label of new objects',
    alerts: ['ReverseTunnelObjectsRewritten'],
    async inject(fixture) {
      const { controlPlane, namespace } = fixture;
      const webhook = await startMutatingWebhook(controlPlane, namespace, ({ resource }) =>
        resource === 'reversetunnels'
          ? [{ op: 'replace', path: '/metadata/labels/reverse-tunnel.io~1tenant', value: 'rewritten' }]
          : [],
      );
      webhooks.set(namespace, webhook);
      await addFleet(fixture, { reporterCluster: 'second' });
    },
    async recover(fixture) {
      await webhooks.get(fixture.namespace)?.stop();
      await stopAddedFleet(fixture);
    },
  },
  {
    name: 'tunnels-flapping',
    description: 'tunnels of a reporter go down and come up again, until they stay up',
    alerts: ['ReverseTunnelTunnelsFlapping'],
    inject: async (installation) =>
      addFleet(installation, { tunnels: 5, flapsPerSecond: 2, reporterCluster: 'second' }),
    async recover(installation) {
      await stopAddedFleet(installation);
      await addFleet(installation, { tunnels: 5, reporterCluster: 'second' });
    },
  },
  {
    name: 'expected-tunnels-missing',
    description:
      'fewer tunnels are connected than an expectation requires, until another reporter holds them',
    alerts: ['ReverseTunnelExpectationUnsatisfied'],
    async inject({ controlPlane, namespace }) {
      const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnelexpectations`;
      const { status } = await controlPlane.request('POST', path, {
        apiVersion: 'reverse-tunnel.io/v1alpha1',
        kind: 'ReverseTunnelExpectation',
        metadata: { name: 'fault' },
        spec: { match: {}, minTunnels: 5, gracePeriod: '10s' },
      });
      if (status !== 201) throw new Error(`create expectation: ${status}`);
    },
    recover: async (installation) => addFleet(installation, { reporterCluster: 'second' }),
  },
  {
    name: 'policy-required',
    description: '--require-policy is set and no policy exists',
    alerts: ['ReverseTunnelRequiredPolicyMissing'],
    flags: ['--require-policy', 'true'],
    inject: async () => {},
    recover: (fixture) => addPolicy(fixture, RULE),
  },
  {
    name: 'insecure',
    description: 'no fault: authentication is off, as in every run of this table',
    alerts: ['ReverseTunnelInsecure'],
    inject: async () => {},
    recover: killOperator,
  },
];
