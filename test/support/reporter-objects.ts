/** Reporter objects for tests of their readers. */
import type { Condition } from '../../src/core/kubernetes.ts';
import type { ReporterObject } from '../../src/core/reporter-object.ts';

/** The current time of these objects. */
export const NOW_MS = Date.parse('2026-11-23T12:00:00Z');

/** Returns a condition that changed `agoMs` before `NOW_MS`. */
export function conditionOf(
  type: string,
  status: string,
  reason: string,
  agoMs = 3_600_000,
  message = '',
): Condition {
  return { type, status, reason, message, lastTransitionTime: new Date(NOW_MS - agoMs).toISOString() };
}

/**
 * Returns the object of reporter `edge/ID`: connected, in sync, owned by `replica-a`, with 3 tunnels, unless
 * overridden.
 */
export function reporterObject(
  id: string,
  overrides: {
    readonly conditions?: readonly Condition[];
    readonly owner?: string;
    readonly cluster?: string;
  } = {},
): ReporterObject {
  const conditionsByType = new Map(
    [
      conditionOf('Connected', 'True', 'StreamOpen'),
      conditionOf('Synced', 'True', 'UpToDate'),
      ...(overrides.conditions ?? []),
    ].map((condition) => [condition.type, condition]),
  );
  return {
    metadata: { name: id, uid: `uid-${id}`, resourceVersion: '1' },
    spec: { id, cluster: overrides.cluster ?? 'edge' },
    status: {
      owner: { replica: overrides.owner ?? 'replica-a', epoch: 1 },
      tunnels: { reported: 3, applied: 3, rejected: 0 },
      conditions: [...conditionsByType.values()],
    },
  };
}
