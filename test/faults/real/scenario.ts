import type { Metric } from './metric.ts';
import type { FaultFixture, FaultFixtureOptions } from './fault-fixture.ts';

/** How long and how much; a small set for every test run, the full one for the table. */
export interface Scale {
  /** The long outages. */
  readonly outageMs: number;
  /** Tunnels replaced during a fault, and as many that drop and return. */
  readonly changes: number;
  /** How long calls are refused and slow. */
  readonly rejectionMs: number;
  /** Tunnels of the report during which the operator is killed. */
  readonly pushedTunnels: number;
}

/** One fault, done to a stage and judged. What it throws is a difference, too. */
export interface FaultScenario {
  readonly name: string;
  /** What is done, for a person. */
  readonly description: string;
  run(stage: FaultFixture, sizes: Scale, doing: (what: string) => void): Promise<Metric[]>;
}

/** Scenarios that share a stage; each leaves it as it found it, or the next gets a new one. */
export interface ScenarioGroup {
  readonly fixture: FaultFixtureOptions;
  readonly scenarios: readonly FaultScenario[];
}

/** The fault of each row of the table. */
export const FULL: Scale = { outageMs: 60_000, changes: 100, rejectionMs: 30_000, pushedTunnels: 3000 };
/** Half a minute each at most; outages that are longer than a Lease is held. */
export const SOAK: Scale = { outageMs: 12_000, changes: 10, rejectionMs: 8000, pushedTunnels: 500 };
/** For the share of every test run. */
export const SMALL: Scale = { outageMs: 3000, changes: 10, rejectionMs: 8000, pushedTunnels: 500 };
