import type { SliceObject } from '../../src/core/slice-object.ts';
import { OMITTED_CREATED_AT, type TunnelObject } from '../../src/core/tunnel-object.ts';
import { MODEL_CLOCK } from './model-objects.ts';

const MAX_AHEAD_MS = 1000;

/**
 * Returns the entries of slices as objects, for the comparison with the model. A slice shows a creation time that is in the
 * future, so it counts as omitted here.
 */
export function objectsOfSlices(slices: Iterable<SliceObject>): TunnelObject[] {
  const objects: TunnelObject[] = [];
  for (const { metadata, spec, status } of slices) {
    const { reporter, tenantID, tunnels = [] } = spec;
    const { state, conditions } = status ?? {};
    for (const { name, createdAt, ...identity } of tunnels) {
      const isAhead = createdAt !== undefined && Date.parse(createdAt) > MODEL_CLOCK.nowMs() + MAX_AHEAD_MS;
      objects.push({
        metadata: {
          name: metadata.name,
          uid: metadata.uid,
          resourceVersion: metadata.resourceVersion,
          ...(isAhead ? { annotations: { [OMITTED_CREATED_AT]: createdAt } } : {}),
        },
        spec: {
          tunnelName: name,
          tenantID,
          ...identity,
          reporter,
          ...(createdAt === undefined || isAhead ? {} : { createdAt }),
        },
        status: {
          ...(state === undefined ? {} : { state }),
          ...(conditions === undefined ? {} : { conditions }),
        },
      });
    }
  }
  return objects;
}
