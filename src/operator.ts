import { hash, randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { Mirror } from './controller/mirror.ts';
import { Reconciler } from './controller/reconciler.ts';
import { RowCache } from './controller/row-cache.ts';
import { UndoPacing } from './controller/undo-pacing.ts';
import { Workers } from './controller/workers.ts';
import { Workqueue } from './controller/workqueue.ts';
import { Ledger } from './core/ledger.ts';
import { createNames } from './core/names.ts';
import type { RowObject } from './core/row.ts';
import { ListenError, ReportingServer } from './grpc/server.ts';
import { TlsMaterialError } from './grpc/tls-acceptor.ts';
import { REVIEWS_AT_ONCE } from './grpc/token-checks.ts';
import { followHeap, v8Heap } from './heap-rest.ts';
import { HttpListenError, startHttpServer, type HttpServer } from './http/server.ts';
import { createApiClient } from './k8s/client.ts';
import { ConnectionError, serverOf } from './k8s/connection.ts';
import { Reflector } from './k8s/reflector.ts';
import { resolveConnection } from './k8s/resolve-connection.ts';
import { createRowApi, rowResource } from './k8s/row-api.ts';
import type { Log } from './log.ts';
import { addProcessMetrics, createMetrics, type Metrics } from './metrics.ts';
import { createPolicing, type Policing } from './policing.ts';
import { createReplica, type Replica } from './replica.ts';
import { createReportingAuth } from './reporting-auth.ts';
import { TlsFileError } from './tls-files.ts';

/** How long the queue may go on after the last stream has ended. */
const FLUSH_MS = 5000;
/** What a changed configuration file may change while the operator runs. */
const RELOADABLE: ReadonlySet<string> = new Set<keyof Config>(['reportIntervalMs', 'logLevel']);
/** How long connections of reporters may take to close. */
const DRAIN_MS = 2000;
/** How long giving up the replica's own Lease may take; without it others wait until it has run out. */
const RELEASE_MS = 1500;
/** Connections for claims, Leases and events, so that no row write stands before them. */
const SPARE_CONNECTIONS = 24;
/** A superseded stream needs so long, and one report interval, to claim again: no reporter may expire before. */
const LEAST_EXPIRE_AFTER_MS = 90_000;
/** Tunnels that all reporters together may hold: as many as four at their limit, and no fewer than this. */
const LEAST_TUNNELS_TOGETHER = 2_000_000;
const REPORTERS_AT_THEIR_LIMIT = 4;

/** What the operator takes from the process that it runs in, so that a test can give it something else. */
export interface Surroundings {
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
export async function startOperator(config: Config, around: Surroundings): Promise<RunningOperator> {
  const { clock, random, log } = around;
  const metrics = createMetrics();
  addProcessMetrics(metrics);
  const isInsecure = config.auth === 'insecure';
  metrics.insecure.set(isInsecure ? 1 : 0);
  if (isInsecure) {
    log.warn({ tls: config.tlsCert !== undefined }, 'auth is insecure: any client may report');
  }

  const connection = await orStartError(
    resolveConnection({ kubeconfig: config.kubeconfig, env: around.env, clock }),
  );
  const namespace = config.namespace ?? connection.namespace ?? 'default';
  log.info({ server: connection.server.href, source: connection.source, namespace }, 'resolved API server');
  // What goes wrong between here and the API server is said with its name, as that is where to look.
  const apiLog = log.child({ server: serverOf(connection) });
  const reviewsTokens = config.auth === 'token' || config.auth === 'mtls-or-token';
  const client = createApiClient({
    connection,
    clock,
    userAgent: `reverse-tunnel-operator/${around.version}`,
    connections: config.writeConcurrency + SPARE_CONNECTIONS + (reviewsTokens ? REVIEWS_AT_ONCE : 0),
    onRequest: ({ verb, code }) => metrics.restClientRequests.inc({ method: verb, code }),
    log: apiLog,
  });
  const reporting = await orStartError(createReportingAuth(config, { client, clock, log }));
  const rows = client.resource<RowObject>(rowResource(namespace));

  const names = createNames((text) => hash('sha256', text, 'buffer'));
  const ledger = new Ledger(
    config.maxTunnelsPerReporter,
    (key) => policing.grants.of(key),
    Math.max(LEAST_TUNNELS_TOGETHER, REPORTERS_AT_THEIR_LIMIT * config.maxTunnelsPerReporter),
  );
  const queue = new Workqueue(clock);
  const cache: RowCache = new RowCache(
    names,
    (key, tunnelName) => ledger.tunnel(key, tunnelName),
    (key, tunnelName) => mirror.rowChanged(key, tunnelName),
  );
  let { reportIntervalMs } = config;
  if (config.expireAfterMs < LEAST_EXPIRE_AFTER_MS + reportIntervalMs) {
    const leastMs = LEAST_EXPIRE_AFTER_MS + reportIntervalMs;
    log.warn(
      { expireAfterMs: config.expireAfterMs, leastMs },
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
    rowsListed: () => reflector.hasSynced,
    policiesKnown: () => policing.isKnown(),
    onForgotten: (key) => policing.grants.forget(key),
    isDue: (key, tunnelName) => reconciler.due(key, tunnelName) !== undefined,
    mirror: () => mirror,
    reportIntervalMs: () => reportIntervalMs,
    unknownAfterMs: config.unknownAfterMs,
    expireAfterMs: config.expireAfterMs,
    relistOthers() {
      reflector.relist();
      policing.relist();
    },
    onNoAnswer: () => hasten(),
    onProgress: () => progress(),
    clock,
    random,
    metrics,
    log: apiLog,
  });
  const policing: Policing = createPolicing({
    namespace,
    client,
    rowsListed: () => reflector.hasSynced,
    onGrantChanged: (key) => mirror.grantChanged(key),
    onOtherPeer: (key) => ledger.dropOutside(key),
    onPolicyChanged: () => grpc.recheck(),
    onKnown() {
      replica.resume();
      progress();
    },
    isLeader: () => replica.isLeader(),
    clock,
    random,
    metrics,
    log: apiLog,
  });
  const gate = replica.reporters;
  const hasten = (): void => {
    reflector.hasten();
    replica.hasten();
    policing.hasten();
  };
  const reconciler: Reconciler = new Reconciler({
    api: createRowApi(rows),
    ledger,
    cache,
    gate,
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
    onNoAnswer: hasten,
    onRefused: ({ key, tunnelName }, answer) => gate.refused(key, tunnelName, answer),
    clock,
    random,
    metrics,
    log,
  });
  const mirror: Mirror = new Mirror({
    ledger,
    cache,
    queue,
    workers,
    gate,
    streams: gate,
    isDue: (key, tunnelName) => reconciler.due(key, tunnelName) !== undefined,
    pacing: new UndoPacing(clock),
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
    auth: reporting.auth,
    maxStreamAgeMs: config.maxStreamAgeMs,
    sink: {
      reporterConnected(reporter, envoy, peer, isExpected) {
        policing.grants.connected(reporter, peer);
        mirror.reporterConnected(reporter, envoy, isExpected);
      },
      reporterDisconnected: (reporter, why) => mirror.reporterDisconnected(reporter, why),
      fold: (reporter, report, receivedMs) =>
        policing.grants.overLimit(reporter) ?? mirror.fold(reporter, report, receivedMs),
    },
    policy: policing.grants,
    clock,
    random,
    log,
    metrics,
  });
  let stopping = false;
  /** Says that it is ready, as soon as it is. */
  const progress = (): void => {
    if (!stopping && replica.notReady() === undefined) grpc.setServing(true);
  };
  const reflector: Reflector<RowObject> = new Reflector<RowObject>({
    source: rows,
    handler: cache,
    clock,
    random,
    log: apiLog,
    onState: (state) => {
      // Before every row is known a write could only guess; and what the list shows may already be right.
      if (state !== 'synced' || stopping) return;
      metrics.synced.set(1);
      workers.start();
      replica.resume();
      progress();
    },
  });

  const http = await orStartError(
    startHttpServer(config.httpAddress, {
      notReady: () => (stopping ? 'stopping' : replica.notReady()),
      metrics: async () => {
        gather(metrics, ledger, cache, queue);
        replica.gather();
        return { contentType: metrics.registry.contentType, text: await metrics.registry.metrics() };
      },
    }),
  );
  const grpcAddress = await orStartError(grpc.listen(), http);
  const unfollow = reporting.follow();
  const unfollowHeap = followHeap({ heap: v8Heap, isIdle: () => queue.idle, clock });
  log.info({ grpcAddress, httpAddress: http.address, replica: self }, 'serving');

  const ended = new AbortController();
  const reflecting = Promise.all([
    reflector.run(ended.signal),
    replica.start(ended.signal),
    policing.start(ended.signal),
  ]);

  /** Streams end once their last ACK is out; then what they said is written. False when that took too long. */
  async function flush(): Promise<boolean> {
    await grpc.close(DRAIN_MS);
    // A stream that has just begun is claimed for first.
    const written = replica.reporters.driver
      .idle()
      .then(() => mirror.looked())
      .then(() => workers.drained());
    return await withinMs(written, FLUSH_MS, clock);
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
      unfollow();
      unfollowHeap();
      // Another replica may lead at once; what is left to do here has nothing to do with it.
      const [flushed] = await Promise.all([
        flush(),
        withinMs(replica.stopLeading(), DRAIN_MS + FLUSH_MS, clock),
      ]);
      if (!flushed) log.warn({ keys: queue.depth }, 'stopping with pending changes');
      workers.stop();
      policing.stop();
      await withinMs(replica.stop(), RELEASE_MS, clock);
      ended.abort();
      await client.close();
      await reflecting;
      await http.close();
      log.info('stopped');
    },
  };
}

/** Sets what is read at a scrape and changes too often to be set when it does. */
function gather(metrics: Metrics, ledger: Ledger, cache: RowCache, queue: Workqueue): void {
  metrics.tunnels.set(ledger.totalTunnelCount());
  metrics.rows.set(cache.size);
  metrics.workqueueDepth.set({ name: 'tunnels' }, queue.depth);
  metrics.workqueueDelayed.set({ name: 'tunnels' }, queue.delayedCount);
}

/** False when it did not resolve in time; it goes on. */
async function withinMs(work: Promise<void>, limitMs: number, clock: Clock): Promise<boolean> {
  const late = Promise.withResolvers<boolean>();
  const cancel = clock.setTimer(limitMs, () => late.resolve(false));
  const inTime = await Promise.race([work.then(() => true), late.promise]);
  cancel();
  return inTime;
}

/** Turns what a person can mend into a StartError, closing what runs already. */
async function orStartError<T>(starting: Promise<T>, running?: HttpServer): Promise<T> {
  try {
    return await starting;
  } catch (error) {
    await running?.close();
    if (error instanceof ConnectionError) throw new StartError(error.message, { cause: error });
    if (error instanceof TlsMaterialError || error instanceof TlsFileError) {
      throw new StartError(`--tls-cert, --tls-key, --tls-client-ca: ${error.message}`, { cause: error });
    }
    if (error instanceof ListenError || error instanceof HttpListenError) {
      const flag = error instanceof ListenError ? '--grpc-address' : '--http-address';
      throw new StartError(`${error.message}; free the port or set another ${flag}`, { cause: error });
    }
    throw error;
  }
}
