import type { Rate, Scope } from './policy.ts';
import { stripTenantPrefix } from './tenant-prefix.ts';
import { coversPattern, matchesText, createTextMatcher, type TextMatcher } from './text-pattern.ts';
import type { Tunnel } from './tunnel.ts';

/** What the peer of one stream may report as one reporter. */
export interface Grant {
  /** Whether a tunnel of that tenant and cluster may have a row; undefined: every one may. */
  readonly permits: ((tunnel: TunnelOrigin) => boolean) | undefined;
  /** Tunnels that the reporter may hold by policy; Infinity without a limit. */
  readonly tunnels: number;
  /** How fast its reports are read; undefined: as fast as they come. */
  readonly rate: Rate | undefined;
  /** What it was made of; lists of equal texts permit the same. */
  readonly scopes: readonly Scope[];
}

type TunnelOrigin = Pick<Tunnel, 'tenantID' | 'clusterID'>;

/** Without any policy. */
export const ALLOW_ALL: Grant = {
  permits: undefined,
  tunnels: Number.POSITIVE_INFINITY,
  rate: undefined,
  scopes: [
    { tenants: ['*'], clusters: ['*'], tunnels: undefined, rate: undefined, fingerprint: 'everything' },
  ],
};
/** Where no rule allows anything. */
export const DENY_ALL: Grant = {
  permits: () => false,
  tunnels: Number.POSITIVE_INFINITY,
  rate: undefined,
  scopes: [],
};

/** Tenants whose answer is remembered: more than a reporter has, and few enough for one that makes them up. */
const MAX_CACHED_TENANTS = 4096;

/**
 * What several rules allow together: a tunnel that one of them allows, and of their limits the widest, so that a rule
 * more never takes anything away.
 */
export function grantFromScopes(scopes: readonly Scope[]): Grant {
  if (scopes.length === 0) return DENY_ALL;
  const rates = scopes.map(({ rate }) => rate);
  return {
    permits: tunnelFilter(scopes),
    tunnels: Math.max(...scopes.map(({ tunnels }) => tunnels ?? Number.POSITIVE_INFINITY)),
    rate: rates.includes(undefined) ? undefined : maxRate(rates.filter((rate) => rate !== undefined)),
    scopes,
  };
}

/** True when nothing changes for who had the one and gets the other. */
export function sameGrant(a: Grant, b: Grant): boolean {
  return (
    a === b ||
    (a.scopes.length === b.scopes.length &&
      a.scopes.every(({ fingerprint }, index) => fingerprint === b.scopes[index]?.fingerprint))
  );
}

/**
 * True when who has `wide` may report whatever who has `narrow` may, limits aside. Rule by rule: what only several rules
 * together allow counts as not covered.
 */
export function isSuperset(wide: Grant, narrow: Grant): boolean {
  if (wide.permits === undefined || sameGrant(wide, narrow)) return true;
  const matchers = wide.scopes.map(({ tenants, clusters }) => ({
    tenants: createTextMatcher(tenants),
    clusters: createTextMatcher(clusters),
  }));
  return narrow.scopes.every(({ tenants, clusters }) =>
    matchers.some(
      (matcher) =>
        tenants.every((pattern) => coversPattern(matcher.tenants, pattern)) &&
        clusters.every((pattern) => coversPattern(matcher.clusters, pattern)),
    ),
  );
}

function maxRate(rates: readonly Rate[]): Rate {
  return {
    perSecond: Math.max(...rates.map(({ perSecond }) => perSecond)),
    burst: Math.max(...rates.map(({ burst }) => burst)),
  };
}

/** One question for all scopes: those of the same clusters are asked as one, and a tenant's answer is remembered. */
function tunnelFilter(scopes: readonly Scope[]): Grant['permits'] {
  const groups = [...Map.groupBy(scopes, ({ clusters }) => JSON.stringify(clusters)).values()].map(
    (same) => ({
      tenants: createTextMatcher(same.flatMap(({ tenants }) => tenants)),
      clusters: createTextMatcher(same[0]?.clusters ?? []),
    }),
  );
  if (groups.some(({ tenants, clusters }) => tenants.matchesAll && clusters.matchesAll)) return undefined;
  const clustersByTenant = new Map<string, readonly TextMatcher[]>();
  return ({ tenantID, clusterID }) => {
    let clusters = clustersByTenant.get(tenantID);
    if (clusters === undefined) {
      clusters = groups
        .filter((group) => matchesText(group.tenants, tenantID))
        .map((group) => group.clusters);
      if (clustersByTenant.size < MAX_CACHED_TENANTS) clustersByTenant.set(tenantID, clusters);
    }
    const [first] = clusters;
    if (first === undefined) return false;
    if (first.matchesAll) return true;
    const cluster = stripTenantPrefix(tenantID, clusterID);
    return clusters.some((matcher) => matchesText(matcher, cluster));
  };
}
