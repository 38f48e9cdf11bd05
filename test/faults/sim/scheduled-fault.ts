/** What may happen in a world. `forMs` is how long it lasts, `pick` and `other` choose whom and what it concerns. */
export interface ScheduledFault {
  readonly atMs: number;
  readonly kind: FaultKind;
  readonly pick: number;
  readonly variant: number;
  readonly durationMs: number;
}

/** The name of a fault, or of a change of tunnels. */
export type FaultKind = (typeof FAULT_KINDS)[number]['kind'];

/**
 * Every fault of this simulation and how often it comes beside the others. `rare` ones end much at once: a course has few
 * of them.
 */
export const FAULT_KINDS = [
  { kind: 'tunnel-up', weight: 10 },
  { kind: 'tunnel-down', weight: 8 },
  { kind: 'tunnel-flap', weight: 4 },
  { kind: 'tunnel-retenant', weight: 3 },
  { kind: 'stream-cut', weight: 4 },
  { kind: 'stream-half-open', weight: 4 },
  { kind: 'stream-stall', weight: 4 },
  { kind: 'envoy-gone', weight: 1 },
  { kind: 'envoy-restart', weight: 2 },
  { kind: 'envoy-twin', weight: 1 },
  { kind: 'replica-crash', weight: 3 },
  { kind: 'replica-terminate', weight: 2 },
  { kind: 'replica-stop', weight: 3 },
  { kind: 'replica-suspend', weight: 2 },
  { kind: 'replica-wall-jump', weight: 1 },
  { kind: 'link-cut', weight: 3 },
  { kind: 'link-dark', weight: 3 },
  { kind: 'link-slow', weight: 3 },
  { kind: 'watch-lag', weight: 4 },
  { kind: 'watch-half-open', weight: 3 },
  { kind: 'watch-reset', weight: 2 },
  { kind: 'api-refusing', weight: 2 },
  { kind: 'api-hanging', weight: 2 },
  { kind: 'api-restart', weight: 2 },
  { kind: 'api-slow', weight: 2 },
  { kind: 'api-throttles', weight: 2 },
  { kind: 'api-unavailable', weight: 2 },
  { kind: 'api-breaks-before', weight: 2 },
  { kind: 'api-loses-answers', weight: 3 },
  { kind: 'api-compacts', weight: 2 },
  { kind: 'etcd-restored', weight: 1 },
  { kind: 'hand-deletes-row', weight: 3 },
  { kind: 'hand-edits-row', weight: 3 },
  { kind: 'hand-holds-row', weight: 2 },
  { kind: 'hand-takes-name', weight: 1 },
  { kind: 'hand-deletes-reporter', weight: 2 },
  { kind: 'hand-edits-reporter', weight: 2 },
  { kind: 'hand-holds-reporter', weight: 1 },
  { kind: 'hand-deletes-lease', weight: 2 },
  { kind: 'hand-edits-lease', weight: 1 },
  { kind: 'kind-gone', weight: 1 },
  { kind: 'namespace-gone', weight: 1 },
] as const;

/** A step in one line, as a trace and a report show it. */
export function formatFault({ atMs, kind, pick, variant, durationMs }: ScheduledFault): string {
  return `${(atMs / 1000).toFixed(1)} s ${kind} pick=${pick} other=${variant} for ${(durationMs / 1000).toFixed(1)} s`;
}
