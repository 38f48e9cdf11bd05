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

/** A policy without rules allows nothing. */
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
  readonly any?: boolean;
}

/**
 * Bounds of what one rule allows, each left out where there is none. Of several rules the widest counts (`grantOf`).
 */
export interface LimitsSpec {
  readonly tunnels?: number;
  readonly reportsPerSecond?: number;
  readonly reportsBurst?: number;
}

/** Written by the leader: of how many rules, of which generation, and whether they are in force. */
export interface PolicyStatus {
  readonly observedGeneration?: number;
  readonly rules?: number;
  readonly conditions?: readonly Condition[];
}
