import { hash, randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { createAuthentication } from './authentication.ts';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { updateControllerMetrics } from './controller/controller-stats.ts';
import type { ControllerSettings } from './controller/settings.ts';
import { createNames } from './core/names.ts';
import { MAX_IMMEDIATE_REMOVALS } from './core/removal-hold.ts';
import { FileReadError } from './file-watcher.ts';
import { ListenError, MAX_CONNECTIONS, ReportingServer } from './grpc/reporting-server.ts';
import { TlsMaterialError } from './grpc/tls-acceptor.ts';
import { MAX_CONCURRENT_REVIEWS } from './grpc/token-authenticator.ts';
import { HeapTrimmer, v8Heap } from './heap-trimmer.ts';
import { HttpListenError, startHttpServer, type HttpServer } from './http/http-server.ts';
import { createApiClient } from './k8s/client.ts';
import { ConnectionError, describeServer, resolveConnection } from './k8s/connection.ts';
import type { Log } from './log.ts';
import { addProcessMetrics, createMetrics, type Metrics } from './metrics.ts';
import { createReplica } from './replica.ts';
import { updateLeaseMetrics } from './replica-leases.ts';
import { openTunnelLog, TunnelLogError } from './tunnel-log.ts';
import { fitOpenFiles, openFileLimit, type ConnectionCounts } from './open-files.ts';

/** Time limit for writing pending changes after the last stream has ended. */
const FLUSH_TIMEOUT_MS = 5000;
/** Time limit for closing the connections of reporters, before they are destroyed. */
const DRAIN_TIMEOUT_MS = 2000;
/** Time limit for releasing the replica's Lease. If it is not released, other replicas wait until it expires. */
const RELEASE_TIMEOUT_MS = 1500;
/** Time limit for each of the last steps, which take milliseconds: API client, watches, HTTP. */
const CLOSE_TIMEOUT_MS = 250;
/** Settings that can change without a restart. */
const RELOADABLE: ReadonlySet<string> = new Set<keyof Config>(['reportIntervalMs', 'logLevel']);
/** Connections for claims, Leases and Events, so that object writes never delay them. */
const RESERVED_CONNECTIONS = 24;
/** Time that a superseded stream needs to claim again, without the report interval: no reporter may expire sooner. */
const MIN_EXPIRE_AFTER_MS = 90_000;
/** Limit of all reporters together: four reporters at their limit, but at least 2,000,000 tunnels. */
const MIN_GLOBAL_TUNNELS = 2_000_000;
const GLOBAL_LIMIT_FACTOR = 4;

/** What the operator uses of its process. Tests replace it. */
export interface OperatorDependencies {
  readonly version: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly log: Log;
}

/** The operator cannot start. The message is one line with the reason and the remedy. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

/** A running operator. An outage of the API server does not end it; only `stop` does. */
export interface RunningOperator {
  /** The bound addresses, with their ports. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** Applies the settings that can change without a restart (report interval, log level), and logs the others. */
  reconfigure(changed: Config): void;
  /**
   * Ends the streams once their pending ACKs are sent, writes pending changes for at most 5 s, and closes everything.
   * Objects stay. Resolves within 10 s, because each step has a limit: a step that exceeds it is logged and skipped. Must
   * be called at most once.
   *
   * @returns false if something was not closed, so that the process does not end by itself
   */
  stop(): Promise<boolean>;
}

/**
 * Builds and starts the operator. Each statement uses only what is declared above it.
 *
 * @throws StartError if a port is in use, a file cannot be read, or no API server is configured. An API server that does
 *   not respond is not an error: reports are accepted until it does.
 */
export async function startOperator(config: Config, deps: OperatorDependencies): Promise<RunningOperator> {
  const { clock, random, log } = deps;
  const metrics = createMetrics();
  addProcessMetrics(metrics);
  checkConfig(config, metrics, log);

  const connection = await wrapStartError(
    resolveConnection({ kubeconfig: config.kubeconfig, env: deps.env, clock }),
  );
  const namespace = config.namespace ?? connection.namespace ?? 'default';
  log.info({ server: connection.server.href, source: connection.source, namespace }, 'resolved API server');
  // The address of the API server is part of every line about it.
  const apiLog = log.child({ server: describeServer(connection) });
  const connections = limitConnections(config, log);
  const client = createApiClient({
    connection,
    clock,
    userAgent: `reverse-tunnel-operator/${deps.version}`,
    connections: connections.api,
    onRequest: ({ verb, code }) => metrics.restClientRequests.inc({ method: verb, code }),
    log: apiLog,
  });
  const authentication = await wrapStartError(createAuthentication(config, { client, clock, log }));

  // The ID alone does not identify a process: replicas may share one, and so does the next start of this one.
  const self = `${config.replicaId ?? hostname()}-${randomBytes(4).toString('hex')}`;
  const settings: ControllerSettings = {
    reportIntervalMs: config.reportIntervalMs,
    unknownAfterMs: config.unknownAfterMs,
    expireAfterMs: config.expireAfterMs,
    removalHold: {
      holdMs: config.removalHoldMs,
      thresholdPercent: config.removalHoldThresholdPercent,
      maxImmediate: MAX_IMMEDIATE_REMOVALS,
    },
    representation: config.representation,
    writeConcurrency: config.writeConcurrency,
  };
  const tunnelLog =
    config.tunnelLog === 'off'
      ? undefined
      : await wrapStartError(
          openTunnelLog({ target: config.tunnelLog, namespace, replica: self, clock, metrics, log }),
        );
  const replica = createReplica({
    self,
    names: createNames((text) => hash('sha256', text, 'buffer')),
    client,
    namespace,
    limits: {
      tunnelsPerReporter: config.maxTunnelsPerReporter,
      tunnels: Math.max(MIN_GLOBAL_TUNNELS, GLOBAL_LIMIT_FACTOR * config.maxTunnelsPerReporter),
    },
    requirePolicy: config.requirePolicy,
    transitionSink: tunnelLog,
    settings,
    clock,
    random,
    metrics,
    log: apiLog,
  });
  const { ledger, caches, leases, controllers } = replica;
  const { authorizer, readiness, registry, intake, tunnels, reporters, expectations } = controllers;

  const heapTrimmer = new HeapTrimmer({ heap: v8Heap, isIdle: () => tunnels.queue.idle, clock, log });
  const grpc = new ReportingServer({
    address: config.grpcAddress,
    maxMessageSizeBytes: config.maxMessageSizeBytes,
    maxConnectionsPerAddress: config.maxConnectionsPerAddress,
    maxTunnelsPerReporter: config.maxTunnelsPerReporter,
    reportIntervalMs: () => settings.reportIntervalMs,
    onInvalid: config.onInvalid,
    reflection: config.grpcReflection,
    auth: authentication.auth,
    limits: { connections: connections.reporters },
    maxStreamAgeMs: config.maxStreamAgeMs,
    sink: intake,
    policy: authorizer,
    onLargeReport: (bytes) => heapTrimmer.reportArrived(bytes),
    clock,
    random,
    log,
    metrics,
  });
  let stopping = false;
  authorizer.addEventHandler({ onPoliciesChanged: () => grpc.reauthorize() });
  readiness.addEventHandler({ onReady: () => stopping || grpc.setServing(true) });

  const http = await wrapStartError(
    startHttpServer(config.httpAddress, {
      notReady: () => (stopping ? 'stopping' : readiness.notReady()),
      async metrics() {
        updateControllerMetrics({
          registry,
          ledger,
          objects: caches.tunnels,
          slices: caches.slices,
          mirrored: controllers.mirrored,
          flapping: controllers.flapping,
          queues: {
            tunnels: tunnels.queue,
            reporters: reporters.queue,
            expectations: expectations.queue,
          },
          expectations: expectations.tracker,
          clock,
          metrics,
        });
        updateLeaseMetrics(leases, metrics);
        return { contentType: metrics.registry.contentType, text: await metrics.registry.metrics() };
      },
    }),
  );
  const grpcAddress = await wrapStartError(grpc.listen(), http);
  const stopWatching = authentication.watchFiles();
  heapTrimmer.start();
  log.info({ grpcAddress, httpAddress: http.address, replica: self }, 'serving');

  const ended = new AbortController();
  const watching = replica.run(ended.signal);

  /** Ends the streams and writes what they reported. Returns false if that takes too long. */
  async function flush(): Promise<{ readonly closed: boolean; readonly flushed: boolean }> {
    const closed = await closeWithin(
      'close the reporting service',
      grpc.close(DRAIN_TIMEOUT_MS),
      DRAIN_TIMEOUT_MS + CLOSE_TIMEOUT_MS,
    );
    return { closed, flushed: await resolvesWithin(controllers.drained(), FLUSH_TIMEOUT_MS, clock) };
  }

  /** Runs a step of the shutdown. Returns false if it exceeds its limit. */
  async function closeWithin(step: string, work: Promise<unknown>, limitMs: number): Promise<boolean> {
    const closed = await resolvesWithin(work, limitMs, clock);
    if (!closed) log.warn({ step }, 'a step of the shutdown exceeded its time limit and is skipped');
    return closed;
  }

  return {
    grpcAddress,
    httpAddress: http.address,
    reconfigure(changed) {
      log.level = changed.logLevel;
      apiLog.level = changed.logLevel;
      settings.reportIntervalMs = changed.reportIntervalMs;
      const keys = Object.keys(changed) as (keyof Config)[];
      const needRestart = keys.filter((key) => !RELOADABLE.has(key) && changed[key] !== config[key]);
      log.info({ reportIntervalMs: changed.reportIntervalMs, needRestart }, 'configuration changed');
    },
    async stop() {
      stopping = true;
      log.info('stopping');
      stopWatching();
      heapTrimmer.stop();
      // Another replica may lead at once; nothing that remains to be done here depends on it.
      const [{ closed, flushed }] = await Promise.all([
        flush(),
        closeWithin(
          'release the Lease of the leader',
          leases.leader.release(),
          DRAIN_TIMEOUT_MS + FLUSH_TIMEOUT_MS,
        ),
      ]);
      if (!flushed) log.warn({ keys: tunnels.queue.depth }, 'stopping with pending changes');
      controllers.stop();
      await closeWithin('release the Lease', leases.own.release(), RELEASE_TIMEOUT_MS);
      ended.abort();
      const logged = tunnelLog?.close() ?? Promise.resolve();
      const steps = [
        closed,
        await closeWithin('close the API client', client.close(), CLOSE_TIMEOUT_MS),
        await closeWithin('end the watches', watching, CLOSE_TIMEOUT_MS),
        await closeWithin('close the HTTP server', http.close(), CLOSE_TIMEOUT_MS),
        await closeWithin('close the tunnel log', logged, CLOSE_TIMEOUT_MS),
      ];
      log.info('stopped');
      return !steps.includes(false);
    },
  };
}

function checkConfig(config: Config, metrics: Metrics, log: Log): void {
  const isInsecure = config.auth === 'insecure';
  metrics.insecure.set(isInsecure ? 1 : 0);
  if (isInsecure) {
    log.warn({ tls: config.tlsCert !== undefined }, 'auth is insecure: any client may report');
  }
  const { expireAfterMs, reportIntervalMs, removalHoldMs } = config;
  const minMs = MIN_EXPIRE_AFTER_MS + reportIntervalMs;
  if (expireAfterMs < minMs) {
    log.warn(
      { expireAfterMs, minMs },
      'expire-after is too short: a replica may expire tunnels that another has just claimed',
    );
  }
  if (removalHoldMs > expireAfterMs) {
    log.warn(
      { removalHoldMs, expireAfterMs },
      'removal-hold exceeds expire-after: tunnels that are gone are shown as connected for that long',
    );
  }
}

/** Limits the connections such that they fit into the limit of open files. */
function limitConnections(config: Config, log: Log): ConnectionCounts {
  const api = config.writeConcurrency + RESERVED_CONNECTIONS + reviewConnections(config);
  const openFiles = openFileLimit();
  const reporters = Math.max(MAX_CONNECTIONS, config.maxConnectionsPerAddress);
  const counts = fitOpenFiles(openFiles, { api, reporters });
  if (counts.reporters < reporters) {
    log.warn(
      { openFiles, maxConnections: counts.reporters, maxApiConnections: counts.api },
      'the limit of open files is low; accepting fewer connections',
    );
  }
  return counts;
}

/** Returns the number of connections for TokenReviews. */
function reviewConnections({ auth }: Config): number {
  return auth === 'token' || auth === 'mtls-or-token' ? MAX_CONCURRENT_REVIEWS : 0;
}

/** Returns false if `work` does not resolve within `limitMs`; it is not cancelled. */
async function resolvesWithin(work: Promise<unknown>, limitMs: number, clock: Clock): Promise<boolean> {
  const timeout = Promise.withResolvers<'timeout'>();
  const cancel = clock.setTimer(limitMs, () => timeout.resolve('timeout'));
  const first = await Promise.race([work, timeout.promise]);
  cancel();
  return first !== 'timeout';
}

/** Converts errors that an administrator can fix into a StartError, after closing `running`. */
async function wrapStartError<T>(starting: Promise<T>, running?: HttpServer): Promise<T> {
  try {
    return await starting;
  } catch (error) {
    await running?.close();
    if (error instanceof ConnectionError) throw new StartError(error.message, { cause: error });
    if (error instanceof TlsMaterialError || error instanceof FileReadError) {
      throw new StartError(`--tls-cert, --tls-key, --tls-client-ca: ${error.message}`, { cause: error });
    }
    if (error instanceof TunnelLogError) {
      throw new StartError(`--tunnel-log: ${error.message}`, { cause: error });
    }
    if (error instanceof ListenError || error instanceof HttpListenError) {
      const flag = error instanceof ListenError ? '--grpc-address' : '--http-address';
      throw new StartError(`${error.message}; free the port or set another ${flag}`, { cause: error });
    }
    throw error;
  }
}
