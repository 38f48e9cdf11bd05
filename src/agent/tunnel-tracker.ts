import type { ReportedTunnel } from '../grpc/report-message.ts';
import type { TunnelUpdates } from '../simulate/envoy-client.ts';
import type { LifecycleEvent } from './lifecycle-log.ts';
import { splitGaugeName, type GaugeIdentity, type TunnelGauges } from './tunnel-gauges.ts';

/** Why a tunnel that is up is not reported. */
export type SkipReason =
  /** Neither tenant isolation, nor a log line, nor `--default-tenant` names its tenant. */
  | 'unknown_tenant'
  /** Without tenant isolation, two tenants share one gauge. */
  | 'several_tenants'
  /** The name of the gauge can be split into a cluster and a node in more than one way, or in none. */
  | 'ambiguous_name'
  /** Another cluster already has a tunnel of this name. */
  | 'duplicate_name';

/** A tunnel that is up and not, or not completely, reported. */
export interface SkippedTunnel {
  readonly gauge: string;
  readonly reason: SkipReason;
}

export interface TunnelTrackerOptions {
  readonly tenantIsolation: boolean;
  /** The tenant of a tunnel whose tenant is not known otherwise. */
  readonly defaultTenant: string | undefined;
}

/** What the log contains about one gauge. */
interface LoggedTunnel {
  readonly identity: GaugeIdentity;
  /** Open connections and their tenants. */
  readonly open: Map<string, string>;
  createdAt: LifecycleEvent['time'];
  /** Whether all connections had closed and another one has opened since the last poll. */
  replaced: boolean;
  /** Consecutive polls without the gauge. */
  absentPolls: number;
}

/**
 * The tunnels of one standard Envoy, as its contrib reporter would report them. The gauges decide which tunnels are up;
 * the log, if there is one, adds the tenant, the time, and tunnels that drop and return between two polls.
 *
 * The identities are those of the contrib reporter: with tenant isolation, name and node are `tenant:node`, and the
 * cluster is `tenant:cluster`; without it, the name is the node ID.
 */
export class TunnelTracker {
  readonly #options: TunnelTrackerOptions;
  /** Reported tunnels by gauge, and their gauges by name. */
  #reported = new Map<string, ReportedTunnel>();
  #gaugeOfName = new Map<string, string>();
  #skipped: SkippedTunnel[] = [];
  readonly #logged = new Map<string, LoggedTunnel>();

  constructor(options: TunnelTrackerOptions) {
    this.#options = options;
  }

