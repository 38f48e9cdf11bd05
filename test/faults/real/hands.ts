/** Hostile hands: an administrator who edits and deletes what is the operator's. */
import { setTimeout as delay } from 'node:timers/promises';
import { listRows, type RowSeen } from '../../support/truth.ts';
import { change } from './changes.ts';
import {
  common,
  converged,
  photograph,
  placeOf,
  rowWritesOf,
  served,
  writesSince,
  type Before,
} from './judge.ts';
import type { FaultScenario } from './scenario.ts';
import type { Stage } from './stage.ts';

const ROWS = '/apis/reverse-tunnel.io/v1alpha1/namespaces';
const DEADLINE_MS = 90_000;
/** How long a program undoes what the operator does. */
const FIGHT_MS = 20_000;

/** Rows in a random order, by name and place. */
export async function rowNames(stage: Stage): Promise<{ readonly name: string; readonly place: string }[]> {
  const rows = await listRows(stage.controlPlane.request, stage.namespace);
  return rows
    .map((row) => ({ name: row.metadata.name, place: placeOf(row), order: stage.random.below(2 ** 32) }))
    .toSorted((a, b) => a.order - b.order);
}

/** kubectl in the stage's namespace. @throws Error with what kubectl says */
export async function kubectl(stage: Stage, ...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await stage.controlPlane.kubectl(['-n', stage.namespace, ...args]);
  if (code !== 0)
    throw new Error(`kubectl ${args.slice(0, 3).join(' ')}: ${stderr.trim().replaceAll('\n', ' ')}`);
  return stdout;
}

/** Deletes rows by name, as an administrator; those that are gone already are none. */
export async function deleteRows(stage: Stage, names: readonly string[]): Promise<void> {
  await kubectl(stage, 'delete', 'rt', '--ignore-not-found', '--wait=false', ...names);
}

/** The moment, without rows that are going to be deleted by hand: those rightly come back as new objects. */
export function without(before: Before, places: Iterable<string>): Before {
  const rows = new Map(before.rows);
  for (const place of places) rows.delete(place);
  return { ...before, rows };
}

/** All that a person can do to rows, at once. Gives the places of rows that were deleted, and how many edits it were. */
export async function meddle(stage: Stage): Promise<{ readonly deleted: string[]; readonly edits: number }> {
  const names = await rowNames(stage);
  const some = Math.min(20, Math.floor(names.length / 8));
  const take = (): { readonly name: string; readonly place: string }[] => names.splice(0, some);
  const [deleted, relabelled, stripped] = [take(), take(), take()];
  const of = (rows: readonly { readonly name: string }[]): string[] => rows.map(({ name }) => name);
  await deleteRows(stage, of(deleted));
  await kubectl(stage, 'label', '--overwrite', 'rt', ...of(relabelled), 'reverse-tunnel.io/tenant=mallory');
  await kubectl(
    stage,
    'label',
    'rt',
    ...of(stripped),
    'reverse-tunnel.io/node-',
    'app.kubernetes.io/managed-by-',
  );
  const [redated, odd, unready] = names.splice(0, 3).map(({ name }) => name);
  const merge = ['--type=merge', '-p'];
  await kubectl(stage, 'patch', 'rt', String(redated), ...merge, '{"spec":{"createdAt":null}}');
  const status = ['--subresource=status', ...merge];
  const byHand = { conditions: [{ type: 'Odd', status: 'True', reason: 'ByHand' }] };
  await kubectl(stage, 'patch', 'rt', String(odd), ...status, JSON.stringify({ status: byHand }));
  const unknown = { state: 'Unknown', conditions: [{ type: 'Ready', status: 'False', reason: 'ByHand' }] };
  await kubectl(stage, 'patch', 'rt', String(unready), ...status, JSON.stringify({ status: unknown }));
  const [model] = await listRows(stage.controlPlane.request, stage.namespace);
  if (model === undefined) throw new Error('there is no row to copy');
  const made = {
    ...model,
    metadata: { name: 'made-by-hand' },
    spec: { ...model.spec, tunnelName: 'made-up' },
  };
  await stage.controlPlane.request('POST', `${ROWS}/${stage.namespace}/reversetunnels`, made);
  return { deleted: deleted.map(({ place }) => place), edits: 3 * some + 4 };
}

/** Reporters' objects deleted while they are connected; their owners make them anew. */
export async function deleteReporters(stage: Stage, count: number): Promise<void> {
  const shown = await stage.replicas.reporters();
  const names = shown.slice(0, count).map(({ metadata }) => metadata.name);
  await kubectl(stage, 'delete', 'rtr', '--wait=false', '--ignore-not-found', ...names);
}

/** All rows must be put right, by a write an edit. */
export const hands: FaultScenario = {
  name: 'rows-edited',
  about: 'rows deleted, relabelled, stripped, re-dated, made up, and reporters deleted, by kubectl',
  async run(stage, _sizes, doing) {
    const photographed = await photograph(stage);
    const labels = labelsOf(await listRows(stage.controlPlane.request, stage.namespace));
    doing('kubectl');
    const { deleted, edits } = await meddle(stage);
    await deleteReporters(stage, 3);
    const editedMs = performance.now();
    const after = await converged(stage, without(photographed, deleted), DEADLINE_MS);
    for (;;) {
      const now = labelsOf(await listRows(stage.controlPlane.request, stage.namespace));
      if ([...labels].every(([place, text]) => now.get(place) === text)) break;
      if (performance.now() - editedMs > DEADLINE_MS) throw new Error('labels were not put right');
      await delay(200);
    }
    await served(stage, DEADLINE_MS);
    const healedMs = performance.now() - editedMs;
    const writes = rowWritesOf(await writesSince(stage, photographed));
    return [
      ...common(stage, after, 30),
      { what: 'all healed', value: healedMs / 1000, unit: 's', atMost: 30 },
      { what: `row writes for ${edits} edits`, value: writes, atMost: edits + 10, atLeast: edits - 3 },
    ];
  },
};

/** Two programs that want a row to differ must not write without end. */
export const fight: FaultScenario = {
  name: 'row-fought-over',
  about: 'one row deleted again whenever it comes back, for 20 s',
  async run(stage, _sizes, doing) {
    const [victim] = await rowNames(stage);
    if (victim === undefined) throw new Error('there is no row');
    const photographed = await photograph(stage);
    const path = `${ROWS}/${stage.namespace}/reversetunnels/${victim.name}`;
    doing('deleting');
    const untilMs = performance.now() + FIGHT_MS;
    let deletions = 0;
    while (performance.now() < untilMs) {
      const { status } = await stage.controlPlane.request('DELETE', path);
      if (status === 200) deletions += 1;
      await delay(100);
    }
    const writes = rowWritesOf(await writesSince(stage, photographed));
    change(stage, 10);
    await stage.fleet.settled();
    const after = await converged(stage, without(photographed, [victim.place]), DEADLINE_MS);
    return [
      ...common(stage, after, 30),
      { what: 'deletions', value: deletions, atLeast: 3 },
      { what: 'writes of the row', value: writes, atMost: 8 },
    ];
  },
};

function labelsOf(rows: readonly RowSeen[]): Map<string, string> {
  return new Map(rows.map((row) => [placeOf(row), JSON.stringify(row.metadata.labels)]));
}
