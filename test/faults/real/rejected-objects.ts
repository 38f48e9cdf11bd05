/** An object that the API server rejects permanently must not delay others and must be visible. */
import { conditionText } from '../../support/replicas.ts';
import { compareWithExpected, listTunnelObjects } from '../../support/expected-objects.ts';
import { acceptCreates, rejectCreates } from '../../support/tunnel-admission.ts';
import { applyChanges } from './changes.ts';
import type { Metric, FaultScenario } from './scenario.ts';
import { countCrashes, measureRecovery, snapshot, waitUntil } from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';

const NAMESPACES_PATH = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
const POLICY_NAME = 'reject-one-object';

/** Rejects creates of objects with this tunnel name with 403 or 422. */
async function rejectObject(
  fixture: FaultFixture,
  tunnelName: string,
  reason: 'Forbidden' | 'Invalid',
): Promise<void> {
  await rejectCreates(fixture.controlPlane.request, POLICY_NAME, {
    expression: `object.spec.tunnelName != '${tunnelName}'`,
    message: 'not this one',
    reason,
  });
  await waitUntilRejected(fixture, tunnelName);
}

/** Waits until the API server enforces a policy or quota, which it learns from a watch after a second or two. */
async function waitUntilRejected(fixture: FaultFixture, tunnelName: string): Promise<void> {
  const { request } = fixture.controlPlane;
  const [template] = await listTunnelObjects(request, fixture.namespace);
  if (template === undefined) throw new Error('there is no object to copy');
  const object = { ...template, metadata: { name: 'rejected' }, spec: { ...template.spec, tunnelName } };
  await waitUntil('a create is rejected', async () => {
    const path = `${NAMESPACES_PATH}/${fixture.namespace}/reversetunnels?dryRun=All`;
    return (await request('POST', path, object)).status >= 400;
  });
}

/**
 * Creates an exhausted quota. The usage is written by this function instead of the controller manager, which learns
 * of new kinds only after a while.
 */
async function exhaustQuota(fixture: FaultFixture, tunnelName: string): Promise<void> {
  const { request } = fixture.controlPlane;
  const path = `/api/v1/namespaces/${fixture.namespace}/resourcequotas`;
  const count = String((await listTunnelObjects(request, fixture.namespace)).length);
  const full = { 'count/reversetunnels.reverse-tunnel.io': count };
  const created = await request('POST', path, { metadata: { name: POLICY_NAME }, spec: { hard: full } });
  await waitUntil('the quota has a status', async () => {
    const { body } = await request('GET', `${path}/${POLICY_NAME}`);
    const status = { hard: full, used: full };
    return (
      (await request('PUT', `${path}/${POLICY_NAME}/status`, { ...(body as object), status })).status === 200
    );
  });
  if (created.status !== 201) throw new Error(`create quota: ${created.status}`);
  await waitUntilRejected(fixture, tunnelName);
}

interface RejectionFault {
  readonly name: string;
  readonly description: string;
  readonly inject: (fixture: FaultFixture, tunnelName: string) => Promise<void>;
  readonly recover: (fixture: FaultFixture) => Promise<void>;
}

function createRejectionScenario({ name, description, inject, recover }: RejectionFault): FaultScenario {
  return {
    name,
    description,
    async run(fixture, scale, setStatus) {
      const { fleet } = fixture;
      const [reporter] = fleet.reporters;
      if (reporter === undefined) throw new Error('there is no reporter');
      const before = await snapshot(fixture);
      const identity = fleet.newInitiator();
      await inject(fixture, identity.nodeID);
      try {
        setStatus('one object is rejected');
        reporter.connectTunnel(identity);
        await fleet.settled();
        // Checked before other tunnels change, because with a quota one object less would make room.
        const shownMs = await waitUntil('the reporter object shows the rejection', async () => {
          const observed = await fixture.replicas.reporters();
          const object = observed.find(
            ({ spec }) => spec.id === reporter.id.id && spec.cluster === reporter.id.cluster,
          );
          return object !== undefined && conditionText(object.status, 'Synced') === 'False WritesRejected';
        });
        applyChanges(fixture, name.endsWith('quota') ? 0 : scale.changes, identity.nodeID);
        for (const flapping of fleet.reporters.slice(0, 10))
          flapping.flap(String(flapping.expectedTunnels().keys().next().value));
        await fleet.settled();
        const othersMs = await waitForAllButOne(fixture);
        const metrics: Metric[] = [
          { name: 'all other objects match', value: othersMs / 1000, unit: 's', atMost: 5 },
          { name: 'visible on the reporter object', value: shownMs / 1000, unit: 's', atMost: 15 },
          { name: 'crashes', value: countCrashes(fixture.replicas.running), atMost: 0 },
        ];
        await recover(fixture);
        setStatus('accepted again');
        return [...metrics, ...(await measureRecovery(fixture, before, { converged: 60 }))];
      } finally {
        await recover(fixture);
      }
    },
  };
}

/** Waits until all objects but one match. Returns the time in milliseconds. */
function waitForAllButOne(fixture: FaultFixture): Promise<number> {
  return waitUntil('all other objects match', async () => {
    const objects = await listTunnelObjects(fixture.controlPlane.request, fixture.namespace);
    const { missing, extra, mismatched } = compareWithExpected(fixture, objects);
    if (missing === 0) throw new Error('the object was not rejected');
    return missing === 1 && extra + mismatched === 0;
  });
}

/** By an admission policy, with each of the status codes that a policy can choose. */
export const rejectedByPolicy: readonly FaultScenario[] = (
  [
    { code: 403, reason: 'Forbidden' },
    { code: 422, reason: 'Invalid' },
  ] as const
).map(({ code, reason }) =>
  createRejectionScenario({
    name: `object-rejected-${code}`,
    description: `one object rejected with ${code}, then accepted`,
    inject: (fixture, tunnelName) => rejectObject(fixture, tunnelName, reason),
    recover: ({ controlPlane }) => acceptCreates(controlPlane.request, POLICY_NAME),
  }),
);

/** With a quota, it is not known which object will be rejected. */
export const rejectedByQuota = createRejectionScenario({
  name: 'object-rejected-quota',
  description: 'a quota without room for one more object, then deleted',
  inject: exhaustQuota,
  async recover({ controlPlane, namespace }) {
    await controlPlane.request('DELETE', `/api/v1/namespaces/${namespace}/resourcequotas/${POLICY_NAME}`);
  },
});
