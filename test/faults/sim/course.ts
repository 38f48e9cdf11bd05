import { createDice, type Dice } from './dice.ts';
import { STEP_KINDS, type Step, type StepKind } from './step.ts';

/** A whole course: what world it begins with, and what happens there. */
export interface Course {
  readonly seed: number;
  readonly replicas: number;
  readonly reporters: number;
  /** Tunnels of each reporter when it begins. */
  readonly tunnels: number;
  /** In the order of time. */
  readonly steps: readonly Step[];
}

const LONGEST_MS = 180_000;
const CHANGES: ReadonlySet<StepKind> = new Set([
  'tunnel-up',
  'tunnel-down',
  'tunnel-flap',
  'tunnel-retenant',
]);

/**
 * The course of a seed. A few kinds of faults at a time, so that they meet: of all kinds at once each would be alone.
 */
export function courseOf(seed: number): Course {
  const dice = createDice(seed);
  const faults = STEP_KINDS.filter(({ kind }) => !CHANGES.has(kind));
  const chosen = new Set<StepKind>();
  for (let left = dice.between(2, 7); left > 0; left -= 1) chosen.add(weighted(faults, dice));
  // A Lease tells that etcd was restored, and without its namespace nobody can have one meanwhile.
  if (chosen.has('namespace-gone')) chosen.delete('etcd-restored');
  const kinds = STEP_KINDS.filter(({ kind }) => chosen.has(kind) || CHANGES.has(kind));
  const spanMs = dice.between(20, LONGEST_MS / 1000) * 1000;
  const steps: Step[] = [];
  for (let left = dice.between(4, 24); left > 0; left -= 1) {
    steps.push({
      atMs: dice.below(spanMs),
      do: dice.chance(0.4) ? weighted(kinds, dice) : (dice.one([...chosen]) ?? 'tunnel-up'),
      pick: dice.below(100),
      other: dice.below(100),
      forMs: lastingMs(dice),
    });
  }
  return {
    seed,
    replicas: dice.between(1, 3),
    reporters: dice.between(1, 3),
    tunnels: dice.between(0, 5),
    steps: steps.toSorted((a, b) => a.atMs - b.atMs),
  };
}

/** Some pass at once, some outlast a Lease, few outlast what a lost reporter is given. */
function lastingMs(dice: Dice): number {
  const cast = dice.fraction();
  if (cast < 0.3) return dice.between(10, 2000);
  if (cast < 0.7) return dice.between(2000, 20_000);
  return cast < 0.95 ? dice.between(20_000, 60_000) : dice.between(60_000, 150_000);
}

function weighted(of: readonly { readonly kind: StepKind; readonly weight: number }[], dice: Dice): StepKind {
  const total = of.reduce((sum, { weight }) => sum + weight, 0);
  let cast = dice.fraction() * total;
  for (const { kind, weight } of of) {
    cast -= weight;
    if (cast < 0) return kind;
  }
  return 'tunnel-up';
}
