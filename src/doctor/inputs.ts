import type { ExpectationState } from '../core/expectation-status.ts';
import type { ReporterObject } from '../core/reporter-object.ts';
import type { ReplicaInfo } from '../cli/replicas.ts';

/** A fetched value, or why it could not be fetched. */
export type Fetched<T> =
  | { readonly value: T }
  /** One line: the request and why it failed. `forbidden`: the account lacks the permission. */
  | { readonly failure: string; readonly forbidden: boolean };

/** Everything that the checks of `doctor` evaluate; it is complete before the first check runs. */
export interface DoctorInputs {
  /** Wall clock of this machine, in milliseconds since 1970. */
  readonly nowMs: number;
  readonly namespace: string;
  readonly api: Fetched<ApiServerInfo>;
  /** False if the namespace does not exist; undefined if the account lacks the permission to read it. */
  readonly namespaceExists: boolean | undefined;
  readonly crds: Fetched<readonly CrdInfo[]>;
  /** The account whose permissions were reviewed, for messages. */
  readonly account: string;
  readonly permissions: Fetched<readonly PermissionInfo[]>;
  readonly replicas: Fetched<ReplicaInputs>;
  readonly reporters: Fetched<readonly ReporterObject[]>;
  readonly tunnels: Fetched<TunnelObjectCounts>;
  /** Undefined if the CRD is not installed. */
  readonly policies: Fetched<readonly PolicyInfo[]> | undefined;
  /** Undefined if the CRD is not installed. */
  readonly expectations: Fetched<readonly ExpectationInfo[]> | undefined;
  readonly mutatingAdmission: Fetched<readonly MutatingAdmission[]>;
  readonly certificates: readonly CertificateInfo[];
  readonly endpoints: readonly EndpointInfo[];
}

/** The API server, which responded. */
export interface ApiServerInfo {
  readonly server: string;
  /** `gitVersion` of `/version`, such as `v1.37.2`. */
  readonly version: string;
  readonly roundTripMs: number;
}

/** A CRD that this version bundles, compared with the installed one. */
export interface CrdInfo {
  readonly plural: string;
  /** The operator cannot run without it. */
  readonly required: boolean;
  /** It is served at the bundled version, with the status subresource. */
  readonly installed: boolean;
  /** Where the installed CRD differs from the bundled one. */
  readonly differences: readonly CrdDifference[];
}

/**
 * - `contract`: the default of `status` or the selectable fields, on which the operator or its users rely.
 * - `schema`: anything else, as between an older and a newer CRD.
 */
export interface CrdDifference {
  readonly severity: 'contract' | 'schema';
  /** Path in the schema, such as `spec.tenantID.maxLength`. */
  readonly path: string;
}

/** A permission that the operator needs, and whether the account has it. */
export interface PermissionInfo {
  /** `VERB RESOURCE[/SUBRESOURCE].GROUP`, such as `patch reversetunnels/status.reverse-tunnel.io`. */
  readonly permission: string;
  readonly allowed: boolean;
}

/** The operator processes. */
export interface ReplicaInputs {
  /** `alive`: the Lease was renewed less than 15 s ago, or while it was watched. */
  readonly replicas: readonly (ReplicaInfo & { readonly alive: boolean })[];
  /** Holder of the leader Lease; "" if there is none. */
  readonly leader: string;
}

/** Counts of ReverseTunnel objects and entries of slices. */
export interface TunnelObjectCounts {
  /** Number of objects and entries; a tunnel in both forms counts twice. */
  readonly tunnels: number;
  /** Number of entries of slices. */
  readonly entries: number;
  /** Objects that are Unknown, of reporters that are not connected. */
  readonly unknown: number;
  /** Objects that are Unknown although their reporter is connected: the next write sets them to Connected. */
  readonly returning: number;
  /** Number of orphaned objects by their reporter, written as `cluster/id`. */
  readonly orphaned: ReadonlyMap<string, number>;
  /** Number of objects whose `createdAt` was omitted, by the node ID of the initiator. */
  readonly createdInFuture: ReadonlyMap<string, number>;
}

/** A policy and its condition Accepted. */
export interface PolicyInfo {
  readonly name: string;
  /** Status of the condition; undefined until the leader has evaluated the policy. */
  readonly accepted: string | undefined;
  readonly conditionMessage: string;
}

/** An expectation, as its status shows it. */
export interface ExpectationInfo {
  readonly name: string;
  /** Undefined until the leader has evaluated the expectation. */
  readonly state: ExpectationState | undefined;
  /** The message of Ready. */
  readonly conditionMessage: string;
}

/** A webhook or policy that may rewrite the operator's objects. */
export interface MutatingAdmission {
  /** `MutatingWebhookConfiguration` or `MutatingAdmissionPolicy`. */
  readonly kind: string;
  readonly name: string;
  /** The webhook within the configuration; undefined for a policy. */
  readonly webhook: string | undefined;
  /** The operator's resources that it matches. */
  readonly resources: readonly string[];
}

/** A certificate, or why it could not be read. */
export type CertificateInfo = { /** Where the certificate comes from. */ readonly source: string } & (
  | {
      readonly subject: string;
      /** Milliseconds since 1970. */
      readonly notBeforeMs: number;
      readonly notAfterMs: number;
    }
  | { readonly failure: string }
);

/** The result of probing one endpoint of a replica. */
export interface EndpointInfo {
  /** The flag that names the endpoint. */
  readonly flag: string;
  readonly address: string;
  /** Undefined if the response is that of a ready replica. */
  readonly failure: string | undefined;
  /** Transport and state, for the message. */
  readonly detail: string;
}
