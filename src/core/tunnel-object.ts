import { MANAGED_BY_LABELS, type Names } from './names.ts';
import { type ReporterId, reporterKey, stripTenantPrefix, type Tunnel } from './tunnel.ts';

/** A ReverseTunnel as the API server shows it: the parts that this project reads. */
export interface TunnelObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly spec: TunnelObjectSpec;
  readonly status?: TunnelObjectStatus;
}

/** Identity, as reported; `crds/reversetunnels.yaml` bounds each field. All but `createdAt` never change. */
export interface TunnelObjectSpec {
  readonly tunnelName: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  readonly reporter: { readonly id: string; readonly cluster: string };
  readonly createdAt?: string;
}

/** As stored, or the CRD's default where none was written. */
export interface TunnelObjectStatus {
  readonly state?: string;
  readonly conditions?: readonly TunnelObjectCondition[];
}

/** A condition of a row: without observedGeneration, and with a message only where there is something to say. */
export interface TunnelObjectCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message?: string;
  /** RFC 3339 to the second. Left out only in the CRD's default. */
  readonly lastTransitionTime?: string;
}

/** What a row is to be, without anything the API server adds. Its status is the CRD's default. */
export interface TunnelManifest {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: TunnelObjectSpec;
}

/** A row as it was last seen, kept small: there is one for each tunnel. */
export interface ObservedTunnel {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly tunnel: Tunnel;
  readonly drift: Drift;
}

/** In which ways a row differs from what its own spec derives; 0 when in none. */
export type Drift = number;
/** The bits of a `Drift`; more than one may be set. */
export const Drift = {
  /** Its name is not the one that its spec derives: somebody else made it. */
  name: 1,
  /** A label that this project writes is missing or says something else. */
  labels: 2,
  /** Its status is not that of a reported tunnel. */
  status: 4,
  /** It is being deleted, so for what is to come it is absent. */
  terminating: 8,
  /** Its status is that of a tunnel whose reporter is lost; `status` is set as well. */
  unknown: 16,
} as const;

const LABEL_PREFIX = 'reverse-tunnel.io';

/** The row for a tunnel of a reporter. The only place that says how a row looks. */
export function manifestFor(names: Names, reporter: ReporterId, tunnel: Tunnel): TunnelManifest {
  return {
    name: names.tunnelObjectName(reporter, tunnel),
    labels: labelsFor(names, reporter, tunnel),
    spec: {
      tunnelName: tunnel.name,
      tenantID: tunnel.tenantID,
      clusterID: tunnel.clusterID,
      nodeID: tunnel.nodeID,
      // `cluster` is written even when empty: a missing one and "" differ to the immutability rule.
      reporter: { id: reporter.id, cluster: reporter.cluster },
      ...(tunnel.createdAt === undefined ? {} : { createdAt: tunnel.createdAt }),
    },
  };
}

/** The labels of a row; others that it carries are nobody's business here. */
export function labelsFor(names: Names, reporter: ReporterId, tunnel: Tunnel): Record<string, string> {
  return {
    [`${LABEL_PREFIX}/tenant`]: names.labelValue(tunnel.tenantID),
    [`${LABEL_PREFIX}/cluster`]: names.labelValue(stripTenantPrefix(tunnel.tenantID, tunnel.clusterID)),
    [`${LABEL_PREFIX}/node`]: names.labelValue(stripTenantPrefix(tunnel.tenantID, tunnel.nodeID)),
    [`${LABEL_PREFIX}/reporter`]: names.labelValue(reporter.id),
    ...MANAGED_BY_LABELS,
  };
}

/** The status of a reported tunnel, as the CRD's default has it, with the time of the change. */
export function reportedStatus(transitionTime: string): TunnelObjectStatus {
  return {
    state: 'Connected',
    conditions: [{ type: 'Ready', status: 'True', reason: 'Reported', lastTransitionTime: transitionTime }],
  };
}

/** The status of a tunnel whose reporter has been lost for too long to know whether it is still up. */
export function unknownStatus(transitionTime: string): TunnelObjectStatus {
  return {
    state: 'Unknown',
    conditions: [
      { type: 'Ready', status: 'Unknown', reason: 'ReporterLost', lastTransitionTime: transitionTime },
    ],
  };
}

/** A row's place: its reporter and the tunnel's name there. Labels are no place: they are cut, and can be edited. */
export interface TunnelKey {
  readonly reporter: ReporterId;
  readonly key: string;
  readonly tunnelName: string;
}

/** Where a row belongs by its spec, whatever it is called. */
export function tunnelKeyOf(object: TunnelObject): TunnelKey {
  const reporter = { cluster: object.spec.reporter.cluster, id: object.spec.reporter.id };
  return { reporter, key: reporterKey(reporter), tunnelName: object.spec.tunnelName };
}

/**
 * A row as an object of the API shows it.
 *
 * @param sent what was sent, where the object is the answer to that: its name and labels need not be derived again
 */
export function observeTunnel(names: Names, object: TunnelObject, sent?: TunnelManifest): ObservedTunnel {
  const { metadata, spec } = object;
  const tunnel: Tunnel = {
    name: spec.tunnelName,
    tenantID: spec.tenantID,
    clusterID: spec.clusterID,
    nodeID: spec.nodeID,
    createdAt: spec.createdAt,
  };
  return {
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    tunnel,
    drift: detectDrift(names, object, tunnel, sent),
  };
}

function detectDrift(
  names: Names,
  object: TunnelObject,
  tunnel: Tunnel,
  sent: TunnelManifest | undefined,
): Drift {
  const { metadata, spec } = object;
  const derived = sent !== undefined && haveSameIdentity(sent.spec, spec) ? sent : undefined;
  const expected = derived?.labels ?? labelsFor(names, spec.reporter, tunnel);
  const name = derived?.name ?? names.tunnelObjectName(spec.reporter, tunnel);
  let labelsMatch = true;
  for (const label in expected) {
    if (metadata.labels?.[label] !== expected[label]) labelsMatch = false;
  }
  return (
    (metadata.name === name ? 0 : Drift.name) |
    (labelsMatch ? 0 : Drift.labels) |
    statusDrift(object.status) |
    (metadata.deletionTimestamp === undefined ? 0 : Drift.terminating)
  );
}

/** None for the CRD's default and for what `reportedStatus` writes; some when lost, emptied or edited. */
function statusDrift(status: TunnelObjectStatus | undefined): Drift {
  const [ready, ...others] = status?.conditions ?? [];
  if (others.length > 0 || ready?.type !== 'Ready') return Drift.status;
  if (status?.state === 'Connected' && ready.status === 'True' && ready.reason === 'Reported') return 0;
  const isUnknown =
    status?.state === 'Unknown' && ready.status === 'Unknown' && ready.reason === 'ReporterLost';
  return isUnknown ? Drift.status | Drift.unknown : Drift.status;
}

/** True when both derive one name and one set of labels. */
function haveSameIdentity(a: TunnelObjectSpec, b: TunnelObjectSpec): boolean {
  return (
    a.tunnelName === b.tunnelName &&
    a.tenantID === b.tenantID &&
    a.clusterID === b.clusterID &&
    a.nodeID === b.nodeID &&
    a.reporter.id === b.reporter.id &&
    a.reporter.cluster === b.reporter.cluster
  );
}
