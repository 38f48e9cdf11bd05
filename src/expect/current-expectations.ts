import { compareStrings } from '../cli/format.ts';
import { reporterKey } from '../core/tunnel.ts';
import { tunnelsOfSlice } from '../cli/slice-tunnels.ts';
import type { Names } from '../core/names.ts';
import type { SliceObject } from '../core/slice-object.ts';
import {
  labelsFor,
  type TunnelObject,
  type TunnelObjectSpec,
  type TunnelObjectStatus,
} from '../core/tunnel-object.ts';

/** A tunnel that is connected now. It is small, as there may be 1,000,000. */
export interface ConnectedTunnel {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  /** Key of the reporter, see `reporterKey`. */
  readonly reporter: string;
}

/** Returns the tunnel of an object; undefined if it is not connected, so that no expectation is derived from it. */
export function connectedTunnel({ metadata, spec, status }: TunnelObject): ConnectedTunnel | undefined {
  return metadata.deletionTimestamp === undefined ? connectedOnly({ spec, status }) : undefined;
}

/**
 * Returns the connected tunnels of a slice that have the labels.
 *
 * @param matches whether the labels that the object of a tunnel would have are selected
 */
export function connectedTunnels(
  names: Names,
  slice: SliceObject,
  matches: (labels: Readonly<Record<string, string>>) => boolean,
): ConnectedTunnel[] {
  if (slice.metadata.deletionTimestamp !== undefined) return [];
  const selected = [...tunnelsOfSlice(slice)].filter(({ spec: { tunnelName: name, ...spec } }) =>
    matches(labelsFor(names, spec.reporter, { name, ...spec, createdAt: undefined })),
  );
  return selected.map(connectedOnly).filter((tunnel) => tunnel !== undefined);
}

function connectedOnly({
  spec,
  status,
}: {
  readonly spec: TunnelObjectSpec;
  readonly status: TunnelObjectStatus | undefined;
}): ConnectedTunnel | undefined {
  if (status?.state !== 'Connected') return undefined;
  const { tenantID, clusterID, nodeID, reporter } = spec;
  return { tenantID, clusterID, nodeID, reporter: reporterKey(reporter) };
}

/** An expectation to create. */
export interface ExpectationManifest {
  readonly apiVersion: string;
  readonly kind: 'ReverseTunnelExpectation';
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec: {
    readonly match: {
      readonly tenantID: string;
      readonly clusterID: string;
      readonly nodes: readonly string[];
    };
    readonly minReporters: number;
    readonly gracePeriod?: string;
  };
}

/** The limit of the CRD. */
const MAX_NODES = 1000;
/** Leaves room for a suffix; the limit for names is 253. */
const MAX_NAME_PREFIX = 200;

/**
 * Returns expectations that the connected tunnels satisfy: one per tenant, cluster and number of reporters, which lists the
 * nodes that are connected through that many, at most 1,000. The same tunnels always give the same result.
 *
 * @param gracePeriod undefined: the default of the CRD
 */
export function currentExpectations(
  tunnels: Iterable<ConnectedTunnel>,
  {
    apiVersion,
    namespace,
    gracePeriod,
  }: {
    readonly apiVersion: string;
    readonly namespace: string;
    readonly gracePeriod: string | undefined;
  },
): ExpectationManifest[] {
  const usedNames = new Set<string>();
  return groupNodes(tunnels).map(({ tenantID, clusterID, minReporters, nodes }) => ({
    apiVersion,
    kind: 'ReverseTunnelExpectation',
    metadata: { name: uniqueName(`${tenantID}-${clusterID}`, usedNames), namespace },
    spec: {
      match: { tenantID, clusterID, nodes },
      minReporters,
      ...(gracePeriod === undefined ? {} : { gracePeriod }),
    },
  }));
}

interface NodeGroup {
  readonly tenantID: string;
  readonly clusterID: string;
  readonly minReporters: number;
  readonly nodes: readonly string[];
}

function groupNodes(tunnels: Iterable<ConnectedTunnel>): NodeGroup[] {
  const reportersByNode = new Map<string, Set<string>>();
  for (const { tenantID, clusterID, nodeID, reporter } of tunnels) {
    const key = JSON.stringify([tenantID, clusterID, nodeID]);
    const reporters = reportersByNode.get(key);
    if (reporters === undefined) reportersByNode.set(key, new Set([reporter]));
    else reporters.add(reporter);
  }
  const nodesByGroup = new Map<string, string[]>();
  for (const [key, reporters] of reportersByNode) {
    const [tenantID, clusterID, nodeID] = JSON.parse(key) as [string, string, string];
    const group = JSON.stringify([tenantID, clusterID, reporters.size]);
    const nodes = nodesByGroup.get(group);
    if (nodes === undefined) nodesByGroup.set(group, [nodeID]);
    else nodes.push(nodeID);
  }
  const groups = [...nodesByGroup].flatMap(([key, unsorted]) => {
    const [tenantID, clusterID, minReporters] = JSON.parse(key) as [string, string, number];
    const nodes = unsorted.toSorted(compareStrings);
    const chunks = Array.from({ length: Math.ceil(nodes.length / MAX_NODES) }, (_, index) =>
      nodes.slice(index * MAX_NODES, (index + 1) * MAX_NODES),
    );
    return chunks.map((chunk) => ({ tenantID, clusterID, minReporters, nodes: chunk }));
  });
  // The most redundant nodes of a cluster come first; chunks keep their order.
  return groups.toSorted(
    (a, b) =>
      compareStrings(a.tenantID, b.tenantID) ||
      compareStrings(a.clusterID, b.clusterID) ||
      b.minReporters - a.minReporters,
  );
}

/** Returns a valid object name that was not used yet. */
function uniqueName(text: string, used: Set<string>): string {
  const valid = text
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .slice(0, MAX_NAME_PREFIX)
    .replaceAll(/^-+|-+$/g, '');
  const base = valid === '' ? 'tunnels' : valid;
  let name = base;
  for (let number = 2; used.has(name); number += 1) name = `${base}-${number}`;
  used.add(name);
  return name;
}
