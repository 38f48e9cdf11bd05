import type { Metric } from './metric.ts';
import type { FaultFixture, FaultFixtureOptions } from './fault-fixture.ts';

/** Durations and amounts: small for every test run, full for the table. */
export interface Scale {
  /** Duration of the long outages. */
  readonly outageMs: number;
  /** Number of tunnels replaced during a fault, and of tunnels that flap. */
  readonly changes: number;
  /** How long calls are rejected and delayed. */
  readonly rejectionMs: number;
  /** Tunnels of the report during which the operator is killed. */
  readonly pushedTunnels: number;
}

/** A fault and its checks. An error that `run` throws is a failure, too. */
export interface FaultScenario {
  readonly name: string;
  /** Description of the fault. */
  readonly description: string;
  run(fixture: FaultFixture, sizes: Scale, doing: (what: string) => void): Promise<Metric[]>;
}

/**
 * Scenarios that share a fixture. Each restores the initial state; after a failure, the next one gets a new
 * fixture.
 */
export interface ScenarioGroup {
  readonly fixture: FaultFixtureOptions;
  readonly scenarios: readonly FaultScenario[];
}

/** The scale of the table. */
export const FULL: Scale = { outageMs: 60_000, changes: 100, rejectionMs: 30_000, pushedTunnels: 3000 };
/** At most half a minute each, with outages that outlast a Lease. */
export const SOAK: Scale = { outageMs: 12_000, changes: 10, rejectionMs: 8000, pushedTunnels: 500 };
/** The scale for every test run. */
export const SMALL: Scale = { outageMs: 3000, changes: 10, rejectionMs: 8000, pushedTunnels: 500 };
