import { createPrng, type Prng } from './prng.ts';
import { FAULT_KINDS, type ScheduledFault, type FaultKind } from './scheduled-fault.ts';

/** The schedule of a run: its initial state and its faults. */
export interface Schedule {
  readonly seed: number;
  readonly replicas: number;
  readonly reporters: number;
  /** Initial number of tunnels of each reporter. */
  readonly tunnels: number;
  /** In chronological order. */
  readonly faults: readonly ScheduledFault[];
}

const MAX_SPAN_MS = 180_000;
const TUNNEL_CHANGES: ReadonlySet<FaultKind> = new Set([
  'tunnel-up',
  'tunnel-down',
  'tunnel-flap',
  'tunnel-retenant',
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
