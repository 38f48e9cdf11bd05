import type { Clock } from '../clock.ts';
import { errorMessage } from '../error-message.ts';
import type { ReportingConnection } from '../grpc/reporting-client.ts';
import type { Log } from '../log.ts';
import { createEnvoyClient, type ClientEvent, type EnvoyClient } from '../simulate/envoy-client.ts';
import { SKIP_REASONS, type AgentMetrics } from './agent-metrics.ts';
import { AgentWarnings } from './agent-warnings.ts';
import { EnvoyAdminError, type EnvoyAdmin } from './envoy-admin.ts';
import { EnvoyRun, UnsupportedEnvoyError } from './envoy-run.ts';
import { parseLifecycleLine } from './lifecycle-log.ts';
import { LogFollower, LogFollowerError } from './log-follower.ts';
import { missingGauge, type TunnelGauges } from './tunnel-gauges.ts';
import type { TunnelTracker } from './tunnel-tracker.ts';

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
/**
 * Pause before a poll that log lines caused: Envoy writes its log in bursts. Where a poll takes long, the pause is a
 * multiple of this time, so that frequent changes do not keep Envoy's main thread busy.
 */
const MIN_POLL_GAP_MS = 20;
const POLL_GAP_FACTOR = 4;
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
  readonly #warnings: AgentWarnings;
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
  #pollTookMs = 0;
  #timedOut = false;
  /** Whether the log is being read from its beginning, which earlier processes of Envoy may have written. */
  #catchingUp = false;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { clock, lifecycleLog, log, random } = options;
    this.#warnings = new AgentWarnings(log, clock, lifecycleLog !== undefined);
    if (lifecycleLog !== undefined) {
      this.#follower = new LogFollower(
        lifecycleLog,
        (line) => this.#onLogLine(line),
        (maxBytes) => this.#onInvalidLine(`longer than ${maxBytes} bytes`, ''),
      );
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
    this.#timedOut = false;
    const { clock, pollIntervalMs } = this.#options;
    const timeoutMs = Math.min(Math.max(MIN_POLL_TIMEOUT_MS, pollIntervalMs), MAX_POLL_TIMEOUT_MS);
    const startedMs = clock.monotonicMs();
    const cancelTimeout = clock.setTimer(timeoutMs, () => {
      this.#timedOut = true;
      this.#onFailure(new EnvoyAdminError(`a poll takes longer than ${timeoutMs} ms`));
    });
    this.#polling = this.#pollOnce();
    await this.#polling;
    this.#polling = undefined;
    cancelTimeout();
    if (this.#stopped) return;
    this.#pollTookMs = clock.monotonicMs() - startedMs;
    this.#schedulePoll(this.#pollRequested ? this.#pollGapMs() : pollIntervalMs);
  }

  #pollGapMs(): number {
    const gapMs = Math.max(MIN_POLL_GAP_MS, this.#pollTookMs * POLL_GAP_FACTOR);
    return Math.min(gapMs, this.#options.pollIntervalMs);
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
    if (this.#polling === undefined) this.#schedulePoll(this.#pollGapMs());
  }

  async #pollOnce(): Promise<void> {
    const { clock, metrics } = this.#options;
    const startedMs = clock.monotonicMs();
    try {
      // Before Envoy is known, its lines cannot be distinguished from those of an earlier process.
      if (this.#run !== undefined) await this.#readLog(this.#run);
      // The gauges that follow are newer than the lines that were read.
      this.#pollRequested = false;
      await this.#readEnvoy();
      metrics.polls.inc({ outcome: this.#timedOut ? 'error' : 'ok' });
      metrics.pollSeconds.observe((clock.monotonicMs() - startedMs) / 1000);
    } catch (error) {
      metrics.polls.inc({ outcome: 'error' });
      if (!this.#timedOut) this.#onFailure(error);
    }
  }

  /** Pauses reports, because the list of tunnels is out of date from now on. */
  #onFailure(error: unknown): void {
    this.#stopReporting();
    if (this.#stopped) return;
    this.#run?.requireCheck();
    const isExpected =
      error instanceof EnvoyAdminError ||
      error instanceof UnsupportedEnvoyError ||
      error instanceof LogFollowerError;
    this.#notReady = errorMessage(error);
    this.#warnings.pollFailed(error, isExpected);
  }

  async #readLog({ extension }: EnvoyRun): Promise<void> {
    if (this.#follower === undefined) return;
    this.#follower.watch(() => this.#onLogChange());
    try {
      await this.#follower.read();
      this.#catchingUp = false;
    } catch (error) {
      if (!(error instanceof LogFollowerError)) throw error;
      // Otherwise nothing names the tenants, and the tunnels could not be reported.
      if (!extension.tenantIsolation && this.#options.defaultTenant === undefined) throw error;
      this.#warnings.lifecycleLogUnreadable(error);
    }
  }

  /** Reads the log, which requests a poll if it contains a change. The next poll reports what prevents it. */
  #onLogChange(): void {
    if (this.#run === undefined || this.#catchingUp || this.#stopped) return;
    this.#follower?.read().catch(() => {});
  }

  async #readEnvoy(): Promise<void> {
    const run = this.#run ?? (await this.#identifyEnvoy());
    const gauges = await this.#readGauges(run);
    if (this.#stopped || this.#timedOut) return;
    if (gauges === undefined) {
      this.#onEnvoyRestart();
      return;
    }
    run.gauges = gauges;
    const updates = run.tracker.onPoll(gauges);
    const { settlesInMs } = run;
    if (settlesInMs > 0) {
      this.#notReady = `Envoy has started recently; waiting another ${Math.ceil(settlesInMs / 1000)} s for its tunnels to return`;
    } else {
      this.#notReady = undefined;
      // A full push follows once every tunnel can be reported.
      if (this.#client !== undefined && !this.#sentFullPush && run.tracker.isComplete) this.#stopReporting();
      if (this.#client === undefined) this.#startReporting(run);
      else if (updates.connections.length + updates.disconnections.length > 0) this.#client.receive(updates);
    }
    this.#observeTracker(run.tracker);
  }

  /**
   * Returns the gauges of the process that is known; undefined if there is another one.
   *
   * @throws EnvoyAdminError
   */
  async #readGauges(run: EnvoyRun): Promise<TunnelGauges | undefined> {
    const { admin } = this.#options;
    const { statPrefix, tenantIsolation } = run.extension;
    let missing: string | undefined;
    // Again, because a tunnel may come up while Envoy collects the gauges.
    for (let attempt = 0; attempt < 2; attempt += 1) {
      const gauges = await admin.readGauges(statPrefix);
      // After the gauges: if Envoy restarted before, they may be those of the new process.
      if (run.needsCheck(gauges) && !(await run.isSameProcess())) return undefined;
      missing = gauges === run.gauges ? undefined : missingGauge(gauges, run.gauges, tenantIsolation);
      if (missing === undefined) return gauges;
    }
    throw new EnvoyAdminError(`GET /stats: incomplete list of gauges: ${missing}`);
  }

  /** @throws EnvoyAdminError, UnsupportedEnvoyError */
  async #identifyEnvoy(): Promise<EnvoyRun> {
    const run = await EnvoyRun.identify(this.#options);
    const { info, extension } = run;
    this.#run = run;
    this.#options.log.info(
      {
        reporter: { id: info.nodeId, cluster: info.nodeCluster },
        envoy: info.version,
        tenantIsolation: extension.tenantIsolation,
      },
      'found Envoy',
    );
    // Lines that were read before this Envoy was known.
    this.#catchingUp = true;
    await this.#follower?.rewind();
    await this.#readLog(run);
    return run;
  }

  #onEnvoyRestart(): void {
    this.#stopReporting();
    this.#run = undefined;
    this.#notReady = 'Envoy has restarted';
    this.#options.metrics.envoyRestarts.inc();
    this.#options.log.warn('Envoy has restarted; reports are paused until it has settled');
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
      this.#warnings.streamEnded(event.reason, event.status);
    }
  }

  #onLogLine(line: string): void {
    const run = this.#run;
    // Read again once Envoy is known.
    if (run === undefined) return;
    const event = parseLifecycleLine(line);
    if (event === undefined) return;
    if ('error' in event) {
      this.#onInvalidLine(event.error, line);
      return;
    }
    if (event.time === undefined) this.#onInvalidLine('no valid time; createdAt is omitted', line);
    if (this.#catchingUp && run.isEarlier(event.time?.seconds)) return;
    run.tracker.onLogEvent(event);
    if (!this.#catchingUp) this.#requestPoll();
  }

  #onInvalidLine(error: string, line: string): void {
    this.#options.metrics.invalidLogLines.inc();
    this.#warnings.invalidLogLine(error, line);
  }

  #observeTracker({ skipped, tunnelCount }: TunnelTracker): void {
    const { metrics } = this.#options;
    metrics.connected.set(this.#client?.connected() === true ? 1 : 0);
    metrics.tunnels.set(this.#client === undefined ? 0 : tunnelCount);
    for (const reason of SKIP_REASONS) {
      metrics.skipped.set({ reason }, skipped.filter((tunnel) => tunnel.reason === reason).length);
    }
    this.#warnings.tunnelsSkipped(skipped);
  }
}
