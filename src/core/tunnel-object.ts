import { MANAGED_BY_LABELS, type Names } from './names.ts';
import { type ReporterId, reporterKey, stripTenantPrefix, type Tunnel } from './tunnel.ts';

/** The parts of a ReverseTunnel that this project reads. */
export interface TunnelObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly deletionTimestamp?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: TunnelObjectSpec;
  readonly status?: TunnelObjectStatus;
}

/** The reported identity, immutable except for `createdAt`; `crds/reversetunnels.yaml` limits each field. */
export interface TunnelObjectSpec {
  readonly tunnelName: string;
  readonly tenantID: string;
  readonly clusterID: string;
  readonly nodeID: string;
  readonly reporter: { readonly id: string; readonly cluster: string };
  readonly createdAt?: string;
}

/** The status as stored; the default of the CRD if it was never written. */
export interface TunnelObjectStatus {
  readonly state?: string;
  readonly conditions?: readonly TunnelObjectCondition[];
}

/** A condition of a ReverseTunnel. It has no observedGeneration, and a message is optional. */
export interface TunnelObjectCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message?: string;
  /** RFC 3339 with a precision of seconds. Missing only in the default of the CRD. */
  readonly lastTransitionTime?: string;
}

/** The desired object, without what the API server adds. Its status is the default of the CRD. */
export interface TunnelManifest {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly spec: TunnelObjectSpec;
}

/** An object as last observed, kept small because there is one per tunnel. Its `tunnel` has `createdAt` as reported. */
export interface ObservedTunnel {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly tunnel: Tunnel;
  readonly drift: Drift;
}

/** How an object differs from what is derived from its spec, as a set of bits; 0 if it does not. */
export type Drift = number;
/** The bits of a `Drift`; more than one may be set. */
export const Drift = {
  /** The name is not the one derived from the spec: the object was not created by this project. */
  name: 1,
  /** A label that this project writes is missing or different, or an annotation that contradicts `spec` is present. */
  labels: 2,
  /** The status is not that of a reported tunnel. */
  status: 4,
  /** The object is being deleted and therefore counts as absent. */
  terminating: 8,
  /** The status is that of a tunnel whose reporter is disconnected; `status` is set as well. */
  unknown: 16,
  /** The status is that of a tunnel that has closed; `status` is set as well. */
  closed: 32,
} as const;

const LABEL_PREFIX = 'reverse-tunnel.io';

/** The labels that show the identity of a tunnel. Each object has all of them. */
export const TUNNEL_LABELS = [
  `${LABEL_PREFIX}/tenant`,
  `${LABEL_PREFIX}/cluster`,
  `${LABEL_PREFIX}/node`,
  `${LABEL_PREFIX}/reporter`,
] as const;
export type TunnelLabel = (typeof TUNNEL_LABELS)[number];

/**
 * The annotation with the reported creation time of a tunnel whose `spec.createdAt` was omitted. With it, an object shows
 * everything that was reported, so no replica decides again whether the value is omitted.
 */
export const OMITTED_CREATED_AT = `${LABEL_PREFIX}/omitted-created-at`;

/** The state and the Ready condition of a tunnel, as written and as recognised when an object is observed. */
interface StatusContent {
  readonly state: string;
  readonly status: string;
  readonly reason: string;
}

/** The status of a reported tunnel; it equals the default of the CRD. */
const REPORTED: StatusContent = { state: 'Connected', status: 'True', reason: 'Reported' };
/** The status of a tunnel whose reporter is disconnected. */
const UNKNOWN: StatusContent = { state: 'Unknown', status: 'Unknown', reason: 'ReporterLost' };
/** The status of an object whose tunnel has closed, and which a finalizer keeps. */
const CLOSED: StatusContent = { state: 'Closed', status: 'False', reason: 'TunnelClosed' };

/**
 * Returns the desired object for a tunnel. The only place that defines its content.
 *
 * @param omitCreatedAt whether `createdAt` is recorded in an annotation instead of the spec
 */
export function manifestFor(
  names: Names,
  reporter: ReporterId,
  tunnel: Tunnel,
  omitCreatedAt = false,
): TunnelManifest {
  const { createdAt } = tunnel;
  return {
    name: names.tunnelObjectName(reporter, tunnel),
    labels: labelsFor(names, reporter, tunnel),
    ...(createdAt === undefined || !omitCreatedAt
      ? {}
      : { annotations: { [OMITTED_CREATED_AT]: createdAt } }),
    spec: {
      tunnelName: tunnel.name,
      tenantID: tunnel.tenantID,
      clusterID: tunnel.clusterID,
      nodeID: tunnel.nodeID,
      // `cluster` is written even if it is empty: to the immutability rule, a missing field differs from "".
      reporter: { id: reporter.id, cluster: reporter.cluster },
      ...(createdAt === undefined || omitCreatedAt ? {} : { createdAt }),
    },
  };
}

/** The mutable parts of a ReverseTunnel object. */
export interface TunnelObjectPatch {
  readonly labels: Readonly<Record<string, string>>;
  /** Null removes the field. */
  readonly createdAt: string | null;
  /** The annotation with an omitted `createdAt`; null removes it. */
  readonly omittedCreatedAt: string | null;
}

