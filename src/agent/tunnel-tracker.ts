import type { ReportedTunnel } from '../grpc/report-message.ts';
import type { TunnelUpdates } from '../simulate/envoy-client.ts';
import type { LifecycleEvent, LifecycleTime } from './lifecycle-log.ts';
import { splitGaugeName, type GaugeIdentity, type TunnelGauges } from './tunnel-gauges.ts';

/** Why a tunnel that is up is not reported. */
export type SkipReason =
  /** Neither tenant isolation, nor a log line, nor `--default-tenant` names its tenant. */
  | 'unknown_tenant'
  /** Without tenant isolation, two tenants share one gauge. */
  | 'several_tenants'
  /** The name of the gauge can be split into a cluster and a node in more than one way, or in none. */
  | 'ambiguous_name'
  /** The name of the gauge does not have the parts that Envoy writes. */
  | 'malformed_name'
  /** An ID is not UTF-8, which a report cannot contain. */
  | 'invalid_utf8'
  /** Another cluster already has a tunnel of this name. */
  | 'duplicate_name';

/** With these, a tunnel may have been reported before, such as by an earlier process of this agent. */
const INCOMPLETE: ReadonlySet<SkipReason> = new Set(['unknown_tenant', 'ambiguous_name', 'malformed_name']);

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

/** A connection of which the log contains the start, and not yet the end. */
interface LoggedConnection {
  readonly tenantID: string;
  readonly time: LifecycleTime | undefined;
}

/** What the log contains about one gauge. */
interface LoggedTunnel {
  readonly identity: GaugeIdentity;
  readonly open: Map<string, LoggedConnection>;
  createdAt: LifecycleTime | undefined;
  /** Whether all connections had closed and another one has opened since the last poll. */
  replaced: boolean;
  /** Whether the log has named another connection since the last poll. */
  changed: boolean;
  /** Consecutive polls without the gauge. */
  absentPolls: number;
}

const NO_UPDATES: TunnelUpdates = { connections: [], disconnections: [] };

