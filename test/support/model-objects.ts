import { expect } from 'chai';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import type { ModelObject } from './model.ts';

/**
 * Returns a function that compares the objects with those of the model, and that is called repeatedly for one sequence:
 * they must be equal, Connected and Ready, and an uninterrupted tunnel must keep its object (name and uid).
 */
export function createObjectChecker(): (
  expected: readonly ModelObject[],
  objects: readonly TunnelObject[],
) => void {
  const previous = new Map<
    string,
    { readonly generation: number; readonly name: string; readonly uid: string }
  >();
  return (expected, objects) => {
    expect(objects.map(objectText).toSorted()).to.deep.equal(expected.map(modelText).toSorted());
    const generations = new Map(expected.map((object) => [modelText(object), object.generation]));
    for (const object of objects) {
      const { name, uid } = object.metadata;
      const [ready, ...others] = object.status?.conditions ?? [];
      expect({ state: object.status?.state, others, ...ready }).to.deep.include({
        ...{ state: 'Connected', others: [], type: 'Ready', status: 'True', reason: 'Reported' },
      });
      const generation = generations.get(objectText(object)) ?? 0;
      const key = JSON.stringify([
        object.spec.reporter.cluster,
        object.spec.reporter.id,
        object.spec.tunnelName,
      ]);
      const before = previous.get(key);
      if (before?.generation === generation)
        expect({ name, uid }, key).to.deep.equal({ name: before.name, uid: before.uid });
      previous.set(key, { generation, name, uid });
    }
  };
}

function objectText({ spec }: TunnelObject): string {
  const { tunnelName, tenantID, clusterID, nodeID, reporter, createdAt } = spec;
  return JSON.stringify([
    reporter.cluster,
    reporter.id,
    tunnelName,
    tenantID,
    clusterID,
    nodeID,
    createdAt ?? null,
  ]);
}

function modelText({ cluster, id, name, tenantID, clusterID, nodeID, createdAt }: ModelObject): string {
  return JSON.stringify([cluster, id, name, tenantID, clusterID, nodeID, createdAt ?? null]);
}
