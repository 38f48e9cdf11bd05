import type { FaultFixture, FaultFixtureOptions } from './fault-fixture.ts';

/** A measured value and its bounds. */
export interface Metric {
  /** For example `converged`. */
  readonly name: string;
  readonly value: number;
  /** For example `s`; undefined for a count. */
  readonly unit?: string;
  /** Inclusive bounds; a metric without bounds is informational. */
  readonly atMost?: number;
  readonly atLeast?: number;
}

/** Reports whether a metric is within its bounds; NaN is not. */
export function isWithinBounds({
  value,
  atMost = Number.POSITIVE_INFINITY,
  atLeast = Number.NEGATIVE_INFINITY,
}: Metric): boolean {
  return value <= atMost && value >= atLeast;
}

/** Formats a metric as `converged 2.1 s (≤ 10)`, with a mark when a bound is violated. */
export function formatMetric(metric: Metric): string {
  const { name, value, unit, atMost, atLeast } = metric;
  const bounds = [
    ...(atMost === undefined ? [] : [atMost === 0 ? '= 0' : `≤ ${atMost}`]),
    ...(atLeast === undefined ? [] : [`≥ ${atLeast}`]),
  ];
  const formatted = Number.isInteger(value) ? String(value) : value.toFixed(1);
  const bound = bounds.length === 0 ? '' : ` (${bounds.join(', ')})`;
  return `${name} ${formatted}${unit === undefined ? '' : ` ${unit}`}${bound}${isWithinBounds(metric) ? '' : ' VIOLATED'}`;
}

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
