import type { ExpectationSpec, MatchSpec, SelectorSpec } from './expectation-object.ts';
import { TUNNEL_LABELS, type TunnelLabel } from './tunnel-object.ts';
import { quote } from './text.ts';

/** The tunnels that one group counts. Two matches with the same key match the same tunnels. */
export type Match = IdentityMatch | LabelMatch;

/** Tunnels whose spec has these values; undefined matches every value. */
export interface IdentityMatch {
  readonly kind: 'identity';
  readonly key: string;
  readonly tenantID: string | undefined;
  readonly clusterID: string | undefined;
  readonly nodeID: string | undefined;
}

/** Tunnels whose labels meet all requirements, of which there is at least one and at most one per label. */
export interface LabelMatch {
  readonly kind: 'labels';
  readonly key: string;
  readonly requirements: readonly LabelRequirement[];
}

/** The values of a label that match: those of `allowed` (undefined: all) that `denied` does not contain. */
export interface LabelRequirement {
  readonly label: TunnelLabel;
  readonly allowed: ReadonlySet<string> | undefined;
  /** Empty if `allowed` is set. */
  readonly denied: ReadonlySet<string>;
}

/** A parsed expectation, or the error of one that no tunnel can ever meet. */
export interface Expectation {
  /** One per listed node; otherwise a single one. Empty if there is an error. */
  readonly matches: readonly Match[];
  /** The node of each match; undefined if the spec names no node. */
  readonly nodes: readonly string[] | undefined;
  readonly minTunnels: number;
  readonly minReporters: number;
  readonly gracePeriodMs: number;
  readonly paused: boolean;
  readonly error: string | undefined;
}

const DEFAULT_GRACE_PERIOD_MS = 60_000;
/** The limit of the CRD, which also fits into a timer. */
const MAX_GRACE_PERIOD_MS = 168 * 3_600_000;
const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const NO_VALUES: ReadonlySet<string> = new Set();

/** Parses a spec that the API server has validated, possibly with the CRD of another version. */
export function parseExpectation(spec: ExpectationSpec): Expectation {
  const match = spec.match ?? {};
  const parsed = parseMatch(match);
  return {
    ...parsed,
    minTunnels: spec.minTunnels ?? 1,
    minReporters: spec.minReporters ?? 1,
    gracePeriodMs: parseGracePeriod(spec.gracePeriod),
    paused: spec.paused === true,
  };
}

/** Returns true if both expect the same, whatever their grace periods are. */
export function expectsSame(a: ExpectationSpec, b: ExpectationSpec): boolean {
  return (
    a.minTunnels === b.minTunnels &&
    a.minReporters === b.minReporters &&
    JSON.stringify(a.match) === JSON.stringify(b.match)
  );
}

/**
 * Returns a duration such as `1h30m` in milliseconds, at most a week; the default of a minute if it is missing or, by a
 * CRD of another version, has another form.
 */
function parseGracePeriod(text: string | undefined): number {
  if (text === undefined || !/^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(text)) return DEFAULT_GRACE_PERIOD_MS;
  let totalMs = 0;
  for (const [, value = '', unit = ''] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g))
    totalMs += Number(value) * (UNITS[unit] ?? 0);
  return Math.min(totalMs, MAX_GRACE_PERIOD_MS);
}

type ParsedMatch = Pick<Expectation, 'matches' | 'nodes' | 'error'>;

function parseMatch({ tenantID, clusterID, nodeID, nodes, selector }: MatchSpec): ParsedMatch {
  if (selector !== undefined) {
    const match = parseSelector(selector);
    return typeof match === 'string'
      ? { matches: [], nodes: undefined, error: `spec.match.selector: ${match}` }
      : { matches: [match], nodes: undefined, error: undefined };
  }
  // A node that is listed twice counts once.
  const named = nodes === undefined ? (nodeID === undefined ? undefined : [nodeID]) : [...new Set(nodes)];
  const matches = (named ?? [undefined]).map((node) => identityMatch(tenantID, clusterID, node));
  return { matches, nodes: named, error: undefined };
}

function identityMatch(
  tenantID: string | undefined,
  clusterID: string | undefined,
  nodeID: string | undefined,
): IdentityMatch {
  const key = JSON.stringify([tenantID ?? null, clusterID ?? null, nodeID ?? null]);
  return { kind: 'identity', key, tenantID, clusterID, nodeID };
}

/**
 * Merges all requirements of a label into one, and drops those that every tunnel meets: each tunnel has all labels.
 *
 * @returns why nothing can match as a text, if that is so
 */
function parseSelector({ matchLabels = {}, matchExpressions = [] }: SelectorSpec): Match | string {
  const expressions = [
    ...Object.entries(matchLabels).map(([key, value]) => ({ key, operator: 'In', values: [value] })),
    ...matchExpressions,
  ];
  const allowed = new Map<TunnelLabel, Set<string>>();
  const denied = new Map<TunnelLabel, Set<string>>();
  for (const { key, operator, values = [] } of expressions) {
    const label = TUNNEL_LABELS.find((name) => name === key);
    if (label === undefined) return `ReverseTunnels have no label ${quote(key)} to select by`;
    switch (operator) {
      case 'In': {
        const before = allowed.get(label);
        allowed.set(
          label,
          new Set(before === undefined ? values : values.filter((value) => before.has(value))),
        );
        break;
      }
      case 'NotIn':
        denied.set(label, new Set([...(denied.get(label) ?? []), ...values]));
        break;
      case 'Exists':
        break;
      case 'DoesNotExist':
        return `every ReverseTunnel has the label ${label}, so DoesNotExist matches nothing`;
      default:
        return `unknown operator ${quote(operator)}`;
    }
  }
  const requirements: LabelRequirement[] = [];
  for (const label of TUNNEL_LABELS) {
    const excluded = denied.get(label) ?? NO_VALUES;
    const values = allowed.get(label);
    if (values === undefined) {
      if (excluded.size > 0) requirements.push({ label, allowed: undefined, denied: excluded });
      continue;
    }
    const remaining = new Set([...values].filter((value) => !excluded.has(value)));
    if (remaining.size === 0) return `the requirements on ${label} contradict each other and match nothing`;
    requirements.push({ label, allowed: remaining, denied: NO_VALUES });
  }
  if (requirements.length === 0) return identityMatch(undefined, undefined, undefined);
  const canonical = requirements.map((requirement) => [
    requirement.label,
    requirement.allowed === undefined ? null : [...requirement.allowed].toSorted(),
    [...requirement.denied].toSorted(),
  ]);
  return { kind: 'labels', key: JSON.stringify(canonical), requirements };
}
