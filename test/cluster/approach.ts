/** Waits for work whose duration depends on the machine: it fails when nothing happens, not after a fixed time. */
import { setTimeout as delay } from 'node:timers/promises';
import { errorMessage } from '../../control-plane/errors.ts';

/** Longer than a busy machine needs for one step, such as a pod that starts or a list of 100,000 objects. */
const STALL_TIMEOUT_MS = 180_000;
const POLL_MS = 500;

/** A number that must reach a target. */
export interface ApproachOptions {
  /** The noun of the messages: `1,200 of 5,000 WHAT`. */
  readonly what: string;
  readonly target: number;
  /** The largest difference to the target. Default: 0. */
  readonly tolerance?: number;
  /** Returns the current number. An error counts as no progress, because a busy API server may reject a request. */
  readonly read: () => Promise<number>;
  /** Throws if the target can no longer be reached. */
  readonly check?: () => void;
  readonly update: (text: string) => void;
  /** Without progress, in ms. Default: 180 s. */
  readonly stallTimeoutMs?: number;
  /** Between two reads, in ms. Default: 500. */
  readonly pollMs?: number;
}

/**
 * Polls a number until it has reached the target.
 *
 * @throws Error if the number came no closer for `stallTimeoutMs`
 */
export async function approach({
  what,
  target,
  tolerance = 0,
  read,
  check,
  update,
  stallTimeoutMs = STALL_TIMEOUT_MS,
  pollMs = POLL_MS,
}: ApproachOptions): Promise<void> {
  let closest = Number.POSITIVE_INFINITY;
  let progressMs = performance.now();
  let shown = 'not counted yet';
  for (;;) {
    check?.();
    try {
      const count = await read();
      const distance = Math.abs(count - target);
      if (distance <= tolerance) return;
      if (distance < closest) {
        closest = distance;
        progressMs = performance.now();
      }
      shown = String(count);
      update(`${count} of ${target} ${what}`);
    } catch (error) {
      shown = errorMessage(error);
    }
    if (performance.now() - progressMs > stallTimeoutMs) {
      const seconds = Math.round(stallTimeoutMs / 1000);
      throw new Error(`no progress towards ${target} ${what} for ${seconds} s: ${shown}`);
    }
    await delay(pollMs);
  }
}