  /** Returns all reported tunnels, in a new array. */
  all(): ReportedTunnel[] {
    return [...this.#reported.values()];
  }

  /** Whether every tunnel that is up is reported: the last poll knew the tenant and the name of each. */
  get isComplete(): boolean {
    return !this.#skipped.some(({ reason }) => reason === 'unknown_tenant' || reason === 'ambiguous_name');
  }

  get tunnelCount(): number {
    return this.#reported.size;
  }

  /** Tunnels that the last poll found up and that are not, or not completely, reported. */
  get skipped(): readonly SkippedTunnel[] {
    return this.#skipped;
  }

  /** Takes an event of the log into account, from the next poll on. */
  onLogEvent(event: LifecycleEvent): void {
    const gauge = this.#gaugeOf(event);
    let logged = this.#logged.get(gauge);
    if (logged === undefined) {
      if (event.type === 'closed') return;
      const { clusterID, nodeID } = event;
      const tenantID = this.#options.tenantIsolation ? event.tenantID : undefined;
      const identity = { tenantID, clusterID, nodeID };
      logged = { identity, open: new Map(), createdAt: undefined, replaced: false, absentPolls: 0 };
      this.#logged.set(gauge, logged);
    }
    if (event.type === 'closed') {
      logged.open.delete(event.connection);
      return;
    }
    if (logged.open.size === 0) {
      // Without a known connection before, the log line only arrived after the gauge.
      logged.replaced = logged.createdAt !== undefined && this.#reported.has(gauge);
      logged.createdAt = event.time;
    }
    logged.open.set(event.connection, event.tenantID);
  }

  /** Compares the gauges of a poll with those of the poll before, and returns what changed. */
  onPoll(gauges: TunnelGauges): TunnelUpdates {
    const connections: ReportedTunnel[] = [];
    const disconnections: string[] = [];
    const remove = (gauge: string, tunnel: ReportedTunnel): void => {
      this.#reported.delete(gauge);
      this.#gaugeOfName.delete(tunnel.name);
      disconnections.push(tunnel.name);
    };
    for (const [gauge, tunnel] of this.#reported) if (!gauges.tunnels.has(gauge)) remove(gauge, tunnel);
    this.#skipped = [];
    for (const gauge of gauges.tunnels.keys()) {
      const logged = this.#logged.get(gauge);
      const before = this.#reported.get(gauge);
      if (before !== undefined && logged?.replaced !== true) {
        if (this.#tenantsOf(logged).size > 1) this.#skipped.push({ gauge, reason: 'several_tenants' });
        continue;
      }
      // Dropped and returned between two polls: both lists name it, as Envoy's own reporter would.
      if (before !== undefined) remove(gauge, before);
      if (logged !== undefined) logged.replaced = false;
      const tunnel = this.#identify(gauge, gauges);
      if (typeof tunnel === 'string') {
        this.#skipped.push({ gauge, reason: tunnel });
        continue;
      }
      this.#reported.set(gauge, tunnel);
      this.#gaugeOfName.set(tunnel.name, gauge);
      connections.push(tunnel);
    }
    // A log line may run ahead of the gauge by a poll. A line that is lost must not be remembered forever.
    for (const [gauge, logged] of this.#logged) {
      logged.absentPolls = gauges.tunnels.has(gauge) ? 0 : logged.absentPolls + 1;
      if (logged.absentPolls > 1 || (logged.absentPolls > 0 && logged.open.size === 0))
        this.#logged.delete(gauge);
    }
    return { connections, disconnections };
  }

  #gaugeOf({ tenantID, clusterID, nodeID }: LifecycleEvent): string {
    const parts = this.#options.tenantIsolation ? [tenantID, clusterID, nodeID] : [clusterID, nodeID];
    return parts.join(':');
  }

  /** Returns the tenants that share a gauge, which are several only without tenant isolation. */
  #tenantsOf(logged: LoggedTunnel | undefined): ReadonlySet<string> {
    return new Set([...(logged?.open.values() ?? [])].filter((tenant) => tenant !== ''));
  }

  #identify(gauge: string, gauges: TunnelGauges): ReportedTunnel | SkipReason {
    const { tenantIsolation, defaultTenant } = this.#options;
    const logged = this.#logged.get(gauge);
    const splits = logged === undefined ? splitGaugeName(gauge, tenantIsolation, gauges) : [logged.identity];
    const [identity] = splits;
    if (identity === undefined || splits.length > 1) return 'ambiguous_name';
    const { clusterID, nodeID } = identity;
    const createdAt = logged?.createdAt;
    if (identity.tenantID !== undefined) {
      const scope = `${identity.tenantID}:`;
      const name = scope + nodeID;
      if (this.#gaugeOfName.has(name)) return 'duplicate_name';
      const { tenantID } = identity;
      return { name, tenantID, clusterID: scope + clusterID, nodeID: name, createdAt };
    }
    const tenants = this.#tenantsOf(logged);
    if (tenants.size > 1) return 'several_tenants';
    const [tenantID = defaultTenant] = tenants;
    if (tenantID === undefined) return 'unknown_tenant';
    if (this.#gaugeOfName.has(nodeID)) return 'duplicate_name';
    return { name: nodeID, tenantID, clusterID, nodeID, createdAt };
  }
}
