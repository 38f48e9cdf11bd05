/** One row that the API server refuses for ever must hold up nobody else, and be seen. */
import { setTimeout as delay } from 'node:timers/promises';
import { condition } from '../../support/replicas.ts';
import { judge, listRows } from '../../support/truth.ts';
import { change } from './changes.ts';
import type { Figure } from './figure.ts';
import { crashes, converged, common, photograph, served } from './judge.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';

const ADMISSION = '/apis/admissionregistration.k8s.io/v1';
const ROWS = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
const DEADLINE_MS = 90_000;
const POLICY = 'refuse-one-row';

/** Refuses creations of rows with that tunnel's name, by 403 or 422, whoever sends them. */
async function refuseRow(stage: Stage, tunnelName: string, reason: 'Forbidden' | 'Invalid'): Promise<void> {
  const { request } = stage.controlPlane;
  const spec = {
    failurePolicy: 'Fail',
    matchConstraints: {
      resourceRules: [
        {
          apiGroups: ['reverse-tunnel.io'],
          apiVersions: ['*'],
          operations: ['CREATE'],
          resources: ['reversetunnels'],
        },
      ],
    },
    validations: [
      { expression: `object.spec.tunnelName != '${tunnelName}'`, message: 'not this one', reason },
    ],
  };
  await request('POST', `${ADMISSION}/validatingadmissionpolicies`, { metadata: { name: POLICY }, spec });
  await request('POST', `${ADMISSION}/validatingadmissionpolicybindings`, {
    metadata: { name: POLICY },
    spec: { policyName: POLICY, validationActions: ['Deny'] },
  });
  await untilRefused(stage, tunnelName);
}

/** The API server learns of policies and quotas by watches of its own: they take a second or two to be obeyed. */
async function untilRefused(stage: Stage, tunnelName: string): Promise<void> {
  const { request } = stage.controlPlane;
  const [model] = await listRows(request, stage.namespace);
  if (model === undefined) throw new Error('there is no row to copy');
  const row = { ...model, metadata: { name: 'refused' }, spec: { ...model.spec, tunnelName } };
  await until('a row is refused', async () => {
    const path = `${ROWS}/${stage.namespace}/reversetunnels?dryRun=All`;
    return (await request('POST', path, row)).status >= 400;
  });
}

async function allowAll({ controlPlane: { request } }: Stage): Promise<void> {
  await request('DELETE', `${ADMISSION}/validatingadmissionpolicybindings/${POLICY}`);
  await request('DELETE', `${ADMISSION}/validatingadmissionpolicies/${POLICY}`);
}

/**
 * A quota that is used up. What the controller manager would count is written by hand, as it learns of new kinds only
 * after a while.
 */
async function useUpQuota(stage: Stage, tunnelName: string): Promise<void> {
  const { request } = stage.controlPlane;
  const path = `/api/v1/namespaces/${stage.namespace}/resourcequotas`;
  const rows = String((await listRows(request, stage.namespace)).length);
  const full = { 'count/reversetunnels.reverse-tunnel.io': rows };
  const made = await request('POST', path, { metadata: { name: POLICY }, spec: { hard: full } });
  await until('the quota counts', async () => {
    const { body } = await request('GET', `${path}/${POLICY}`);
    const status = { hard: full, used: full };
    return (await request('PUT', `${path}/${POLICY}/status`, { ...(body as object), status })).status === 200;
  });
  if (made.status !== 201) throw new Error(`the quota was not made: ${made.status}`);
  await untilRefused(stage, tunnelName);
}

interface Refusal {
  readonly name: string;
  readonly about: string;
  readonly refuse: (stage: Stage, tunnelName: string) => Promise<void>;
  readonly allow: (stage: Stage) => Promise<void>;
}

function rowRefused({ name, about, refuse, allow }: Refusal): FaultScenario {
  return {
    name,
    about,
    async run(stage, sizes, doing) {
      const { fleet } = stage;
      const [reporter] = fleet.reporters;
      if (reporter === undefined) throw new Error('there is no reporter');
      const before = await photograph(stage);
      const identity = fleet.newInitiator();
      await refuse(stage, identity.nodeID);
      try {
        doing('one row is refused');
        reporter.connectTunnel(identity);
        await fleet.settled();
        // Visible before the rest changes: with a quota one row more would do.
        const startedMs = performance.now();
        await until('the refusal is shown on the reporter', async () => {
          const shown = await stage.replicas.reporters();
          const one = shown.find(
            ({ spec }) => spec.id === reporter.id.id && spec.cluster === reporter.id.cluster,
          );
          return one !== undefined && condition(one.status, 'Synced') === 'False WritesRejected';
        });
        const shownMs = performance.now() - startedMs;
        change(stage, name.endsWith('quota') ? 0 : sizes.changes, identity.nodeID);
        for (const flapping of fleet.reporters.slice(0, 10))
          flapping.flap(String(flapping.truth().keys().next().value));
        await fleet.settled();
        const othersMs = await allButOne(stage);
        const figures: Figure[] = [
          { what: 'all other rows right', value: othersMs / 1000, unit: 's', atMost: 5 },
          { what: 'shown on the reporter', value: shownMs / 1000, unit: 's', atMost: 15 },
          { what: 'crashes', value: crashes(stage.replicas.running), atMost: 0 },
        ];
        await allow(stage);
        doing('allowed again');
        const after = await converged(stage, before, DEADLINE_MS);
        await served(stage, DEADLINE_MS);
        return [...figures, ...common(stage, after, 60)];
      } finally {
        await allow(stage);
      }
    },
  };
}

/** How long until all rows but one missing are right. */
async function allButOne(stage: Stage): Promise<number> {
  const startedMs = performance.now();
  await until('all other rows are right', async () => {
    const rows = await listRows(stage.controlPlane.request, stage.namespace);
    const { missing, extra, wrong } = judge(stage, rows);
    if (missing === 0) throw new Error('the row was not refused');
    return missing === 1 && extra + wrong === 0;
  });
  return performance.now() - startedMs;
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const untilMs = performance.now() + DEADLINE_MS;
  while (!(await holds())) {
    if (performance.now() > untilMs) throw new Error(`not within ${DEADLINE_MS / 1000} s: ${what}`);
    await delay(200);
  }
}

/** By an admission policy, with each code that one may choose. */
export const refusedByPolicy: readonly FaultScenario[] = (
  [
    { code: 403, reason: 'Forbidden' },
    { code: 422, reason: 'Invalid' },
  ] as const
).map(({ code, reason }) =>
  rowRefused({
    name: `row-refused-${code}`,
    about: `one row refused for ever by ${code}, then allowed`,
    refuse: (stage, tunnelName) => refuseRow(stage, tunnelName, reason),
    allow: allowAll,
  }),
);

/** Of a quota nobody knows which row it will be. */
export const refusedByQuota = rowRefused({
  name: 'row-refused-quota',
  about: 'a quota that has no room for one more row, then goes',
  refuse: useUpQuota,
  async allow({ controlPlane, namespace }) {
    await controlPlane.request('DELETE', `/api/v1/namespaces/${namespace}/resourcequotas/${POLICY}`);
  },
});