/**
 * The tunnels of one standard Envoy, as its contrib reporter would report them. The gauges decide which tunnels are up;
 * the log, if there is one, adds the tenant, the time, and tunnels that drop and return between two polls. A tunnel that
 * was reported before its log line arrived is corrected, by naming it in both lists.
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
  readonly #gaugeOfConnection = new Map<string, string>();
  #lastGauges: TunnelGauges | undefined;
  /** Whether the next poll may have a result although the gauges are the same. */
  #logChanged = false;

  constructor(options: TunnelTrackerOptions) {
    this.#options = options;
  }

  /** Returns all reported tunnels, in a new array. */
  all(): ReportedTunnel[] {
    return [...this.#reported.values()];
  }

  /** Whether a full push would name every tunnel that is up and can be reported. */
  get isComplete(): boolean {
    return !this.#skipped.some(({ reason }) => INCOMPLETE.has(reason));
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
    const { clusterID, connection, nodeID, tenantID, time } = event;
    this.#logChanged = true;
    const gauge = (this.#options.tenantIsolation ? [tenantID, clusterID, nodeID] : [clusterID, nodeID]).join(
      ':',
    );
    const previousGauge = this.#gaugeOfConnection.get(connection);
    if (event.type === 'closed') {
      if (previousGauge === gauge) this.#closeConnection(connection, gauge);
      return;
    }
    // Envoy reuses the number of a connection only after it has closed: the line about its end was lost.
    if (previousGauge !== undefined) this.#closeConnection(connection, previousGauge);
    let logged = this.#logged.get(gauge);
    if (logged === undefined) {
      const identity = {
        tenantID: this.#options.tenantIsolation ? tenantID : undefined,
        clusterID,
        nodeID,
      };
      logged = {
        identity,
        open: new Map(),
        createdAt: undefined,
        replaced: false,
        changed: true,
        absentPolls: 0,
      };
      this.#logged.set(gauge, logged);
    }
    if (logged.open.size === 0) {
      // Without a known connection before, the log line only arrived after the gauge.
      logged.replaced = logged.createdAt !== undefined && this.#reported.has(gauge);
      logged.createdAt = time;
    }
    logged.changed = true;
    logged.open.set(connection, { tenantID, time });
    this.#gaugeOfConnection.set(connection, gauge);
  }

  /**
   * Compares the gauges of a poll with those of the poll before, and returns what changed. Cheap if it is called with the
   * same object again.
   */
  onPoll(gauges: TunnelGauges): TunnelUpdates {
    if (gauges === this.#lastGauges && !this.#logChanged) return NO_UPDATES;
    this.#lastGauges = gauges;
    this.#logChanged = false;
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
      if (before !== undefined && !this.#isOutdated(before, logged)) {
        if (tenantsOf(logged).size > 1) this.#skipped.push({ gauge, reason: 'several_tenants' });
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
    this.#forgetEnded(gauges);
    return { connections, disconnections };
  }

  #closeConnection(connection: string, gauge: string): void {
    this.#gaugeOfConnection.delete(connection);
    const logged = this.#logged.get(gauge);
    if (logged?.open.delete(connection) === true) logged.changed = true;
  }

  /** A log line may run ahead of the gauge by a poll. A line that is lost must not be remembered forever. */
  #forgetEnded({ tunnels }: TunnelGauges): void {
    for (const [gauge, logged] of this.#logged) {
      logged.changed = false;
      if (tunnels.has(gauge)) {
        logged.absentPolls = 0;
        continue;
      }
      logged.absentPolls += 1;
      if (logged.absentPolls > 1 || logged.open.size === 0) {
        this.#logged.delete(gauge);
        for (const connection of logged.open.keys()) this.#gaugeOfConnection.delete(connection);
      } else this.#logChanged = true;
    }
  }

  /** Whether the log has changed what is known about a reported tunnel. */
  #isOutdated(tunnel: ReportedTunnel, logged: LoggedTunnel | undefined): boolean {
    if (logged === undefined || !logged.changed) return false;
    if (logged.replaced) return true;
    // The line about the end of a tunnel arrives before its gauge.
    if (logged.open.size === 0) return false;
    const { tenantID, clusterID, nodeID } = logged.identity;
    if (tunnel.createdAt === undefined && logged.createdAt !== undefined) return true;
    if (tenantID !== undefined) return false;
    const tenants = tenantsOf(logged);
    const isOtherTenant = tenants.size > 0 && !tenants.has(tunnel.tenantID);
    return isOtherTenant || tunnel.clusterID !== clusterID || tunnel.nodeID !== nodeID;
  }

  #identify(gauge: string, gauges: TunnelGauges): ReportedTunnel | SkipReason {
    const { tenantIsolation, defaultTenant } = this.#options;
    const logged = this.#logged.get(gauge);
    if (gauge.includes('\uFFFD')) return 'invalid_utf8';
    const splits = logged === undefined ? splitGaugeName(gauge, tenantIsolation, gauges) : [logged.identity];
    if (splits === undefined) return 'malformed_name';
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
    const tenants = tenantsOf(logged);
    if (tenants.size > 1) return 'several_tenants';
    const [tenantID = defaultTenant] = tenants;
    if (tenantID === undefined) return 'unknown_tenant';
    if (this.#gaugeOfName.has(nodeID)) return 'duplicate_name';
    return { name: nodeID, tenantID, clusterID, nodeID, createdAt };
  }
}

const NO_TENANTS: ReadonlySet<string> = new Set();

/** Returns the tenants that share a gauge, which are several only without tenant isolation. */
function tenantsOf(logged: LoggedTunnel | undefined): ReadonlySet<string> {
  if (logged === undefined) return NO_TENANTS;
  const tenants = new Set<string>();
  for (const { tenantID } of logged.open.values()) if (tenantID !== '') tenants.add(tenantID);
  return tenants;
}
