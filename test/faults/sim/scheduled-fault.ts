/** A fault at a time. `durationMs` is its duration; `pick` and `variant` select its target and its details. */
export interface ScheduledFault {
  readonly atMs: number;
  readonly kind: FaultKind;
  readonly pick: number;
  readonly variant: number;
  readonly durationMs: number;
}

/** The name of a fault or of a change of tunnels. */
export type FaultKind = (typeof FAULT_KINDS)[number]['kind'];

/**
 * Every kind of fault and its relative frequency. Kinds with weight 1 end many things at once, so a schedule has
 * few of them.
 */
export const FAULT_KINDS = [
  { kind: 'tunnel-up', weight: 10 },
  { kind: 'tunnel-down', weight: 8 },
  { kind: 'tunnel-flap', weight: 4 },
  { kind: 'tunnel-retenant', weight: 3 },
  { kind: 'stream-cut', weight: 4 },
  { kind: 'stream-half-open', weight: 4 },
  { kind: 'stream-stall', weight: 4 },
  { kind: 'envoy-removed', weight: 1 },
  { kind: 'envoy-restart', weight: 2 },
  { kind: 'envoy-twin', weight: 1 },
  { kind: 'replica-crash', weight: 3 },
  { kind: 'replica-terminate', weight: 2 },
  { kind: 'replica-stop', weight: 3 },
  { kind: 'replica-suspend', weight: 2 },
  { kind: 'replica-wall-jump', weight: 1 },
  { kind: 'link-cut', weight: 3 },
  { kind: 'link-blackhole', weight: 3 },
  { kind: 'link-slow', weight: 3 },
  { kind: 'watch-lag', weight: 4 },
  { kind: 'watch-half-open', weight: 3 },
  { kind: 'watch-reset', weight: 2 },
  { kind: 'api-down', weight: 2 },
  { kind: 'api-hanging', weight: 2 },
  { kind: 'api-restart', weight: 2 },
  { kind: 'api-slow', weight: 2 },
  { kind: 'api-throttling', weight: 2 },
  { kind: 'api-unavailable', weight: 2 },
  { kind: 'api-resets-before', weight: 2 },
  { kind: 'api-resets-after', weight: 3 },
  { kind: 'etcd-compacted', weight: 2 },
  { kind: 'etcd-restored', weight: 1 },
  { kind: 'kubectl-deletes-object', weight: 3 },
  { kind: 'kubectl-edits-object', weight: 3 },
  { kind: 'kubectl-holds-object', weight: 2 },
  { kind: 'kubectl-takes-name', weight: 1 },
  { kind: 'kubectl-deletes-reporter', weight: 2 },
  { kind: 'kubectl-edits-reporter', weight: 2 },
  { kind: 'kubectl-holds-reporter', weight: 1 },
  { kind: 'kubectl-deletes-lease', weight: 2 },
  { kind: 'kubectl-edits-lease', weight: 1 },
  { kind: 'crd-deleted', weight: 1 },
  { kind: 'namespace-deleted', weight: 1 },
] as const;

/** Formats a fault as one line of a trace or a report. */
export function formatFault({ atMs, kind, pick, variant, durationMs }: ScheduledFault): string {
  return `${(atMs / 1000).toFixed(1)} s ${kind} pick=${pick} variant=${variant} for ${(durationMs / 1000).toFixed(1)} s`;
}
