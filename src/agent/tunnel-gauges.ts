import { quote } from '../core/text.ts';

/** The hidden gauges in which a standard Envoy counts its reverse tunnels. */

/** The tunnels counted by one poll. Names with a count of 0 are left out: Envoy keeps a gauge after its tunnel ends. */
export interface TunnelGauges {
  /** Open connections per `cluster:node`, or `tenant:cluster:node` under tenant isolation; each at least 1. */
  readonly tunnels: ReadonlyMap<string, number>;
  /** Clusters and nodes of initiators with at least one connection. They decide where an ID contains ":". */
  readonly clusters: ReadonlySet<string>;
  readonly nodes: ReadonlySet<string>;
  /** Tunnels and clusters with a count of 0: those that were up since Envoy started. */
  readonly endedTunnels: ReadonlySet<string>;
  readonly endedClusters: ReadonlySet<string>;
}

/** Names of an initiator as Envoy counts it. `tenantID` is known only under tenant isolation. */
export interface GaugeIdentity {
  readonly tenantID: string | undefined;
  readonly clusterID: string;
  readonly nodeID: string;
}

const COUNT = /^\d{1,15}$/;

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
  const endedTunnels = new Set<string>();
  const endedClusters = new Set<string>();
  if (text !== '' && !text.endsWith('\n'))
    return { error: 'the list of gauges ends in the middle of a line' };
  const prefix = `${statPrefix}.`;
  for (let start = 0, end = text.indexOf('\n'); end >= 0; start = end + 1, end = text.indexOf('\n', start)) {
    const line = text.slice(start, end);
    if (line === '') continue;
    const separator = line.lastIndexOf(': ');
    const dot = line.indexOf('.', prefix.length);
    const digits = line.slice(separator + 2);
    const kind = line.slice(prefix.length, dot);
    const isTunnel = kind === 'tunnels';
    if (
      separator < dot ||
      !COUNT.test(digits) ||
      !line.startsWith(prefix) ||
      !(isTunnel || kind === 'clusters' || kind === 'nodes')
    ) {
      return { error: `not a tunnel gauge: ${quote(line)}` };
    }
    const subject = line.slice(dot + 1, separator);
    const count = Number(digits);
    if (isTunnel) {
      if (count > 0) tunnels.set(subject, count);
      else endedTunnels.add(subject);
    } else if (kind === 'clusters') (count > 0 ? clusters : endedClusters).add(subject);
    else if (count > 0) nodes.add(subject);
  }
  return { tunnels, clusters, nodes, endedTunnels, endedClusters };
}

/**
 * Returns what shows that a list of gauges lacks some; undefined if it is complete as far as that can be seen.
 *
 * @param previous an earlier list of the same process of Envoy; undefined for the first one
 */
export function missingGauge(
  gauges: TunnelGauges,
  previous: TunnelGauges | undefined,
  tenantIsolation: boolean,
): string | undefined {
  // Envoy keeps each gauge until it ends.
  for (const cluster of [...(previous?.clusters ?? []), ...(previous?.endedClusters ?? [])]) {
    if (!gauges.clusters.has(cluster) && !gauges.endedClusters.has(cluster)) {
      return `the gauge of cluster ${quote(cluster)} has disappeared`;
    }
  }
  // Envoy counts each connection by cluster, node and tunnel. Ended tunnels count, because a tunnel may end while
  // Envoy writes the list.
  const clusters = new Set(gauges.clusters);
  const nodes = new Set(gauges.nodes);
  for (const names of [gauges.tunnels.keys(), gauges.endedTunnels]) {
    for (const name of names) {
      if (clusters.size + nodes.size === 0) return undefined;
      const start = tenantIsolation ? name.indexOf(':') + 1 : 0;
      for (let at = name.indexOf(':', start); at >= 0; at = name.indexOf(':', at + 1)) {
        clusters.delete(name.slice(start, at));
        nodes.delete(name.slice(at + 1));
      }
    }
  }
  const [cluster] = clusters;
  if (cluster !== undefined) return `cluster ${quote(cluster)} has connections, but no tunnel`;
  const [node] = nodes;
  return node === undefined ? undefined : `node ${quote(node)} has connections, but no tunnel`;
}

/**
 * Splits the name of a gauge into its parts. Without tenant isolation an ID may contain ":"; the split is then the one
 * whose cluster and node both have gauges of their own.
 *
 * @returns all splits that are possible: none, or more than one, if the gauges do not decide; undefined if the name does
 *   not have the parts that Envoy writes
 */
export function splitGaugeName(
  name: string,
  tenantIsolation: boolean,
  { clusters, nodes }: Pick<TunnelGauges, 'clusters' | 'nodes'>,
): readonly GaugeIdentity[] | undefined {
  const parts = name.split(':');
  if (tenantIsolation) {
    // Envoy rejects IDs that contain ":" under tenant isolation.
    const [tenantID = '', clusterID = '', nodeID = ''] = parts;
    return parts.length === 3 && !parts.includes('') ? [{ tenantID, clusterID, nodeID }] : undefined;
  }
  const splits: GaugeIdentity[] = [];
  for (let at = 1; at < parts.length; at += 1) {
    const clusterID = parts.slice(0, at).join(':');
    const nodeID = parts.slice(at).join(':');
    if (clusterID !== '' && nodeID !== '') splits.push({ tenantID: undefined, clusterID, nodeID });
  }
  if (splits.length === 0) return undefined;
  if (splits.length === 1) return splits;
  return splits.filter(({ clusterID, nodeID }) => clusters.has(clusterID) && nodes.has(nodeID));
}

function escapeRegExp(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}
