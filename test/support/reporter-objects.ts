/** Reporters' objects for tests of what reads them. */
import type { Condition } from '../../src/core/kubernetes.ts';
import type { ReporterObject } from '../../src/core/reporter-object.ts';

/** When it is, for these objects. */
export const NOW_MS = Date.parse('2026-11-23T12:00:00Z');

/** A condition that changed so long before `NOW_MS`. */
export function conditionOf(
  type: string,
  status: string,
  reason: string,
  agoMs = 3_600_000,
  message = '',
): Condition {
  return { type, status, reason, message, lastTransitionTime: new Date(NOW_MS - agoMs).toISOString() };
}

/** A reporter `edge/ID` as the API server shows it: connected, in sync, owned by `replica-a`, with 3 tunnels, unless `given` says otherwise. */
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
