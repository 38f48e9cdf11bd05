import type { ObjectParts } from '../core/rewrite.ts';
import type { RewrittenObjects } from './rewritten-objects.ts';

/** Attempts to correct rewritten objects, of all reporters together. */
const ATTEMPTS_PER_SECOND = 10;
const ATTEMPT_INTERVAL_MS = 1000 / ATTEMPTS_PER_SECOND;

/**
 * Limits the attempts to correct objects that admission rewrote to 10 per second over all reporters. An attempt is a
 * write that was rewritten before, or a first correction of an object while the last correction of the same parts was
 * rewritten: after a restart, every object that a webhook rewrote is found to differ. Writes of new tunnels are never
 * delayed.
 *
 * Each attempt that has to wait gets a time of its own, so that waiting attempts are not evaluated repeatedly.
 */
export class RewriteLimiter {
  #nextAtMs = Number.NEGATIVE_INFINITY;
  /** The parts whose last correction was rewritten. */
  #rewrittenParts: ObjectParts = 0;

  /** Returns true if corrections of these parts count as attempts. */
  limits(parts: ObjectParts): boolean {
    return (this.#rewrittenParts & parts) !== 0;
  }

  /** Returns how long an attempt must wait, in ms; 0 if it may be sent now. */
  delayMs(rewritten: RewrittenObjects, tunnelName: string, nowMs: number): number {
    const slotMs = rewritten.slot(tunnelName);
    if (slotMs !== undefined) {
      if (nowMs < slotMs) return slotMs - nowMs;
      rewritten.takeSlot(tunnelName);
      return 0;
    }
    const atMs = Math.max(nowMs, this.#nextAtMs);
    this.#nextAtMs = atMs + ATTEMPT_INTERVAL_MS;
    if (atMs > nowMs) rewritten.setSlot(tunnelName, atMs);
    return atMs - nowMs;
  }

  /** Records a correction that was rewritten. */
  rewritten(parts: ObjectParts): void {
    this.#rewrittenParts |= parts;
  }

  /** Records a correction that was stored as sent. Returns true if waiting corrections need not wait any longer. */
  stored(parts: ObjectParts): boolean {
    if (!this.limits(parts)) return false;
    this.#rewrittenParts &= ~parts;
    return true;
  }
}
