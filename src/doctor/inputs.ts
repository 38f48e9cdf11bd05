import type { ReporterObject } from '../core/reporter-object.ts';
import type { ReplicaInfo } from '../cli/replicas.ts';

/** What came of asking for something. */
export type Result<T> =
  | { readonly value: T }
  /** One line: what was asked for and why there was no answer. `forbidden`: the asking account may not know. */
  | { readonly failure: string; readonly forbidden: boolean };

/** Everything that `doctor` judges by, gathered before anything is judged. */
export interface DoctorInputs {
  /** Wall clock of this machine, milliseconds since 1970. */
  readonly nowMs: number;
  readonly namespace: string;
  readonly api: Result<ApiServerInfo>;
  /** False when there is no such namespace; undefined when the asking account may not know. */
  readonly namespaceExists: boolean | undefined;
  readonly crds: Result<readonly CrdInfo[]>;
  /** Whose rights were asked for, as a person says it. */
  readonly account: string;
  readonly permissions: Result<readonly PermissionInfo[]>;
  readonly replicas: Result<ReplicaInputs>;
  readonly reporters: Result<readonly ReporterObject[]>;
  readonly tunnels: Result<TunnelCounts>;
  /** Undefined: the kind is not served. */
  readonly policies: Result<readonly PolicyInfo[]> | undefined;
  readonly certificates: readonly CertificateInfo[];
  readonly endpoints: readonly EndpointInfo[];
}

/** The API server, which answered. */
export interface ApiServerInfo {
  readonly server: string;
  /** As `/version` says it: `v1.37.2`. */
  readonly version: string;
  readonly roundTripMs: number;
}

/** A kind that this version brings as a CRD, and what the API server makes of it. */
export interface CrdInfo {
  readonly plural: string;
  /** The operator does nothing without it. */
  readonly required: boolean;
  /** As this version needs it, with its status subresource. */
  readonly installed: boolean;
  /** Where the served kind is another than the shipped one. */
  readonly differences: readonly CrdDifference[];
}

/**
 * - `contract`: the default of the status or the selectable fields: the operator or its users count on it.
 * - `schema`: something else; an older or newer CRD.
 */
export interface CrdDifference {
  readonly severity: 'contract' | 'schema';
  /** Where in the schema, as `spec.tenantID.maxLength`. */
  readonly path: string;
}

/** One right that the operator uses, and whether the account has it. */
export interface PermissionInfo {
  /** As `patch reversetunnels/status.reverse-tunnel.io`. */
  readonly permission: string;
  readonly allowed: boolean;
}

/** The processes of the operator. */
export interface ReplicaInputs {
  /** `alive`: its Lease was renewed within 15 s, or while the doctor looked. */
  readonly replicas: readonly (ReplicaInfo & { readonly alive: boolean })[];
  /** Replica that leads; "" when nobody does. */
  readonly leader: string;
}

/** The rows, counted. */
export interface TunnelCounts {
  readonly tunnels: number;
  readonly unknown: number;
  /** Rows of reporters that have no object, by reporter (as `cluster/id`). */
  readonly orphaned: ReadonlyMap<string, number>;
}

/** A policy, and what the operator made of it. */
export interface PolicyInfo {
  readonly name: string;
  /** Status of the condition Accepted; undefined when nobody has judged it yet. */
  readonly accepted: string | undefined;
  readonly conditionMessage: string;
}

/** A certificate, or why there is none to look at. */
export type CertificateInfo = { /** Where it was found. */ readonly source: string } & (
  | {
      readonly subject: string;
      /** Milliseconds since 1970. */
      readonly notBeforeMs: number;
      readonly notAfterMs: number;
    }
  | { readonly failure: string }
);

/** An address of a replica that was tried. */
export interface EndpointInfo {
  /** The flag that named it. */
  readonly flag: string;
  readonly address: string;
  /** Undefined when it answered as a ready replica does; else what came instead. */
  readonly failure: string | undefined;
  /** What it said, for people. */
  readonly detail: string;
}
