import type { Representation } from '../../../src/core/representation.ts';
import { createPrng, type Prng } from './prng.ts';

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
  { kind: 'tunnel-storm', weight: 2 },
  { kind: 'stream-cut', weight: 4 },
  { kind: 'stream-half-open', weight: 4 },
  { kind: 'stream-stall', weight: 4 },
  { kind: 'envoy-removed', weight: 1 },
  { kind: 'envoy-restart', weight: 2 },
  { kind: 'envoy-loses-tunnels', weight: 3 },
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
  { kind: 'api-rewrites', weight: 2 },
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

/** The schedule of a run: its initial state and its faults. */
export interface Schedule {
  readonly seed: number;
  readonly replicas: number;
  readonly reporters: number;
  /** Initial number of tunnels of each reporter. */
  readonly tunnels: number;
  /** In chronological order. */
  readonly faults: readonly ScheduledFault[];
  /** `--representation` from each of the times on, the first of which is 0. Undefined: objects, and there are no slices. */
  readonly representations?: readonly ScheduledRepresentation[] | undefined;
}

/** A change of `--representation`, for which the replicas are restarted one after the other. */
export interface ScheduledRepresentation {
  readonly atMs: number;
  readonly representation: Representation;
}

const MAX_SPAN_MS = 180_000;
const TUNNEL_CHANGES: ReadonlySet<FaultKind> = new Set([
  'tunnel-up',
  'tunnel-down',
  'tunnel-flap',
  'tunnel-retenant',
  'tunnel-storm',
]);

/**
 * Generates the schedule of a seed. It uses only a few kinds of faults, so that faults of different kinds coincide.
 */
export function generateSchedule(seed: number): Schedule {
  const prng = createPrng(seed);
  const faultKinds = FAULT_KINDS.filter(({ kind }) => !TUNNEL_CHANGES.has(kind));
  const chosen = new Set<FaultKind>();
  for (let remaining = prng.between(2, 7); remaining > 0; remaining -= 1)
    chosen.add(pickWeighted(faultKinds, prng));
  // A restore of etcd is detected with a Lease, and no replica can hold one while the namespace is missing.
  if (chosen.has('namespace-deleted')) chosen.delete('etcd-restored');
  const kinds = FAULT_KINDS.filter(({ kind }) => chosen.has(kind) || TUNNEL_CHANGES.has(kind));
  const spanMs = prng.between(20, MAX_SPAN_MS / 1000) * 1000;
  const faults: ScheduledFault[] = [];
  for (let remaining = prng.between(4, 24); remaining > 0; remaining -= 1) {
    faults.push({
      atMs: prng.below(spanMs),
      kind: prng.chance(0.4) ? pickWeighted(kinds, prng) : (prng.pick([...chosen]) ?? 'tunnel-up'),
      pick: prng.below(100),
      variant: prng.below(100),
      durationMs: randomDurationMs(prng),
    });
  }
  return {
    seed,
    replicas: prng.between(1, 3),
    reporters: prng.between(1, 3),
    tunnels: prng.between(0, 5),
    faults: faults.toSorted((a, b) => a.atMs - b.atMs),
  };
}

/** Generates the representations of a seed: slices from the beginning, or a migration while faults happen. */
export function generateRepresentations(seed: number): ScheduledRepresentation[] {
  const prng = createPrng(seed ^ 0x51ce);
  const sequences: readonly (readonly Representation[])[] = [
    ['slices'],
    ['objects', 'slices'],
    ['slices', 'objects'],
    ['slices', 'objects', 'slices'],
  ];
  let atMs = 0;
  return (prng.pick(sequences) ?? []).map((representation, index) => {
    if (index > 0) atMs += prng.between(5, 60) * 1000;
    return { atMs, representation };
  });
}

/** Some faults are short, some outlast a Lease, and a few outlast `expireAfter`. */
function randomDurationMs(prng: Prng): number {
  const draw = prng.fraction();
  if (draw < 0.3) return prng.between(10, 2000);
  if (draw < 0.7) return prng.between(2000, 20_000);
  return draw < 0.95 ? prng.between(20_000, 60_000) : prng.between(60_000, 150_000);
}

function pickWeighted(
  kinds: readonly { readonly kind: FaultKind; readonly weight: number }[],
  prng: Prng,
): FaultKind {
  const total = kinds.reduce((sum, { weight }) => sum + weight, 0);
  let draw = prng.fraction() * total;
  for (const { kind, weight } of kinds) {
    draw -= weight;
    if (draw < 0) return kind;
  }
  return 'tunnel-up';
}
