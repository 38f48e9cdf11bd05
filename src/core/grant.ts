import type { Scope } from './policy.ts';
import type { Representation } from './representation.ts';
import type { Rate } from './token-bucket.ts';
import { stripTenantPrefix, type Tunnel } from './tunnel.ts';
import { coversPattern, matchesText, createTextMatcher, type TextMatcher } from './text.ts';

/** What the peer of a stream may report as one reporter. */
export interface Grant {
  /** Returns true if a tunnel of this tenant and cluster may have an object; undefined: all may. */
  readonly permits: ((tunnel: TunnelOrigin) => boolean) | undefined;
  /** Maximum number of tunnels of the reporter; Infinity without a limit. */
  readonly tunnels: number;
  /** Rate at which its reports are read; undefined: unlimited. */
  readonly rate: Rate | undefined;
  /**
   * Returns how a permitted tunnel is written, undefined if no rule that permits it decides that; undefined itself: no
   * rule decides it for any tunnel.
   */
  readonly representation: ((tunnel: TunnelOrigin) => Representation | undefined) | undefined;
  /** The scopes of the rules that apply; grants with equal fingerprints permit the same. */
  readonly scopes: readonly Scope[];
}

type TunnelOrigin = Pick<Tunnel, 'tenantID' | 'clusterID'>;

/** The grant if there are no policies. */
export const ALLOW_ALL: Grant = {
  permits: undefined,
  tunnels: Number.POSITIVE_INFINITY,
  rate: undefined,
  representation: undefined,
  scopes: [
    {
      tenants: ['*'],
      clusters: ['*'],
      tunnels: undefined,
      rate: undefined,
      representation: undefined,
      fingerprint: 'everything',
    },
  ],
};
/** The grant if no rule applies. */
export const DENY_ALL: Grant = {
  permits: () => false,
  tunnels: Number.POSITIVE_INFINITY,
  rate: undefined,
  representation: undefined,
  scopes: [],
};

/** Maximum number of cached tenants: more than a reporter has, and a bound for one that invents them. */
const MAX_CACHED_TENANTS = 4096;

/**
 * Combines the scopes of all rules that apply: a tunnel is permitted if one of them permits it, and the widest limits
 * count, so that an additional rule never restricts anything.
 */
export function grantFromScopes(scopes: readonly Scope[]): Grant {
  if (scopes.length === 0) return DENY_ALL;
  const rates = scopes.map(({ rate }) => rate);
  return {
    permits: tunnelFilter(scopes),
    tunnels: Math.max(...scopes.map(({ tunnels }) => tunnels ?? Number.POSITIVE_INFINITY)),
    rate: rates.includes(undefined) ? undefined : maxRate(rates.filter((rate) => rate !== undefined)),
    representation: representationFilter(scopes),
    scopes,
  };
}

/** Returns true if both grants permit the same. */
export function sameGrant(a: Grant, b: Grant): boolean {
  return (
    a === b ||
    (a.scopes.length === b.scopes.length &&
      a.scopes.every(({ fingerprint }, index) => fingerprint === b.scopes[index]?.fingerprint))
  );
}

/**
 * Returns true if `wide` permits every tunnel that `narrow` permits; limits are ignored. Rules are compared one by one: what
 * only several rules of `wide` permit together counts as not covered.
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

/**
 * Returns the representation of each tunnel. A rule without one does not count. If rules disagree, `objects` takes
 * precedence, because it is the form that every client of the API can read.
 */
function representationFilter(scopes: readonly Scope[]): Grant['representation'] {
  const withForm = (form: Representation): readonly Scope[] =>
    scopes.filter(({ representation }) => representation === form);
  const [objects, slices] = [withForm('objects'), withForm('slices')];
  if (objects.length === 0 && slices.length === 0) return undefined;
  const isObject = objects.length === 0 ? () => false : (tunnelFilter(objects) ?? (() => true));
  const isEntry = slices.length === 0 ? () => false : (tunnelFilter(slices) ?? (() => true));
  return (tunnel) => {
    if (isObject(tunnel)) return 'objects';
    return isEntry(tunnel) ? 'slices' : undefined;
  };
}

/** Groups the scopes by clusters, and caches the matching groups of each tenant. */
function tunnelFilter(scopes: readonly Scope[]): Grant['permits'] {
  const groups = [...Map.groupBy(scopes, ({ clusters }) => JSON.stringify(clusters)).values()].map(
    (group) => ({
      tenants: createTextMatcher(group.flatMap(({ tenants }) => tenants)),
      clusters: createTextMatcher(group[0]?.clusters ?? []),
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
