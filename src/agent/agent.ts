import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import type { ReportingConnection } from '../grpc/reporting-client.ts';
import { createLogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import { createEnvoyClient, type ClientEvent, type EnvoyClient } from '../simulate/envoy-client.ts';
import { EnvoyAdminError, type EnvoyAdmin, type EnvoyInfo, type TunnelExtension } from './envoy-admin.ts';
import { parseLifecycleLine } from './lifecycle-log.ts';
import { LogFollower, LogFollowerError } from './log-follower.ts';
import { SKIP_REASONS, type AgentMetrics } from './agent-metrics.ts';
import { TunnelTracker, type SkipReason } from './tunnel-tracker.ts';

/** Envoy's defaults of its own client, and the interval until the operator sends one. */
const SEND_INTERVAL_MS = 5000;
const CONNECT_RETRY_INTERVAL_MS = 5000;
const MAX_RETRIES = 5;
const MAX_BUFFER_COUNT = 1_000_000;
/** Maximum time for a poll, including the log. The tunnels that are reported are out of date after it. */
const MAX_POLL_TIMEOUT_MS = 5000;
const MIN_POLL_TIMEOUT_MS = 1000;
/** How long `stop` waits for a poll that is under way, such as a read of a file system that hangs. */
const STOP_TIMEOUT_MS = 1000;
/** Between two polls that log lines caused. Envoy writes its log in bursts. */
const MIN_POLL_GAP_MS = 20;
/** The uptime has whole seconds, and a response may take a while. */
const RESTART_TOLERANCE_MS = 2500;

/** How to change a configuration for a tunnel that cannot be reported. */
const SKIP_HINTS: Readonly<Record<SkipReason, string>> = {
  unknown_tenant: 'set --default-tenant or --lifecycle-log, or enable tenant isolation in Envoy',
  several_tenants: 'enable tenant isolation in Envoy (enable_tenant_isolation)',
  ambiguous_name: 'avoid ":" in the cluster and node IDs of initiators, or set --lifecycle-log',
  duplicate_name: 'give each initiator a node ID of its own, or enable tenant isolation in Envoy',
};

/** What the agent runs with. */
export interface AgentOptions {
  /** 100 ms to 1 min. Also the timeout of a poll, but at least 1 s and at most 5 s. */
  readonly pollIntervalMs: number;
  /** How long after a start of Envoy nothing is reported, so that its tunnels can return: 0 to 10 min. */
  readonly settleTimeMs: number;
  /** Path of the lifecycle log, or undefined. */
  readonly lifecycleLog: string | undefined;
  /** Tenant of tunnels whose tenant Envoy does not report. */
  readonly defaultTenant: string | undefined;
  readonly admin: EnvoyAdmin;
  readonly connection: ReportingConnection;
  readonly clock: Clock;
  /** From 0 to 1, for jitter. */
  readonly random: () => number;
  readonly metrics: AgentMetrics;
  readonly log: Log;
}

/** Envoy's configuration does not allow the agent to work. One line that names what to change. */
class UnsupportedEnvoyError extends Error {
  override readonly name = 'UnsupportedEnvoyError';
}

/** One process of Envoy, from its start to its end. */
interface EnvoyRun {
  readonly info: EnvoyInfo;
  readonly extension: TunnelExtension;
  /** When it started, to the second: by the wall clock, and monotonic. */
  readonly startedWallMs: number;
  readonly startedMonotonicMs: number;
  /** As of the last poll. */
  uptimeSeconds: number;
  readonly tracker: TunnelTracker;
}

/**
 * Reports the tunnels of a standard Envoy. States:
 *
 * - *not reporting*: Envoy cannot be read, its configuration does not suffice, or it started less than `settleTimeMs`
 *   ago. There is no stream, so the operator reports the reporter as Disconnected and keeps its objects for a while.
 * - *reporting*: every poll succeeds. The stream is that of Envoy's own client (`simulate/envoy-client`).
 *
 * A poll that fails ends *reporting* at once, because its list of tunnels is out of date from then on. A restart of
 * Envoy ends it as well: a full push that lacks the tunnels that are about to return would delete their objects.
 */
export class Agent {
  readonly #options: AgentOptions;
  readonly #throttled;
  readonly #follower: LogFollower | undefined;
  readonly #connectRetryIntervalMs: number;
  #run: EnvoyRun | undefined;
  #client: EnvoyClient | undefined;
  /** Whether the current stream began with a full push. */
  #sentFullPush = false;
  #notReady: string | undefined = 'Envoy has not been polled yet';
  #stopped = false;
  #cancelPoll: (() => void) | undefined;
  #polling: Promise<void> | undefined;
  #pollRequested = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
    const { lifecycleLog, random } = options;
    if (lifecycleLog !== undefined) {
      this.#follower = new LogFollower(lifecycleLog, (line) => this.#onLogLine(line));
    }
    // Agents that lose the same operator must not return at the same moment.
    this.#connectRetryIntervalMs = CONNECT_RETRY_INTERVAL_MS * (0.8 + 0.4 * random());
  }

  /** Returns why the agent is not ready; undefined while the operator acknowledges its reports. */
  get notReady(): string | undefined {
    if (this.#notReady !== undefined) return this.#notReady;
    return this.#client?.connected() === true ? undefined : 'the operator has not acknowledged a report yet';
  }

  start(): void {
    void this.#poll();
  }

  /** Ends the stream and all timers. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancelPoll?.();
    this.#stopReporting();
    // Ends a poll that is under way.
    this.#options.admin.close();
    this.#options.connection.close();
    const { promise: timeout, resolve } = Promise.withResolvers<void>();
    const cancel = this.#options.clock.setTimer(STOP_TIMEOUT_MS, resolve);
    const polled = this.#polling ?? Promise.resolve();
    await Promise.race([polled.then(() => this.#follower?.close()), timeout]);
    cancel();
  }

  async #poll(): Promise<void> {
    this.#pollRequested = false;
    const { clock, log, pollIntervalMs } = this.#options;
    const timeoutMs = Math.min(Math.max(MIN_POLL_TIMEOUT_MS, pollIntervalMs), MAX_POLL_TIMEOUT_MS);
    const cancelTimeout = clock.setTimer(timeoutMs, () => {
      this.#notReady = `a poll takes longer than ${timeoutMs} ms`;
      this.#stopReporting();
      log.error({ timeoutMs }, 'a poll of Envoy takes too long; reports are paused');
    });
    this.#polling = this.#pollOnce();
    await this.#polling;
    cancelTimeout();
    if (this.#stopped) return;
    this.#schedulePoll(this.#pollRequested ? MIN_POLL_GAP_MS : pollIntervalMs);
  }

  #schedulePoll(delayMs: number): void {
    this.#cancelPoll?.();
    this.#cancelPoll = this.#options.clock.setTimer(delayMs, () => void this.#poll());
  }

  /** Polls as soon as possible, because the log contains a change. */
  #requestPoll(): void {
    if (this.#pollRequested || this.#stopped) return;
    this.#pollRequested = true;
    // A poll that is under way schedules the next one itself.
    if (this.#polling === undefined) this.#schedulePoll(MIN_POLL_GAP_MS);
  }

  async #pollOnce(): Promise<void> {
    const { clock, metrics, log } = this.#options;
    const startedMs = clock.monotonicMs();
    try {
      // Before Envoy is known, its lines cannot be distinguished from those of an earlier process.
      if (this.#run !== undefined) await this.#readLog(this.#run);
      await this.#readEnvoy();
      metrics.polls.inc({ outcome: 'ok' });
      metrics.pollSeconds.observe((clock.monotonicMs() - startedMs) / 1000);
    } catch (error) {
      metrics.polls.inc({ outcome: 'error' });
      this.#stopReporting();
      if (this.#stopped) return;
      const isExpected =
        error instanceof EnvoyAdminError ||
        error instanceof UnsupportedEnvoyError ||
        error instanceof LogFollowerError;
      this.#notReady = errorMessage(error);
      const fields = isExpected ? { error: errorMessage(error) } : { err: error };
      this.#throttled(`poll ${errorMessage(error)}`, (suppressed) =>
        log.error({ ...fields, ...suppressed }, 'failed to poll Envoy; reports are paused'),
      );
    } finally {
      this.#polling = undefined;
    }
  }

  async #readLog({ extension }: EnvoyRun): Promise<void> {
    if (this.#follower === undefined) return;
    this.#follower.watch(() => this.#requestPoll());
    try {
      await this.#follower.read();
    } catch (error) {
      if (!(error instanceof LogFollowerError)) throw error;
      // Otherwise nothing names the tenants, and the tunnels could not be reported.
      if (!extension.tenantIsolation && this.#options.defaultTenant === undefined) throw error;
      this.#throttled(`log ${error.message}`, (suppressed) =>
        this.#options.log.warn(
          { error: error.message, ...suppressed },
          'failed to read the lifecycle log; polling only',
        ),
      );
    }
  }

  async #readEnvoy(): Promise<void> {
    const { admin, clock, settleTimeMs } = this.#options;
    const run = this.#run ?? (await this.#identifyEnvoy());
    if (this.#stopped) return;
    const gauges = await admin.readGauges(run.extension.statPrefix);
    // After the gauges: if Envoy restarted in between, these gauges may be those of the new process.
    const info = await admin.readInfo();
    if (this.#stopped) return;
    if (isOtherProcess(run, info, clock.monotonicMs())) {
      this.#onEnvoyRestart(info);
      return;
    }
    run.uptimeSeconds = info.uptimeSeconds;
    const updates = run.tracker.onPoll(gauges);
    this.#observeTracker(run.tracker);
    if (info.uptimeSeconds * 1000 < settleTimeMs) {
      this.#notReady = `Envoy started ${info.uptimeSeconds} s ago; waiting ${settleTimeMs / 1000} s for its tunnels to return`;
      return;
    }
    this.#notReady = undefined;
    // A full push follows once every tunnel can be reported.
    if (this.#client !== undefined && !this.#sentFullPush && run.tracker.isComplete) this.#stopReporting();
    if (this.#client === undefined) this.#startReporting(run);
    else if (updates.connections.length + updates.disconnections.length > 0) this.#client.receive(updates);
    this.#options.metrics.connected.set(this.#client?.connected() === true ? 1 : 0);
  }

  /** @throws UnsupportedEnvoyError */
  async #identifyEnvoy(): Promise<EnvoyRun> {
    const { admin, clock, defaultTenant, lifecycleLog, log } = this.#options;
    const info = await admin.readInfo();
    const [major = 0, minor = 0] = info.version.split('.').map(Number);
    if (major < 1 || (major === 1 && minor < 39)) {
      throw new UnsupportedEnvoyError(`Envoy ${info.version} has no tunnel gauges: use Envoy 1.39 or later`);
    }
    if (info.nodeId === '')
      throw new UnsupportedEnvoyError('Envoy has no node ID: set node.id in its bootstrap');
    const extension = await admin.readExtension();
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
    if (!extension.tenantIsolation && defaultTenant === undefined && lifecycleLog === undefined) {
      throw new UnsupportedEnvoyError(
        'the tenant of the tunnels is unknown: set --default-tenant or --lifecycle-log, or enable tenant isolation in Envoy',
      );
    }
    const { tenantIsolation } = extension;
    const { uptimeSeconds } = info;
    this.#run = {
      info,
      extension,
      startedWallMs: clock.wallMs() - uptimeSeconds * 1000,
      startedMonotonicMs: clock.monotonicMs() - uptimeSeconds * 1000,
      uptimeSeconds,
      tracker: new TunnelTracker({ tenantIsolation, defaultTenant }),
    };
    const { nodeId: id, nodeCluster: cluster, version } = info;
    log.info({ reporter: { id, cluster }, envoy: version, tenantIsolation }, 'found Envoy');
    // Lines that were read before this Envoy was known.
    await this.#follower?.rewind();
    await this.#readLog(this.#run);
    return this.#run;
  }

  #onEnvoyRestart(info: EnvoyInfo): void {
    const { log, metrics } = this.#options;
    this.#stopReporting();
    this.#run = undefined;
    this.#notReady = 'Envoy has restarted';
    metrics.envoyRestarts.inc();
    log.warn(
      { uptimeSeconds: info.uptimeSeconds },
      'Envoy has restarted; reports are paused until it has settled',
    );
    this.#requestPoll();
  }

  #startReporting({ info, tracker }: EnvoyRun): void {
    const { clock, connection } = this.#options;
    this.#client = createEnvoyClient(
      {
        node: { id: info.nodeId, cluster: info.nodeCluster },
        sendIntervalMs: SEND_INTERVAL_MS,
        connectRetryIntervalMs: this.#connectRetryIntervalMs,
        maxRetries: MAX_RETRIES,
        maxBufferCount: MAX_BUFFER_COUNT,
        nodeOnFirstOnly: false,
      },
      {
        clock,
        openStream: (handlers) => connection.openStream(handlers),
        allTunnels: () => tracker.all(),
        isComplete: () => tracker.isComplete,
        observe: (event) => this.#onClientEvent(event),
      },
    );
    this.#client.start();
  }

  #stopReporting(): void {
    this.#client?.stop();
    this.#client = undefined;
    this.#options.metrics.connected.set(0);
    this.#options.metrics.tunnels.set(0);
  }

  #onClientEvent(event: ClientEvent): void {
    const { log, metrics } = this.#options;
    if (event.type === 'sent' && event.report.nonce === 1n) this.#sentFullPush = event.report.fullPush;
    if (event.type === 'acked' && event.first) {
      metrics.connected.set(1);
      log.info('the operator acknowledges reports');
    } else if (event.type === 'disconnected') {
      metrics.connected.set(0);
      metrics.disconnects.inc({ reason: event.reason });
      const { reason, status } = event;
      this.#throttled(`stream ${reason} ${status?.message ?? ''}`, (suppressed) =>
        log.warn(
          { reason, code: status?.code, error: status?.message, ...suppressed },
          'the stream to the operator ended; reconnecting',
        ),
      );
    }
  }

  #onLogLine(line: string): void {
    const { log, metrics } = this.#options;
    const run = this.#run;
    // Read again once Envoy is known.
    if (run === undefined) return;
    const event = parseLifecycleLine(line);
    if (event === undefined) return;
    if ('error' in event) {
      metrics.invalidLogLines.inc();
      this.#throttled(`line ${event.error}`, (suppressed) =>
        log.warn(
          { error: event.error, line: line.slice(0, 200), ...suppressed },
          'skipped a line of the lifecycle log',
        ),
      );
      return;
    }
    // An earlier process of Envoy wrote this line, and did not necessarily log the end of its tunnel.
    if (event.time !== undefined && event.time.seconds * 1000 < run.startedWallMs - RESTART_TOLERANCE_MS)
      return;
    run.tracker.onLogEvent(event);
  }

  #observeTracker({ skipped, tunnelCount }: TunnelTracker): void {
    const { log, metrics } = this.#options;
    metrics.tunnels.set(tunnelCount);
    for (const reason of SKIP_REASONS) {
      const tunnels = skipped.filter((tunnel) => tunnel.reason === reason);
      metrics.skipped.set({ reason }, tunnels.length);
      const [first] = tunnels;
      if (first === undefined) continue;
      this.#throttled(`skipped ${reason}`, (suppressed) =>
        log.warn(
          { reason, tunnels: tunnels.length, example: first.gauge, hint: SKIP_HINTS[reason], ...suppressed },
          'tunnels are up and not, or not completely, reported',
        ),
      );
    }
  }
}

/** Whether the response is that of another process of Envoy than the one that was identified. */
function isOtherProcess(run: EnvoyRun, info: EnvoyInfo, nowMs: number): boolean {
  const { info: known, startedMonotonicMs, uptimeSeconds } = run;
  return (
    info.uptimeSeconds < uptimeSeconds ||
    info.restartEpoch !== known.restartEpoch ||
    info.nodeId !== known.nodeId ||
    info.nodeCluster !== known.nodeCluster ||
    info.version !== known.version ||
    nowMs - info.uptimeSeconds * 1000 > startedMonotonicMs + RESTART_TOLERANCE_MS
  );
}
