import type { TunnelIdentity } from '../core/tunnel.ts';
import type { Random } from './random.ts';
import type { FleetReporter } from './reporter.ts';

/** The rate of changes, for the whole fleet. */
export interface ChurnPlan {
  /** Tunnels per second that end and are each replaced immediately by a new one, so the fleet keeps its size. */
  readonly churnPerSecond: number;
  /** Tunnels per second that drop and return with the same identity and a new created_at. */
  readonly flapsPerSecond: number;
  /** How long a flapping tunnel stays down, chosen for half of them; the others return at once, within one report. */
  readonly downtimeMs: number;
}

/** The changes that churn makes. */
export interface ChurnTarget {
  /** Ends one tunnel and starts a tunnel of another initiator. */
  replaceOne(random: Random): void;
  /** Drops one tunnel. Returns a function that brings it back; undefined if there is no tunnel. */
  dropOne(random: Random): (() => void) | undefined;
}

/** Applies a `ChurnPlan` to a `ChurnTarget`. */
export interface Churn {
  /** Advances the time of the plan and makes all changes that are due, in order. */
  advance(elapsedMs: number): void;
  /** Brings back all dropped tunnels immediately. */
  restoreDropped(): void;
}

/**
 * Creates churn with its own time: the order of the changes and every choice depend only on the plan and the seed, however
 * irregularly `advance` is called.
 */
export function createChurn(plan: ChurnPlan, target: ChurnTarget, random: Random): Churn {
  let nowMs = 0;
  let replaced = 0;
  let flapped = 0;
  // All dropped tunnels stay down equally long, so they return in the order in which they were dropped.
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
        // Computed from a count instead of a sum, so that the rates stay exact over hours.
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

/** Returns when event number `count` of a steady rate is due, in ms; infinity for rate 0. */
function dueAt(count: number, perSecond: number): number {
  return perSecond > 0 ? (count * 1000) / perSecond : Number.POSITIVE_INFINITY;
}

/** The tunnels of a whole fleet, from which one is chosen at random in constant time. */
export interface LiveTunnels extends ChurnTarget {
  /** Connects a tunnel of this initiator to this reporter. */
  bringUp(reporter: FleetReporter, identity: TunnelIdentity): void;
}

/**
 * Creates an empty set of tunnels.
 *
 * @param newInitiator returns the initiator of a replacement tunnel
 */
export function createLiveTunnels(newInitiator: () => TunnelIdentity): LiveTunnels {
  // Tunnels that were disconnected in another way stay in this list and are skipped when they are chosen.
  const live: { readonly reporter: FleetReporter; readonly identity: TunnelIdentity }[] = [];

  function bringUp(reporter: FleetReporter, identity: TunnelIdentity): void {
    reporter.connectTunnel(identity);
    live.push({ reporter, identity });
  }

  /** Disconnects a tunnel that is up, chosen with equal probability. */
  function takeDown(random: Random): (typeof live)[number] | undefined {
    while (live.length > 0) {
      const index = random.below(live.length);
      const chosen = live[index];
      const last = live.pop();
      if (last !== undefined && index < live.length) live[index] = last;
      if (chosen?.reporter.disconnectTunnel(chosen.identity.nodeID)) return chosen;
    }
    return undefined;
  }

  return {
    bringUp,
    replaceOne(random) {
      const removed = takeDown(random);
      if (removed !== undefined) bringUp(removed.reporter, newInitiator());
    },
    dropOne(random) {
      const removed = takeDown(random);
      return removed && (() => bringUp(removed.reporter, removed.identity));
    },
  };
}
