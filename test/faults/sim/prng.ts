import { seededRandom } from '../../../src/simulate/random.ts';

/** A pseudo-random number generator; the same seed gives the same sequence. */
export interface Prng {
  /** Returns a number from 0 (inclusive) to 1 (exclusive). */
  fraction(): number;
  /** Returns an integer from 0 to `limit` - 1; `limit` is at least 1. */
  below(limit: number): number;
  /** Returns an integer from `min` to `max`, both inclusive. */
  between(least: number, most: number): number;
  chance(probability: number): boolean;
  /** Returns one of the items; undefined if there are none. */
  pick<T>(of: readonly T[]): T | undefined;
}

/** @param seed an integer from 0 to 2^32 - 1 */
export function createPrng(seed: number): Prng {
  const random = seededRandom(seed);
  const fraction = (): number => random.below(2 ** 32) / 2 ** 32;
  const below = (limit: number): number => Math.floor(fraction() * limit);
  return {
    fraction,
    below,
    between: (min, max) => min + below(max - min + 1),
    chance: (probability) => fraction() < probability,
    pick: (items) => items[below(Math.max(1, items.length))],
  };
}
