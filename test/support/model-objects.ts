import { expect } from 'chai';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import type { HeldObject, ModelObject } from './model.ts';

/** The clock of the API server in the tests of the model: after most of the reported times, and before the others. */
export const MODEL_CLOCK = { nowMs: () => Date.UTC(2100, 0, 1), maxAheadMs: () => 0 };
const MAX_AHEAD_MS = 1000;
const OMITTED_CREATED_AT = 'reverse-tunnel.io/omitted-created-at';

/**
 * Returns a function that compares the objects with those of the model, and that is called repeatedly for one sequence:
 * they must be equal, Connected and Ready, and an uninterrupted tunnel must keep its object (name and uid).
 */
export function createObjectChecker(): (
  expected: readonly ModelObject[],
  objects: readonly TunnelObject[],
  held?: readonly HeldObject[],
) => void {
  const previous = new Map<
    string,
    { readonly generation: number; readonly name: string; readonly uid: string }
  >();
  return (expected, all, held = []) => {
    const heldObjects = new Map(held.map((object) => [tunnelText(object), object]));
    const objects = all.filter((object) => !heldObjects.has(tunnelTextOf(object)));
    const kept = new Map(all.map((object) => [tunnelTextOf(object), object]));
    for (const [text, { generation, isCertain }] of heldObjects) {
      const { name, uid } = kept.get(text)?.metadata ?? {};
      if (isCertain) expect(name, `${text} is held`).to.not.equal(undefined);
      const before = previous.get(text);
      if (before?.generation === generation && uid !== undefined) expect(uid, text).to.equal(before.uid);
    }
    expect(objects.map(objectText).toSorted()).to.deep.equal(expected.map(modelText).toSorted());
    const generations = new Map(expected.map((object) => [modelText(object), object.generation]));
    for (const object of objects) {
      const { name, uid } = object.metadata;
      const reported = createdAtOf(object) ?? '';
      const isAhead = Date.parse(reported) > MODEL_CLOCK.nowMs() + MAX_AHEAD_MS;
      expect(object.spec.createdAt === undefined && reported !== '', `${reported} is omitted`).to.equal(
        isAhead,
      );
      const [ready, ...others] = object.status?.conditions ?? [];
      expect({ state: object.status?.state, others, ...ready }).to.deep.include({
        ...{ state: 'Connected', others: [], type: 'Ready', status: 'True', reason: 'Reported' },
      });
      const generation = generations.get(objectText(object)) ?? 0;
      const key = tunnelTextOf(object);
      const before = previous.get(key);
      if (before?.generation === generation)
        expect({ name, uid }, key).to.deep.equal({ name: before.name, uid: before.uid });
      previous.set(key, { generation, name, uid });
    }
  };
}

/** Returns the reported creation time, which is in the spec or omitted from it. */
export function createdAtOf({ metadata, spec }: TunnelObject): string | undefined {
  return spec.createdAt ?? metadata.annotations?.[OMITTED_CREATED_AT];
}

function tunnelTextOf({ spec: { reporter, tunnelName } }: TunnelObject): string {
  return tunnelText({ ...reporter, name: tunnelName });
}

function tunnelText({ cluster, id, name }: Pick<ModelObject, 'cluster' | 'id' | 'name'>): string {
  return JSON.stringify([cluster, id, name]);
}

function objectText(object: TunnelObject): string {
  const { tunnelName, tenantID, clusterID, nodeID, reporter } = object.spec;
  return JSON.stringify([
    reporter.cluster,
    reporter.id,
    tunnelName,
    tenantID,
    clusterID,
    nodeID,
    createdAtOf(object) ?? null,
  ]);
}

function modelText({ cluster, id, name, tenantID, clusterID, nodeID, createdAt }: ModelObject): string {
  return JSON.stringify([cluster, id, name, tenantID, clusterID, nodeID, createdAt ?? null]);
}
