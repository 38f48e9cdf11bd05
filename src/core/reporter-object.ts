import type { Condition } from './kubernetes.ts';
import { MANAGED_BY_LABELS } from './names.ts';
import type { ReporterId } from './tunnel.ts';

/** The parts of a ReverseTunnelReporter that this project reads. */
export interface ReporterObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    /** Set once the object has been deleted, until its finalizers are removed. */
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly id: string; readonly cluster: string };
  readonly status?: ReporterStatus;
}

/** A reporter object to create. */
export interface ReporterManifest {
  readonly metadata: {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
  };
  readonly spec: ReporterObject['spec'];
}

/**
 * Keeps Argo CD from refreshing an Application for each change of an object that it does not manage. ReverseTunnel
 * objects do not carry it: see decision 7.
 */
const ARGOCD_ANNOTATIONS = { 'argocd.argoproj.io/ignore-resource-updates': 'true' };

/** Returns the desired reporter object, without its status. */
export function reporterManifest(name: string, { id, cluster }: ReporterId): ReporterManifest {
  return {
    metadata: { name, labels: MANAGED_BY_LABELS, annotations: ARGOCD_ANNOTATIONS },
    spec: { id, cluster },
  };
}

/** The status of a reporter; `crds/reversetunnelreporters.yaml` describes each field. */
export interface ReporterStatus {
  readonly owner?: Owner;
  readonly connectedSince?: string;
  readonly lastFullPush?: { readonly time: string; readonly tunnels: number };
  readonly tunnels?: TunnelCounts;
  readonly reportIntervalSeconds?: number;
  readonly envoyVersion?: string;
  readonly locality?: Locality;
  /** The newest first, at most `MAX_RECENT_DISCONNECTS`. */
  readonly recentDisconnects?: readonly ReporterDisconnect[];
  readonly observedGeneration?: number;
  readonly conditions?: readonly Condition[];
}

/** The end of a reporter's stream. */
export interface ReporterDisconnect {
  /** RFC 3339 with a precision of seconds. */
  readonly time: string;
  readonly reason: string;
  /** How long the stream had been connected, in whole seconds. */
  readonly durationSeconds: number;
}

/** A merge patch of the status; null removes a field. */
export type ReporterStatusPatch = {
  readonly [Field in keyof ReporterStatus]?: ReporterStatus[Field] | null;
};

/** The process that may write a reporter's objects, and the number of its claim. */
export interface Owner {
  readonly replica: string;
  readonly epoch: number;
}

/**
 * Numbers of tunnels: `reported` counts all that the reporter holds, `applied` those with an object, `rejected` those
 * that were rejected. The writes of the others are pending.
 */
export interface TunnelCounts {
  readonly reported: number;
  readonly applied: number;
  readonly rejected: number;
}

/** The locality that an Envoy reports; parts that it does not report are omitted. */
export interface Locality {
  readonly region?: string;
  readonly zone?: string;
  readonly subZone?: string;
}

/** The parts of a reporter object at one version that determine ownership. */
export interface ObservedReporter {
  readonly uid: string;
  readonly resourceVersion: string;
  /** Undefined before the first claim. */
  readonly owner: Owner | undefined;
  /** True if the owner reports that it holds a stream. */
  readonly connected: boolean;
}

/** Extracts the parts that determine ownership. */
export function observeReporter(object: ReporterObject): ObservedReporter {
  const { metadata, status } = object;
  return {
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    owner: status?.owner,
    connected:
      status?.conditions?.some(
        (condition) => condition.type === 'Connected' && condition.status === 'True',
      ) ?? false,
  };
}

/** Returns the reporter that an object describes. */
export function reporterIdOf(object: ReporterObject): ReporterId {
  return { cluster: object.spec.cluster, id: object.spec.id };
}