/** Returns the mutable parts of `manifestFor`. */
export function patchFor(
  names: Names,
  reporter: ReporterId,
  tunnel: Tunnel,
  omitCreatedAt: boolean,
): TunnelObjectPatch {
  const createdAt = tunnel.createdAt ?? null;
  return {
    labels: labelsFor(names, reporter, tunnel),
    createdAt: omitCreatedAt ? null : createdAt,
    omittedCreatedAt: omitCreatedAt ? createdAt : null,
  };
}

/** Returns the labels that this project writes; other labels of an object are ignored. */
export function labelsFor(
  names: Pick<Names, 'labelValue'>,
  reporter: ReporterId,
  tunnel: Tunnel,
): Record<string, string> {
  return {
    [`${LABEL_PREFIX}/tenant`]: tunnelLabel(names, `${LABEL_PREFIX}/tenant`, reporter, tunnel),
    [`${LABEL_PREFIX}/cluster`]: tunnelLabel(names, `${LABEL_PREFIX}/cluster`, reporter, tunnel),
    [`${LABEL_PREFIX}/node`]: tunnelLabel(names, `${LABEL_PREFIX}/node`, reporter, tunnel),
    [`${LABEL_PREFIX}/reporter`]: tunnelLabel(names, `${LABEL_PREFIX}/reporter`, reporter, tunnel),
    ...MANAGED_BY_LABELS,
  };
}

/** Returns the value of one of the labels of `labelsFor`. */
export function tunnelLabel(
  names: Pick<Names, 'labelValue'>,
  label: TunnelLabel,
  reporter: ReporterId,
  { tenantID, clusterID, nodeID }: Tunnel,
): string {
  switch (label) {
    case 'reverse-tunnel.io/tenant':
      return names.labelValue(tenantID);
    case 'reverse-tunnel.io/cluster':
      return names.labelValue(stripTenantPrefix(tenantID, clusterID));
    case 'reverse-tunnel.io/node':
      return names.labelValue(stripTenantPrefix(tenantID, nodeID));
    case 'reverse-tunnel.io/reporter':
      return names.labelValue(reporter.id);
  }
}

/** Returns the status of a reported tunnel: the default of the CRD, with the time of the change. */
export function reportedStatus(transitionTime: string): TunnelObjectStatus {
  return statusWith(REPORTED, transitionTime);
}

/** Returns the status of a tunnel whose reporter has been disconnected for `unknownAfter`. */
export function unknownStatus(transitionTime: string): TunnelObjectStatus {
  return statusWith(UNKNOWN, transitionTime);
}

/** Returns the status of an object that was deleted because its tunnel has closed, and that a finalizer keeps. */
export function closedStatus(transitionTime: string): TunnelObjectStatus {
  return statusWith(CLOSED, transitionTime);
}

function statusWith({ state, status, reason }: StatusContent, transitionTime: string): TunnelObjectStatus {
  return { state, conditions: [{ type: 'Ready', status, reason, lastTransitionTime: transitionTime }] };
}

/** The reporter and the tunnel name of an object. Never derived from labels, which are truncated and can be edited. */
export interface TunnelKey {
  readonly reporter: ReporterId;
  readonly key: string;
  readonly tunnelName: string;
}

/** Returns the key of an object from its spec, whatever its name is. */
export function tunnelKeyOf(object: TunnelObject): TunnelKey {
  const reporter = { cluster: object.spec.reporter.cluster, id: object.spec.reporter.id };
  return { reporter, key: reporterKey(reporter), tunnelName: object.spec.tunnelName };
}

/**
 * Converts an object of the API to an observed tunnel.
 *
 * @param sent the manifest, if the object is the response to its write: name and labels are then not derived again
 */
export function observeTunnel(names: Names, object: TunnelObject, sent?: TunnelManifest): ObservedTunnel {
  const { metadata, spec } = object;
  const tunnel: Tunnel = {
    name: spec.tunnelName,
    tenantID: spec.tenantID,
    clusterID: spec.clusterID,
    nodeID: spec.nodeID,
    createdAt: spec.createdAt ?? metadata.annotations?.[OMITTED_CREATED_AT],
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
  let labelsMatch = spec.createdAt === undefined || metadata.annotations?.[OMITTED_CREATED_AT] === undefined;
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

/** Returns 0 for the default of the CRD and for what `reportedStatus` writes. */
export function statusDrift(status: TunnelObjectStatus | undefined): Drift {
  if (hasContent(status, REPORTED)) return 0;
  if (hasContent(status, UNKNOWN)) return Drift.status | Drift.unknown;
  return hasContent(status, CLOSED) ? Drift.status | Drift.closed : Drift.status;
}

function hasContent(actual: TunnelObjectStatus | undefined, expected: StatusContent): boolean {
  const [ready, ...others] = actual?.conditions ?? [];
  return (
    others.length === 0 &&
    ready?.type === 'Ready' &&
    actual?.state === expected.state &&
    ready.status === expected.status &&
    ready.reason === expected.reason
  );
}

/** Returns true if the same name and labels are derived from both. */
export function haveSameIdentity(a: TunnelObjectSpec, b: TunnelObjectSpec): boolean {
  return (
    a.tunnelName === b.tunnelName &&
    a.tenantID === b.tenantID &&
    a.clusterID === b.clusterID &&
    a.nodeID === b.nodeID &&
    a.reporter.id === b.reporter.id &&
    a.reporter.cluster === b.reporter.cluster
  );
}
