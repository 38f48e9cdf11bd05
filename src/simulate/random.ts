/** A reproducible source of random numbers. */
export interface Random {
  /** Returns a whole number from 0 to `limit` - 1; `limit` is from 1 to 2^32. */
  below(limit: number): number;
}

/**
 * Returns a mulberry32 generator, which produces the same numbers for the same seed on every machine.
 *
 * @param seed a whole number from 0 to 2^32 - 1
 */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return {
    below(limit) {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit);
    },
  };
}
