import type { Condition } from './kubernetes.ts';
import type { ReporterId } from './tunnel.ts';

/** A ReverseTunnelReporter as the API server shows it: the parts that this project reads. */
export interface ReporterObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    /** It has been deleted, and stands until its finalizers are taken away. */
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly id: string; readonly cluster: string };
  readonly status?: ReporterStatus;
}

/** `crds/reversetunnelreporters.yaml` says what each field means. */
export interface ReporterStatus {
  readonly owner?: Owner;
  readonly connectedSince?: string;
  readonly lastFullPush?: { readonly time: string; readonly tunnels: number };
  readonly tunnels?: TunnelCounts;
  readonly reportIntervalSeconds?: number;
  readonly envoyVersion?: string;
  readonly locality?: Locality;
  readonly observedGeneration?: number;
  readonly conditions?: readonly Condition[];
}

/** A status as it is written: null takes a field away, in a merge patch. */
export type ReporterStatusPatch = {
  readonly [Field in keyof ReporterStatus]?: ReporterStatus[Field] | null;
};

/** Who may write a reporter's rows: one process, by the claim of that number. */
export interface Owner {
  readonly replica: string;
  readonly epoch: number;
}

/**
 * `reported` are all that the reporter holds, `applied` those that are rows, `rejected` those rejected. The rest is
 * under way.
 */
export interface TunnelCounts {
  readonly reported: number;
  readonly applied: number;
  readonly rejected: number;
}

/** Where an Envoy runs; parts that it did not tell are left out. */
export interface Locality {
  readonly region?: string;
  readonly zone?: string;
  readonly subZone?: string;
}

/** What decides about ownership, of a reporter's object at one version. */
export interface ObservedReporter {
  readonly uid: string;
  readonly resourceVersion: string;
  /** Undefined before the first claim. */
  readonly owner: Owner | undefined;
  /** True when the owner says that it holds a stream. */
  readonly connected: boolean;
}

/** What the object says of its owner, in the words of `core/ownership`. */
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

/** Whose object it is. */
export function reporterIdOf(object: ReporterObject): ReporterId {
  return { cluster: object.spec.cluster, id: object.spec.id };
}
