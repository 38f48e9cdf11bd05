/** The hidden gauges in which a standard Envoy counts its reverse tunnels. */

/** The tunnels counted by one poll. Names with a count of 0 are left out: Envoy keeps a gauge after its tunnel ends. */
export interface TunnelGauges {
  /** Open connections per `cluster:node`, or `tenant:cluster:node` under tenant isolation; each at least 1. */
  readonly tunnels: ReadonlyMap<string, number>;
  /** Clusters and nodes of initiators with at least one connection. They decide where an ID contains ":". */
  readonly clusters: ReadonlySet<string>;
  readonly nodes: ReadonlySet<string>;
}

/** Names of an initiator as Envoy counts it. `tenantID` is known only under tenant isolation. */
export interface GaugeIdentity {
  readonly tenantID: string | undefined;
  readonly clusterID: string;
  readonly nodeID: string;
}

/** Maximum length of text that an error quotes. */
const MAX_QUOTED = 60;

/** Returns the query of `/stats` whose response `parseTunnelGauges` reads. */
export function tunnelGaugesPath(statPrefix: string): string {
  const filter = `^${escapeRegExp(statPrefix)}\\.(tunnels|clusters|nodes)\\.`;
  return `/stats?format=text&hidden=only&filter=${encodeURIComponent(filter)}`;
}

/**
 * Parses the text of `/stats`. Nothing but the gauges that were asked for is accepted, because a response that is
 * something else (a login page, half a body) must not be read as "no tunnels".
 */
export function parseTunnelGauges(
  text: string,
  statPrefix: string,
): TunnelGauges | { readonly error: string } {
  const tunnels = new Map<string, number>();
  const clusters = new Set<string>();
  const nodes = new Set<string>();
  if (text !== '' && !text.endsWith('\n'))
    return { error: 'the list of gauges ends in the middle of a line' };
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const separator = line.lastIndexOf(': ');
    const name = line.slice(0, separator);
    const digits = line.slice(separator + 2);
    const count = /^\d{1,15}$/.test(digits) ? Number(digits) : undefined;
    const gauge = name.startsWith(`${statPrefix}.`) ? name.slice(statPrefix.length + 1) : '';
    const dot = gauge.indexOf('.');
    const kind = gauge.slice(0, dot);
    const subject = gauge.slice(dot + 1);
    if (separator < 0 || count === undefined || !['tunnels', 'clusters', 'nodes'].includes(kind)) {
      return { error: `not a tunnel gauge: ${JSON.stringify(line.slice(0, MAX_QUOTED))}` };
    }
    if (count === 0) continue;
    if (kind === 'tunnels') tunnels.set(subject, count);
    else (kind === 'clusters' ? clusters : nodes).add(subject);
  }
  return { tunnels, clusters, nodes };
}

/**
 * Splits the name of a gauge into its parts. Without tenant isolation an ID may contain ":"; the split is then the one
 * whose cluster and node both have gauges of their own.
 *
 * @returns all splits that are possible; more than one if the gauges do not decide
 */
export function splitGaugeName(
  name: string,
  tenantIsolation: boolean,
  { clusters, nodes }: Pick<TunnelGauges, 'clusters' | 'nodes'>,
): readonly GaugeIdentity[] {
  const parts = name.split(':');
  if (tenantIsolation) {
    // Envoy rejects IDs that contain ":" under tenant isolation.
    const [tenantID = '', clusterID = '', nodeID = ''] = parts;
    return parts.length === 3 && tenantID !== '' ? [{ tenantID, clusterID, nodeID }] : [];
  }
  const splits: GaugeIdentity[] = [];
  for (let at = 1; at < parts.length; at += 1) {
    const clusterID = parts.slice(0, at).join(':');
    const nodeID = parts.slice(at).join(':');
    splits.push({ tenantID: undefined, clusterID, nodeID });
  }
  if (splits.length <= 1) return splits;
  return splits.filter(({ clusterID, nodeID }) => clusters.has(clusterID) && nodes.has(nodeID));
}

function escapeRegExp(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}
