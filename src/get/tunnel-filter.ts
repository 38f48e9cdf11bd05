import type { Names } from '../core/names.ts';
import { stripTenantPrefix } from '../core/tunnel.ts';
import type { ListedTunnel } from './listed-tunnel.ts';
import type { SelectorRequirement } from '../cli/label-selector.ts';

/** The filters of the command line; undefined matches every tunnel. */
export interface FilterFlags {
  /** The name of the object that the tunnel has or would have. */
  readonly name?: string | undefined;
  readonly tenant: string | undefined;
  /** The cluster or node ID as reported, or without the prefix that Envoy adds under tenant isolation. */
  readonly cluster: string | undefined;
  readonly node: string | undefined;
  /** ID of the reporter. */
  readonly reporter: string | undefined;
  readonly state: string | undefined;
}

/** The selectors of a list or watch. */
export interface ServerSelectors {
  readonly labelSelector: string | undefined;
  readonly fieldSelector: string | undefined;
}

/** Which tunnels are shown. */
export interface TunnelFilter {
  /** What the API server selects. It may select more than `matches`. */
  readonly objects: ServerSelectors;
  readonly slices: ServerSelectors;
  readonly matchesName: (objectName: string) => boolean;
  matches(tunnel: ListedTunnel): boolean;
}

/** Labels of a slice that each of its entries has as well. */
const SLICE_LABELS: ReadonlySet<string> = new Set([
  'reverse-tunnel.io/tenant',
  'reverse-tunnel.io/reporter',
  'app.kubernetes.io/managed-by',
]);

/** Returns the filter for the flags and the label selector, all of which must match. */
export function tunnelFilter(
  names: Names,
  { name, tenant, cluster, node, reporter, state }: FilterFlags,
  requirements: readonly SelectorRequirement[],
): TunnelFilter {
  const fields = [
    ...fieldRequirement('spec.tenantID', tenant),
    ...fieldRequirement('spec.reporter.id', reporter),
  ];
  const matchesName = (objectName: string): boolean => name === undefined || objectName === name;
  return {
    objects: {
      labelSelector: joined([
        ...requirements.map(({ text }) => text),
        ...labelRequirement(names, 'reverse-tunnel.io/cluster', cluster),
        ...labelRequirement(names, 'reverse-tunnel.io/node', node),
      ]),
      fieldSelector: joined([
        ...fieldRequirement('metadata.name', name),
        ...fields,
        ...fieldRequirement('status.state', state),
      ]),
    },
    slices: {
      labelSelector: joined(requirements.filter(({ key }) => SLICE_LABELS.has(key)).map(({ text }) => text)),
      fieldSelector: joined(fields),
    },
    matchesName,
    matches({ metadata, spec, status }) {
      const labels = metadata.labels ?? {};
      return (
        matchesName(metadata.name) &&
        (tenant === undefined || spec.tenantID === tenant) &&
        isIdentifier(spec.tenantID, spec.clusterID, cluster) &&
        isIdentifier(spec.tenantID, spec.nodeID, node) &&
        (reporter === undefined || spec.reporter.id === reporter) &&
        (state === undefined || status?.state === state) &&
        requirements.every(({ isMet }) => isMet(labels))
      );
    },
  };
}

function isIdentifier(tenantID: string, value: string, wanted: string | undefined): boolean {
  return wanted === undefined || value === wanted || stripTenantPrefix(tenantID, value) === wanted;
}

function fieldRequirement(field: string, value: string | undefined): string[] {
  return value === undefined ? [] : [`${field}=${value.replaceAll(/[\\,=]/g, String.raw`\$&`)}`];
}

/** The label omits the tenant, whose ID is not known here and may contain colons. */
function labelRequirement(names: Names, label: string, value: string | undefined): string[] {
  if (value === undefined) return [];
  const candidates = new Set([names.labelValue(value)]);
  for (let colon = value.indexOf(':'); colon !== -1; colon = value.indexOf(':', colon + 1))
    if (colon + 1 < value.length) candidates.add(names.labelValue(value.slice(colon + 1)));
  return [`${label} in (${[...candidates].join(',')})`];
}

function joined(requirements: readonly string[]): string | undefined {
  return requirements.length === 0 ? undefined : requirements.join(',');
}
