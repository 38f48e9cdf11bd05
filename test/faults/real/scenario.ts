import type { Figure } from './figure.ts';
import type { Stage, StageOptions } from './stage.ts';

/** How long and how much; a small set for every test run, the full one for the table. */
export interface Sizes {
  /** The long outages. */
  readonly outageMs: number;
  /** Tunnels replaced during a fault, and as many that drop and return. */
  readonly changes: number;
  /** How long calls are refused and slow. */
  readonly refusedMs: number;
  /** Tunnels of the report during which the operator is killed. */
  readonly pushed: number;
}

/** One fault, done to a stage and judged. What it throws is a difference, too. */
export interface FaultScenario {
  readonly name: string;
  /** What is done, for a person. */
  readonly about: string;
  run(stage: Stage, sizes: Sizes, doing: (what: string) => void): Promise<Figure[]>;
}

/** Scenarios that share a stage; each leaves it as it found it, or the next gets a new one. */
export interface Act {
  readonly stage: StageOptions;
  readonly scenarios: readonly FaultScenario[];
}

/** The fault of each row of the table. */
export const FULL: Sizes = { outageMs: 60_000, changes: 100, refusedMs: 30_000, pushed: 3000 };
/** Half a minute each at most; outages that are longer than a Lease is held. */
export const SOAK: Sizes = { outageMs: 12_000, changes: 10, refusedMs: 8000, pushed: 500 };
/** For the share of every test run. */
export const SMALL: Sizes = { outageMs: 3000, changes: 10, refusedMs: 8000, pushed: 500 };
