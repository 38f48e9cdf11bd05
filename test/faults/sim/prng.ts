import { seededRandom } from '../../../src/simulate/random.ts';

/** Chance, the same for the same seed. */
export interface Prng {
  /** 0 to below 1. */
  fraction(): number;
  /** A whole number from 0 to `limit` - 1; `limit` at least 1. */
  below(limit: number): number;
  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number;
  chance(probability: number): boolean;
  /** One of them; undefined of none. */
  pick<T>(of: readonly T[]): T | undefined;
}

/** @param seed whole, 0 to 2^32 - 1 */
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
