/** Edits and deletions of the operator's objects by an administrator. */
import { setTimeout as delay } from 'node:timers/promises';
import { listTunnelObjects, type ObservedTunnelObject } from '../../support/expected-objects.ts';
import { applyChanges } from './changes.ts';
import {
  commonMetrics,
  countObjectWrites,
  measureRecovery,
  snapshot,
  tunnelKeyOf,
  waitForConvergence,
  waitUntil,
  waitUntilServed,
  withoutObjects,
} from './convergence.ts';
import type { FaultFixture } from './fault-fixture.ts';
import type { FaultScenario } from './scenario.ts';

const NAMESPACES_PATH = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
/** How long another program keeps reverting what the operator writes. */
const CONTENTION_MS = 20_000;

/** Returns name and key of all objects in random order. */
export async function shuffledObjects(
  fixture: FaultFixture,
): Promise<{ readonly name: string; readonly key: string }[]> {
  const objects = await listTunnelObjects(fixture.controlPlane.request, fixture.namespace);
  return objects
    .map((object) => ({
      name: object.metadata.name,
      key: tunnelKeyOf(object),
      order: fixture.random.below(2 ** 32),
    }))
    .toSorted((a, b) => a.order - b.order);
}

/** Runs kubectl in the fixture's namespace. @throws Error with kubectl's message */
export async function kubectl(fixture: FaultFixture, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await fixture.controlPlane.kubectl(['-n', fixture.namespace, ...args]);
  if (code !== 0)
    throw new Error(`kubectl ${args.slice(0, 3).join(' ')}: ${stderr.trim().replaceAll('\n', ' ')}`);
  return stdout;
}

/** Deletes objects by name as an administrator; missing ones are ignored. */
export async function deleteObjects(fixture: FaultFixture, names: readonly string[]): Promise<void> {
  await kubectl(fixture, 'delete', 'rt', '--ignore-not-found', '--wait=false', ...names);
}

/**
 * Applies every kind of manual edit to the objects. Returns the keys of the deleted objects and the number of
 * edits.
 */
async function applyManualEdits(
  fixture: FaultFixture,
): Promise<{ readonly deleted: string[]; readonly edits: number }> {
  const names = await shuffledObjects(fixture);
  const count = Math.min(20, Math.floor(names.length / 8));
  const take = (): { readonly name: string; readonly key: string }[] => names.splice(0, count);
  const [deleted, relabelled, stripped] = [take(), take(), take()];
  const namesOf = (rows: readonly { readonly name: string }[]): string[] => rows.map(({ name }) => name);
  await deleteObjects(fixture, namesOf(deleted));
  const tenant = 'reverse-tunnel.io/tenant=mallory';
  await kubectl(fixture, 'label', '--overwrite', 'rt', ...namesOf(relabelled), tenant);
  const removedLabels = ['reverse-tunnel.io/node-', 'app.kubernetes.io/managed-by-'];
  await kubectl(fixture, 'label', 'rt', ...namesOf(stripped), ...removedLabels);
  const [redated, extraCondition, unready] = names.splice(0, 3).map(({ name }) => name);
  const patch = (name: string | undefined, body: object, ...flags: string[]): Promise<string> =>
    kubectl(fixture, 'patch', 'rt', String(name), ...flags, '--type=merge', '-p', JSON.stringify(body));
  await patch(redated, { spec: { createdAt: null } });
  const odd = { conditions: [{ type: 'Odd', status: 'True', reason: 'ByHand' }] };
  await patch(extraCondition, { status: odd }, '--subresource=status');
  const unknown = { state: 'Unknown', conditions: [{ type: 'Ready', status: 'False', reason: 'ByHand' }] };
  await patch(unready, { status: unknown }, '--subresource=status');
  const [template] = await listTunnelObjects(fixture.controlPlane.request, fixture.namespace);
  if (template === undefined) throw new Error('there is no object to copy');
  const manual = {
    ...template,
    metadata: { name: 'made-by-hand' },
    spec: { ...template.spec, tunnelName: 'made-up' },
  };
  const path = `${NAMESPACES_PATH}/${fixture.namespace}/reversetunnels`;
  await fixture.controlPlane.request('POST', path, manual);
  return { deleted: deleted.map(({ key }) => key), edits: 3 * count + 4 };
}

/** Deletes reporter objects of connected reporters; their owners recreate them. */
async function deleteReporters(fixture: FaultFixture, count: number): Promise<void> {
  const observed = await fixture.replicas.reporters();
  const names = observed.slice(0, count).map(({ metadata }) => metadata.name);
  await kubectl(fixture, 'delete', 'rtr', '--wait=false', '--ignore-not-found', ...names);
}

/** Every edit must be reverted by one write. */
export const manualEdits: FaultScenario = {
  name: 'objects-edited',
  description:
    'objects deleted, relabelled, stripped, re-dated and invented, and reporter objects deleted, by kubectl',
  async run(fixture, _scale, setStatus) {
    const before = await snapshot(fixture);
    const labels = labelsOf(await listTunnelObjects(fixture.controlPlane.request, fixture.namespace));
    setStatus('kubectl');
    const { deleted, edits } = await applyManualEdits(fixture);
    await deleteReporters(fixture, 3);
    const editedMs = performance.now();
    const after = await waitForConvergence(fixture, withoutObjects(before, deleted));
    const areLabelsReverted = async (): Promise<boolean> => {
      const now = labelsOf(await listTunnelObjects(fixture.controlPlane.request, fixture.namespace));
      return [...labels].every(([key, text]) => now.get(key) === text);
    };
    await waitUntil('all labels are reverted', areLabelsReverted);
    await waitUntilServed(fixture);
    const recoveredMs = performance.now() - editedMs;
    const writes = await countObjectWrites(fixture, before);
    return [
      ...commonMetrics(fixture, after, 30),
      { name: 'all reverted', value: recoveredMs / 1000, unit: 's', atMost: 30 },
      { name: `object writes for ${edits} edits`, value: writes, atMost: edits + 10, atLeast: edits - 3 },
    ];
  },
};

/** Two programs that contend for an object must not write endlessly. */
export const contendedObject: FaultScenario = {
  name: 'object-contended',
  description: 'one object deleted whenever it is recreated, for 20 s',
  async run(fixture, _scale, setStatus) {
    const [target] = await shuffledObjects(fixture);
    if (target === undefined) throw new Error('there is no object');
    const before = await snapshot(fixture);
    const path = `${NAMESPACES_PATH}/${fixture.namespace}/reversetunnels/${target.name}`;
    setStatus('deleting');
    const untilMs = performance.now() + CONTENTION_MS;
    let deletions = 0;
    while (performance.now() < untilMs) {
      const { status } = await fixture.controlPlane.request('DELETE', path);
      if (status === 200) deletions += 1;
      await delay(100);
    }
    const writes = await countObjectWrites(fixture, before);
    applyChanges(fixture, 10);
    await fixture.fleet.settled();
    return [
      ...(await measureRecovery(fixture, withoutObjects(before, [target.key]), { converged: 30 })),
      { name: 'deletions', value: deletions, atLeast: 3 },
      { name: 'writes of the object', value: writes, atMost: 8 },
    ];
  },
};

function labelsOf(objects: readonly ObservedTunnelObject[]): Map<string, string> {
  return new Map(objects.map((object) => [tunnelKeyOf(object), JSON.stringify(object.metadata.labels)]));
}
