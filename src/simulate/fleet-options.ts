/** What a fleet is made of. `FLEET_DEFAULTS` has the rest. */
export interface FleetOptions {
  /** The reporting service, as host:port. */
  readonly address: string;
  readonly reporters: number;
  /** Tunnels each reporter holds at the start. */
  readonly tunnels: number;
  readonly tenants: number;
  readonly clusters: number;
  /** See `ChurnPlan`. */
  readonly churnPerSecond: number;
  readonly flapsPerSecond: number;
  /** Report interval until the server tells another. */
  readonly intervalMs: number;
  readonly connectRetryIntervalMs: number;
  readonly maxRetries: number;
  /** Whole, 0 to 2^32 - 1: chooses what churns. */
  readonly seed: number;
  readonly tenantIsolation: boolean;
  /** `node.cluster` of every reporter; `node.id` is responder-0, responder-1 … */
  readonly reporterCluster: string;
  /** See `EnvoyClientConfig`. */
  readonly nodeOnFirstOnly: boolean;
  /** Reporters start one after the other over this time, as Envoys do not all start at once. */
  readonly rampUpMs: number;
  /** All reporters on one HTTP/2 connection, instead of one each. */
  readonly sharedConnection: boolean;
  /** Lay a link under each reporter's connection that can be reset and left half-open. Costs CPU; not with `sharedConnection`. */
  readonly faultyLinks: boolean;
}

/** Envoy's own defaults where it has any; nothing changes by itself. */
export const FLEET_DEFAULTS: Omit<FleetOptions, 'address'> = {
  reporters: 1,
  tunnels: 100,
  tenants: 4,
  clusters: 2,
  churnPerSecond: 0,
  flapsPerSecond: 0,
  intervalMs: 5000,
  connectRetryIntervalMs: 5000,
  maxRetries: 5,
  seed: 1,
  tenantIsolation: false,
  reporterCluster: 'edge',
  nodeOnFirstOnly: false,
  rampUpMs: 0,
  sharedConnection: false,
  faultyLinks: false,
};
