import { findCondition, type Condition } from '../core/kubernetes.ts';
import type { ReporterObject } from '../core/reporter-object.ts';

/** The state of a reporter, by its conditions. `doctor` and `status` both use it, so they always agree. */
interface ReporterState {
  readonly isConnected: boolean;
  readonly isSynced: boolean;
  /** Another live Envoy reports under the same ID. */
  readonly hasConflict: boolean;
  /** Number of reported tunnels that are neither written nor rejected; can be 10 s old or more. Zero without a stream. */
  readonly pending: number;
  /** The condition that explains why the reporter is unhealthy; undefined if it is healthy or has no conditions. */
  readonly failing: Condition | undefined;
}

/** Returns the state of a reporter. Before the first claim, all its conditions are Unknown. */
export function reporterState({ status }: ReporterObject): ReporterState {
  const find = (type: string): Condition | undefined => findCondition(status?.conditions, type);
  const [connected, synced, conflict] = [find('Connected'), find('Synced'), find('IdentityConflict')];
  const hasConflict = conflict?.status === 'True';
  const flapping = find('Flapping');
  const isConnected = connected?.status === 'True';
  const { reported = 0, applied = 0, rejected = 0 } = status?.tunnels ?? {};
  return {
    isConnected,
    isSynced: synced?.status === 'True',
    hasConflict,
    // Without a stream, no tunnel is waiting to be written.
    pending: isConnected ? Math.max(0, reported - applied - rejected) : 0,
    // The first failing condition explains the later ones.
    failing: hasConflict
      ? conflict
      : ([connected, synced].find((condition) => condition?.status !== 'True') ?? flapping),
  };
}
