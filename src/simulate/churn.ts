import type { Random } from './random.ts';

/** How much changes, over the whole fleet. */
export interface ChurnPlan {
  /** Tunnels a second that go for good, each followed at once by a new one, so the fleet keeps its size. */
  readonly churnPerSecond: number;
  /** Tunnels a second that drop and return with the same identity and a new created_at. */
  readonly flapsPerSecond: number;
  /** How long a flapping tunnel stays away, for every second one; the others return at once, inside one report. */
  readonly downtimeMs: number;
}

/** What churn acts on. */
export interface ChurnTarget {
  /** One tunnel goes, another initiator's comes. */
  replaceOne(random: Random): void;
  /** One tunnel drops. The answer brings it back; undefined when there is none to drop. */
  dropOne(random: Random): (() => void) | undefined;
}

export interface Churn {
  /** Lets fleet time pass and does everything that falls due, in order. */
  advance(elapsedMs: number): void;
  /** Brings back at once what is away. */
  restoreDropped(): void;
}

/**
 * Churn in a time of its own: the order of events and every choice follow from plan and seed alone, however late
 * or early the calls of `advance` come.
 */
export function createChurn(plan: ChurnPlan, target: ChurnTarget, random: Random): Churn {
  let nowMs = 0;
  let replaced = 0;
  let flapped = 0;
  // All are away equally long, so they return in the order they went.
  const dropped: { readonly returnAtMs: number; readonly bringUp: () => void }[] = [];

  function flap(): void {
    const staysDown = random.below(2) === 1;
    const bringUp = target.dropOne(random);
    if (bringUp === undefined) return;
    if (staysDown) dropped.push({ returnAtMs: nowMs + plan.downtimeMs, bringUp });
    else bringUp();
  }

  return {
    advance(elapsedMs) {
      const untilMs = nowMs + elapsedMs;
      for (;;) {
        // Counted, not added up, so that rates keep true over hours.
        const replaceAtMs = dueAt(replaced + 1, plan.churnPerSecond);
        const flapAtMs = dueAt(flapped + 1, plan.flapsPerSecond);
        const returnAtMs = dropped[0]?.returnAtMs ?? Number.POSITIVE_INFINITY;
        const nextMs = Math.min(replaceAtMs, flapAtMs, returnAtMs);
        if (nextMs > untilMs) break;
        nowMs = nextMs;
        if (nextMs === returnAtMs) {
          dropped.shift()?.bringUp();
        } else if (nextMs === replaceAtMs) {
          replaced += 1;
          target.replaceOne(random);
        } else {
          flapped += 1;
          flap();
        }
      }
      nowMs = untilMs;
    },
    restoreDropped() {
      for (const { bringUp } of dropped.splice(0)) bringUp();
    },
  };
}

/** When event number `count` of a steady rate falls due, in ms; never at rate 0. */
function dueAt(count: number, perSecond: number): number {
  return perSecond > 0 ? (count * 1000) / perSecond : Number.POSITIVE_INFINITY;
}
