import type { Condition } from './kubernetes.ts';

/** The parts of a ReverseTunnelExpectation that this project reads; `crds/` describes each field. */
export interface ExpectationObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    /** Incremented with each change of spec. */
    readonly generation: number;
  };
  readonly spec: ExpectationSpec;
  readonly status?: ExpectationStatus;
}

/** What should be connected. The API server sets the defaults. */
export interface ExpectationSpec {
  readonly match: MatchSpec;
  readonly minTunnels?: number;
  readonly minReporters?: number;
  /** Such as `90s`; see `parseGracePeriod`. */
  readonly gracePeriod?: string;
  readonly paused?: boolean;
}

/** The tunnels that an expectation is about. Empty: all. */
export interface MatchSpec {
  readonly tenantID?: string;
  readonly clusterID?: string;
  readonly nodeID?: string;
  readonly nodes?: readonly string[];
  readonly selector?: SelectorSpec;
}

/** A label selector, as everywhere in Kubernetes. */
export interface SelectorSpec {
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly matchExpressions?: readonly {
    readonly key: string;
    readonly operator: string;
    readonly values?: readonly string[];
  }[];
}

/** Written by the leader. Numbers are absent while the expectation is not evaluated. */
export interface ExpectationStatus {
  readonly observedGeneration?: number;
  readonly tunnels?: number;
  readonly reporters?: number;
  readonly unknown?: number;
  readonly missing?: number;
  readonly missingNodes?: readonly string[];
  readonly since?: string;
  readonly conditions?: readonly Condition[];
}

/** A merge patch of the status; null removes a field. */
export type ExpectationStatusPatch = {
  readonly [Field in keyof ExpectationStatus]-?: ExpectationStatus[Field] | null;
};
