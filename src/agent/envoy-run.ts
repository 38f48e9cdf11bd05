import type { Clock } from '../clock.ts';
import { reporterViolation } from '../core/report.ts';
import type { EnvoyAdmin, EnvoyInfo, TunnelExtension } from './envoy-admin.ts';
import type { TunnelGauges } from './tunnel-gauges.ts';
import { TunnelTracker } from './tunnel-tracker.ts';

/** Between two checks that Envoy is still the same process, while its gauges do not change. */
const CHECK_INTERVAL_MS = 10_000;
/** The uptime has whole seconds, and a response may take a while. */
const START_TOLERANCE_MS = 2500;
/** A wall clock that is adjusted gradually differs by less between two checks. */
const CLOCK_TOLERANCE_MS = 500;

/** Envoy's configuration does not allow the agent to work. One line that names what to change. */
export class UnsupportedEnvoyError extends Error {
  override readonly name = 'UnsupportedEnvoyError';
}

/** What identifies an Envoy and decides whether its tunnels can be reported. */
export interface EnvoyRunOptions {
  readonly admin: EnvoyAdmin;
  readonly clock: Clock;
  /** How long after its start its tunnels may return. */
  readonly settleTimeMs: number;
  readonly lifecycleLog: string | undefined;
  readonly defaultTenant: string | undefined;
}

/** One process of Envoy, from its start to its end, and its tunnels. */
export class EnvoyRun {
  readonly info: EnvoyInfo;
  readonly extension: TunnelExtension;
  readonly tracker: TunnelTracker;
  /** The gauges of the last successful poll. */
  gauges: TunnelGauges | undefined;
  readonly #options: EnvoyRunOptions;
  /** By the wall clock, which Envoy uses for its uptime as well: it stays the same if that clock is set. */
  readonly #startedWallMs: number;
  /** Monotonic. */
  readonly #settledAtMs: number;
  /** As of the last check. */
  #uptimeSeconds: number;
  /** Wall clock minus monotonic clock, which changes if the wall clock is set. */
  #clockOffsetMs: number;
  /** Monotonic. */
  #checkedAtMs: number;

  private constructor(options: EnvoyRunOptions, info: EnvoyInfo, extension: TunnelExtension) {
    const { clock, defaultTenant, settleTimeMs } = options;
    const nowMs = clock.monotonicMs();
    const uptimeMs = info.uptimeSeconds * 1000;
    this.#options = options;
    this.info = info;
    this.extension = extension;
    this.tracker = new TunnelTracker({ tenantIsolation: extension.tenantIsolation, defaultTenant });
    this.#startedWallMs = clock.wallMs() - uptimeMs;
    this.#settledAtMs = nowMs + settleTimeMs - Math.max(0, uptimeMs);
    this.#uptimeSeconds = info.uptimeSeconds;
    this.#clockOffsetMs = clock.wallMs() - nowMs;
    this.#checkedAtMs = nowMs;
  }

  /**
   * Identifies the Envoy behind the admin interface.
   *
   * @throws EnvoyAdminError, UnsupportedEnvoyError
   */
  static async identify(options: EnvoyRunOptions): Promise<EnvoyRun> {
    const info = await options.admin.readInfo();
    const [major = 0, minor = 0] = info.version.split('.').map(Number);
    if (major < 1 || (major === 1 && minor < 39)) {
      throw new UnsupportedEnvoyError(`Envoy ${info.version} has no tunnel gauges: use Envoy 1.39 or later`);
    }
    if (info.nodeId === '')
      throw new UnsupportedEnvoyError('Envoy has no node ID: set node.id in its bootstrap');
    const violation = reporterViolation(info.nodeId, info.nodeCluster);
    if (violation !== undefined) {
      throw new UnsupportedEnvoyError(`${violation.message}: change ${violation.field} in Envoy's bootstrap`);
    }
    const extension = await options.admin.readExtension();
    if (extension === undefined) {
      throw new UnsupportedEnvoyError(
        'Envoy accepts no reverse tunnels: add the bootstrap extension envoy.bootstrap.reverse_tunnel.upstream_socket_interface',
      );
    }
    if (!extension.detailedStats) {
      throw new UnsupportedEnvoyError(
        'Envoy does not count its tunnels: set enable_detailed_stats: true in its upstream_socket_interface',
      );
    }
    const { defaultTenant, lifecycleLog } = options;
    if (!extension.tenantIsolation && defaultTenant === undefined && lifecycleLog === undefined) {
      throw new UnsupportedEnvoyError(
        'the tenant of the tunnels is unknown: set --default-tenant or --lifecycle-log, or enable tenant isolation in Envoy',
      );
    }
    return new EnvoyRun(options, info, extension);
  }

  /** Time until its tunnels are reported; 0 once they are. */
  get settlesInMs(): number {
    return Math.max(0, this.#settledAtMs - this.#options.clock.monotonicMs());
  }

  /**
   * Whether an earlier process of Envoy wrote a log line with this time, and did not necessarily log the end of its
   * tunnel. Only for lines that were in the log before this process was identified.
   *
   * @param seconds since 1970; undefined if it is unknown
   */
  isEarlier(seconds: number | undefined): boolean {
    return seconds === undefined || seconds * 1000 < this.#startedWallMs - START_TOLERANCE_MS;
  }

  /** Makes the next `needsCheck` return true, because Envoy may have restarted. */
  requireCheck(): void {
    this.#checkedAtMs = Number.NEGATIVE_INFINITY;
  }

  /** Whether `isSameProcess` must be called before gauges are trusted. */
  needsCheck(gauges: TunnelGauges): boolean {
    return (
      gauges !== this.gauges ||
      this.settlesInMs > 0 ||
      this.#options.clock.monotonicMs() - this.#checkedAtMs >= CHECK_INTERVAL_MS
    );
  }

  /**
   * Whether the Envoy behind the admin interface is still this process, which its start time decides.
   *
   * @throws EnvoyAdminError
   */
  async isSameProcess(): Promise<boolean> {
    const { admin, clock } = this.#options;
    const info = await admin.readInfo();
    const nowMs = clock.monotonicMs();
    const wallMs = clock.wallMs();
    const { nodeId, nodeCluster, restartEpoch, version } = this.info;
    if (info.restartEpoch !== restartEpoch || info.version !== version) return false;
    if (info.nodeId !== nodeId || info.nodeCluster !== nodeCluster) return false;
    const startedWallMs = wallMs - info.uptimeSeconds * 1000;
    if (Math.abs(startedWallMs - this.#startedWallMs) > START_TOLERANCE_MS) return false;
    const clockWasSet = Math.abs(wallMs - nowMs - this.#clockOffsetMs) > CLOCK_TOLERANCE_MS;
    if (info.uptimeSeconds < this.#uptimeSeconds && !clockWasSet) return false;
    this.#uptimeSeconds = info.uptimeSeconds;
    this.#clockOffsetMs = wallMs - nowMs;
    this.#checkedAtMs = nowMs;
    return true;
  }
}
