import type { Condition } from './condition.ts';

/** A ReverseTunnelPolicy as the API server shows it; `crds/reversetunnelpolicies.yaml` says what each field means. */
export interface PolicyObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    /** One higher with each change of spec. */
    readonly generation: number;
  };
  readonly spec: PolicySpec;
  readonly status?: PolicyStatus;
}

export interface PolicySpec {
  readonly rules?: readonly RuleSpec[];
}

/** Who (`peers`) may report as whom (`reporters`) which tunnels (`tenants`, `clusters`), within which limits. */
export interface RuleSpec {
  readonly peers?: readonly PeerSpec[];
  readonly reporters?: { readonly ids?: readonly string[]; readonly clusters?: readonly string[] };
  readonly tenants?: readonly string[];
  /** Left out: every cluster. */
  readonly clusters?: readonly string[];
  readonly limits?: LimitsSpec;
}

/** Exactly one of the four. */
export interface PeerSpec {
  readonly spiffeID?: string;
  readonly dnsName?: string;
  readonly serviceAccount?: { readonly namespace: string; readonly name: string };
  readonly anybody?: boolean;
}

export interface LimitsSpec {
  readonly tunnels?: number;
  readonly reportsPerSecond?: number;
  readonly reportsBurst?: number;
}

export interface PolicyStatus {
  readonly observedGeneration?: number;
  readonly rules?: number;
  readonly conditions?: readonly Condition[];
}
