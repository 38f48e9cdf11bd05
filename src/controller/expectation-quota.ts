import { parseExpectation, type Expectation } from '../core/expectation.ts';
import type { ExpectationEntry } from './expectation-entry.ts';

/** About 200 MiB. */
const MAX_MATCHES = 200_000;

/** An expectation without matches. */
export const NOT_PARSED: Expectation = parseExpectation({ match: {}, paused: true });

/**
 * Limits the matches of all expectations together: one per node, or one for an expectation without nodes. A user who may
 * create expectations could otherwise make every leader run out of memory. An expectation that exceeds the limit is
 * invalid until others have left enough room.
 */
export class ExpectationQuota {
  readonly #max: number;
  #used = 0;
  /** Expectations that exceed the limit with their number of matches, in the order in which they get room. */
  readonly #waiting = new Map<ExpectationEntry, number>();

  /** @param max default 200,000 */
  constructor(max = MAX_MATCHES) {
    this.#max = max;
  }

  /** Parses the spec of an expectation. Matches that are not counted are not kept. */
  parse(entry: ExpectationEntry): void {
    const expectation = parseExpectation(entry.spec);
    const { length } = expectation.matches;
    this.#waiting.delete(entry);
    if (expectation.paused) entry.expectation = { ...expectation, matches: [], nodes: undefined };
    else if (length > 0 && this.#used - entry.members.length + length > this.#max) {
      this.#waiting.set(entry, length);
      const error = `spec.match: all expectations together may name at most ${this.#max} nodes; one without nodes counts as 1`;
      entry.expectation = { ...expectation, matches: [], nodes: undefined, error };
    } else entry.expectation = expectation;
  }

  /** Records matches that are counted from now on. */
  join(matches: number): void {
    this.#used += matches;
  }

  /** Records matches that are no longer counted. */
  leave(matches: number): void {
    this.#used -= matches;
  }

  /** Returns the next expectation that must be parsed again because there is room for it; undefined if there is none. */
  next(): ExpectationEntry | undefined {
    const [first] = this.#waiting;
    return first === undefined || this.#used + first[1] > this.#max ? undefined : first[0];
  }

  /** Forgets an expectation that exceeds the limit. */
  forget(entry: ExpectationEntry): void {
    this.#waiting.delete(entry);
  }

  clear(): void {
    this.#used = 0;
    this.#waiting.clear();
  }
}
