import { hash, randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { TunnelEnqueuer } from './controller/tunnel-enqueuer.ts';
import { TunnelReconciler } from './controller/tunnel-reconciler.ts';
import { TunnelCache } from './controller/tunnel-cache.ts';
import { RevertBackoff } from './controller/revert-backoff.ts';
import { Workers } from './controller/workers.ts';
import { Workqueue } from './controller/workqueue.ts';
import { Ledger } from './core/ledger.ts';
import { createNames } from './core/names.ts';
import type { TunnelObject } from './core/tunnel-object.ts';
import { ListenError, ReportingServer } from './grpc/reporting-server.ts';
import { TlsMaterialError } from './grpc/tls-acceptor.ts';
import { MAX_CONCURRENT_REVIEWS } from './grpc/token-authenticator.ts';
import { startHeapTrimmer, v8Heap } from './heap-trimmer.ts';
import { HttpListenError, startHttpServer, type HttpServer } from './http/http-server.ts';
import { createApiClient } from './k8s/client.ts';
import { ConnectionError, describeServer, resolveConnection } from './k8s/connection.ts';
import { Reflector } from './k8s/reflector.ts';
import { createTunnelApi, tunnelResource } from './k8s/resources.ts';
import type { Log } from './log.ts';
import { addProcessMetrics, createMetrics, type Metrics } from './metrics.ts';
import { createPolicyController, type PolicyController } from './policy-controller.ts';
import { createReplica, type Replica } from './replica.ts';
import { createAuthentication } from './authentication.ts';
import { FileReadError } from './file-watcher.ts';

/** How long the queue may go on after the last stream has ended. */
const FLUSH_TIMEOUT_MS = 5000;
/** What a changed configuration file may change while the operator runs. */
const RELOADABLE: ReadonlySet<string> = new Set<keyof Config>(['reportIntervalMs', 'logLevel']);
/** How long connections of reporters may take to close. */
const DRAIN_TIMEOUT_MS = 2000;
/** How long giving up the replica's own Lease may take; without it others wait until it has run out. */
const RELEASE_TIMEOUT_MS = 1500;
/** Connections for claims, Leases and events, so that no row write stands before them. */
const RESERVED_CONNECTIONS = 24;
/** A superseded stream needs so long, and one report interval, to claim again: no reporter may expire before. */
const MIN_EXPIRE_AFTER_MS = 90_000;
/** Tunnels that all reporters together may hold: as many as four at their limit, and no fewer than this. */
const MIN_GLOBAL_TUNNELS = 2_000_000;
const GLOBAL_LIMIT_FACTOR = 4;

/** What the operator takes from the process that it runs in, so that a test can give it something else. */
export interface OperatorDependencies {
  readonly version: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  readonly log: Log;
}

/** The operator cannot start; one line that says what, where, and what to do. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

/** An operator that serves; it goes on without the API server, and ends only by `stop`. */
export interface RunningOperator {
  /** The addresses that were bound, with their ports. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** Takes over what may change while it runs, the report interval and the log level, and says what else changed. */
  reconfigure(changed: Config): void;
  /**
   * Ends streams once their last ACK is out, gives the queue at most 5 s to empty, and closes everything. Rows stay.
   * Resolves within 10 s; may be called once.
   */
  stop(): Promise<void>;
}

/**
 * Builds the parts, hands them to each other and starts them. No rules live here.
 *
 * @throws StartError when a port is taken or there is no way to the API server. An API server that does not answer is
 *   no such error: it is waited for, and reports are taken meanwhile.
 */
export async function startOperator(config: Config, deps: OperatorDependencies): Promise<RunningOperator> {
  const { clock, random, log } = deps;
  const metrics = createMetrics();
  addProcessMetrics(metrics);
  const isInsecure = config.auth === 'insecure';
  metrics.insecure.set(isInsecure ? 1 : 0);
  if (isInsecure) {
    log.warn({ tls: config.tlsCert !== undefined }, 'auth is insecure: any client may report');
  }

  const connection = await wrapStartError(
    resolveConnection({ kubeconfig: config.kubeconfig, env: deps.env, clock }),
  );
  const namespace = config.namespace ?? connection.namespace ?? 'default';
  log.info({ server: connection.server.href, source: connection.source, namespace }, 'resolved API server');
  // What goes wrong between here and the API server is said with its name, as that is where to look.
  const apiLog = log.child({ server: describeServer(connection) });
  const reviewsTokens = config.auth === 'token' || config.auth === 'mtls-or-token';
  const client = createApiClient({
    connection,
    clock,
    userAgent: `reverse-tunnel-operator/${deps.version}`,
    connections:
      config.writeConcurrency + RESERVED_CONNECTIONS + (reviewsTokens ? MAX_CONCURRENT_REVIEWS : 0),
    onRequest: ({ verb, code }) => metrics.restClientRequests.inc({ method: verb, code }),
    log: apiLog,
  });
  const authentication = await wrapStartError(createAuthentication(config, { client, clock, log }));
  const tunnels = client.resource<TunnelObject>(tunnelResource(namespace));

  const names = createNames((text) => hash('sha256', text, 'buffer'));
  const ledger = new Ledger({
    tunnelsPerReporter: config.maxTunnelsPerReporter,
    tunnels: Math.max(MIN_GLOBAL_TUNNELS, GLOBAL_LIMIT_FACTOR * config.maxTunnelsPerReporter),
  });
  const queue = new Workqueue(clock);
  const cache: TunnelCache = new TunnelCache(
    names,
    (key, tunnelName) => ledger.tunnel(key, tunnelName),
    (key, tunnelName) => enqueuer.onObjectChanged(key, tunnelName),
  );
  let { reportIntervalMs } = config;
  if (config.expireAfterMs < MIN_EXPIRE_AFTER_MS + reportIntervalMs) {
    const minMs = MIN_EXPIRE_AFTER_MS + reportIntervalMs;
    log.warn(
      { expireAfterMs: config.expireAfterMs, minMs },
      'expire-after is too short: a replica may expire tunnels that another has just claimed',
    );
  }
  // The id alone is no identity: two replicas may have the same, and so has the next start of this one.
  const self = `${config.replicaId ?? hostname()}-${randomBytes(4).toString('hex')}`;
  const replica: Replica = createReplica({
    self,
    namespace,
    client,
    names,
    ledger,
    queue,
    rows: cache,
    objectsSynced: () => reflector.hasSynced,
    policiesSynced: () => policyController.hasSynced(),
    onReporterRemoved: (key) => policyController.authorizer.forget(key),
    needsWrite: (key, tunnelName) => reconciler.nextWrite(key, tunnelName) !== undefined,
    enqueuer: () => enqueuer,
    reportIntervalMs: () => reportIntervalMs,
    unknownAfterMs: config.unknownAfterMs,
    expireAfterMs: config.expireAfterMs,
    relistOthers() {
      reflector.relist();
      policyController.relist();
    },
    onUnreachable: () => retryNow(),
    onReadinessChanged: () => updateReadiness(),
    clock,
    random,
    metrics,
    log: apiLog,
  });
  const policyController: PolicyController = createPolicyController({
    namespace,
    client,
    objectsSynced: () => reflector.hasSynced,
    onGrantChanged: (key) => enqueuer.onGrantChanged(key),
    onPeerChanged: (key) => ledger.dropDenied(key),
    onPolicyChanged: () => grpc.reauthorize(),
    onPoliciesSynced() {
      replica.resume();
      updateReadiness();
    },
    isLeader: () => replica.isLeader(),
    clock,
    random,
    metrics,
    log: apiLog,
  });
  const writeAuthorizer = replica.reporters;
  const retryNow = (): void => {
    reflector.retryNow();
    replica.retryNow();
    policyController.retryNow();
  };
  const reconciler: TunnelReconciler = new TunnelReconciler({
    api: createTunnelApi(tunnels),
    ledger,
    cache,
    writeAuthorizer,
    names,
    relist: () => reflector.relist(),
    clock,
    metrics,
    log: apiLog,
  });
  const workers = new Workers({
    queue,
    reconcile: (item) => reconciler.reconcile(item),
    concurrency: config.writeConcurrency,
    onUnreachable: retryNow,
    onRejected: ({ key, tunnelName }, answer) => writeAuthorizer.writeRejected(key, tunnelName, answer),
    clock,
    random,
    metrics,
    log,
  });
  const enqueuer: TunnelEnqueuer = new TunnelEnqueuer({
    ledger,
    grantFor: (key) => policyController.authorizer.grantFor(key),
    cache,
    queue,
    workers,
    writeAuthorizer,
    streams: writeAuthorizer,
    needsWrite: (key, tunnelName) => reconciler.nextWrite(key, tunnelName) !== undefined,
    revertBackoff: new RevertBackoff(clock),
    clock,
    metrics,
  });

  const grpc = new ReportingServer({
    address: config.grpcAddress,
    maxMessageSizeBytes: config.maxMessageSizeBytes,
    maxTunnelsPerReporter: config.maxTunnelsPerReporter,
    reportIntervalMs: () => reportIntervalMs,
    onInvalid: config.onInvalid,
    reflection: config.grpcReflection,
    auth: authentication.auth,
    maxStreamAgeMs: config.maxStreamAgeMs,
    sink: {
      reporterConnected(reporter, envoy, peer, isExpected) {
        policyController.authorizer.onStreamOpened(reporter, peer);
        enqueuer.reporterConnected(reporter, envoy, isExpected);
      },
      reporterDisconnected: (reporter, why) => enqueuer.reporterDisconnected(reporter, why),
      apply: (reporter, report, receivedMs) =>
        policyController.authorizer.limitExceeded(reporter) ?? enqueuer.apply(reporter, report, receivedMs),
    },
    policy: policyController.authorizer,
    clock,
    random,
    log,
    metrics,
  });
  let stopping = false;
  /** Says that it is ready, as soon as it is. */
  const updateReadiness = (): void => {
    if (!stopping && replica.notReady() === undefined) grpc.setServing(true);
  };
  const reflector: Reflector<TunnelObject> = new Reflector<TunnelObject>({
    source: tunnels,
    handler: cache,
    clock,
    random,
    log: apiLog,
    onStateChange: (state) => {
      // Before every row is known a write could only guess; and what the list shows may already be right.
      if (state !== 'synced' || stopping) return;
      metrics.cacheSynced.set(1);
      workers.start();
      replica.resume();
      updateReadiness();
    },
  });

  const http = await wrapStartError(
    startHttpServer(config.httpAddress, {
      notReady: () => (stopping ? 'stopping' : replica.notReady()),
      metrics: async () => {
        updateGauges(metrics, ledger, cache, queue);
        replica.updateGauges();
        return { contentType: metrics.registry.contentType, text: await metrics.registry.metrics() };
      },
    }),
  );
  const grpcAddress = await wrapStartError(grpc.listen(), http);
  const stopWatching = authentication.watchFiles();
  const stopHeapTrimmer = startHeapTrimmer({ heap: v8Heap, isIdle: () => queue.idle, clock });
  log.info({ grpcAddress, httpAddress: http.address, replica: self }, 'serving');

  const ended = new AbortController();
  const reflecting = Promise.all([
    reflector.run(ended.signal),
    replica.start(ended.signal),
    policyController.start(ended.signal),
  ]);

  /** Streams end once their last ACK is out; then what they said is written. False when that took too long. */
  async function flush(): Promise<boolean> {
    await grpc.close(DRAIN_TIMEOUT_MS);
    // A stream that has just begun is claimed for first.
    const written = replica.reporters.reconciler
      .idleWaiters()
      .then(() => enqueuer.drainWaiters())
      .then(() => workers.drained());
    return await resolvesWithin(written, FLUSH_TIMEOUT_MS, clock);
  }

  return {
    grpcAddress,
    httpAddress: http.address,
    reconfigure(changed) {
      log.level = changed.logLevel;
      apiLog.level = changed.logLevel;
      reportIntervalMs = changed.reportIntervalMs;
      const keys = Object.keys(changed) as (keyof Config)[];
      const needRestart = keys.filter((key) => !RELOADABLE.has(key) && changed[key] !== config[key]);
      log.info({ reportIntervalMs, needRestart }, 'configuration changed');
    },
    async stop() {
      stopping = true;
      log.info('stopping');
      stopWatching();
      stopHeapTrimmer();
      // Another replica may lead at once; what is left to do here has nothing to do with it.
      const [flushed] = await Promise.all([
        flush(),
        resolvesWithin(replica.stopLeading(), DRAIN_TIMEOUT_MS + FLUSH_TIMEOUT_MS, clock),
      ]);
      if (!flushed) log.warn({ keys: queue.depth }, 'stopping with pending changes');
      workers.stop();
      policyController.stop();
      await resolvesWithin(replica.stop(), RELEASE_TIMEOUT_MS, clock);
      ended.abort();
      await client.close();
      await reflecting;
      await http.close();
      log.info('stopped');
    },
  };
}

/** Sets what is read at a scrape and changes too often to be set when it does. */
function updateGauges(metrics: Metrics, ledger: Ledger, cache: TunnelCache, queue: Workqueue): void {
  metrics.reportedTunnels.set(ledger.totalTunnelCount());
  metrics.objects.set(cache.size);
  metrics.workqueueDepth.set({ name: 'tunnels' }, queue.depth);
  metrics.workqueueDelayed.set({ name: 'tunnels' }, queue.delayedCount);
}

/** False when it did not resolve in time; it goes on. */
async function resolvesWithin(work: Promise<void>, limitMs: number, clock: Clock): Promise<boolean> {
  const timeout = Promise.withResolvers<boolean>();
  const cancel = clock.setTimer(limitMs, () => timeout.resolve(false));
  const inTime = await Promise.race([work.then(() => true), timeout.promise]);
  cancel();
  return inTime;
}

/** Turns what a person can mend into a StartError, closing what runs already. */
async function wrapStartError<T>(starting: Promise<T>, running?: HttpServer): Promise<T> {
  try {
    return await starting;
  } catch (error) {
    await running?.close();
    if (error instanceof ConnectionError) throw new StartError(error.message, { cause: error });
    if (error instanceof TlsMaterialError || error instanceof FileReadError) {
      throw new StartError(`--tls-cert, --tls-key, --tls-client-ca: ${error.message}`, { cause: error });
    }
    if (error instanceof ListenError || error instanceof HttpListenError) {
      const flag = error instanceof ListenError ? '--grpc-address' : '--http-address';
      throw new StartError(`${error.message}; free the port or set another ${flag}`, { cause: error });
    }
    throw error;
  }
}
