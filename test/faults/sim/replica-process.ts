import { hash } from 'node:crypto';
import { pino } from 'pino';
import { TunnelEnqueuer } from '../../../src/controller/tunnel-enqueuer.ts';
import { TunnelReconciler } from '../../../src/controller/tunnel-reconciler.ts';
import { TunnelCache } from '../../../src/controller/tunnel-cache.ts';
import { RevertBackoff } from '../../../src/controller/revert-backoff.ts';
import { Workers } from '../../../src/controller/workers.ts';
import { Workqueue } from '../../../src/controller/workqueue.ts';
import { Ledger } from '../../../src/core/ledger.ts';
import { ALLOW_ALL } from '../../../src/core/grant.ts';
import { createNames } from '../../../src/core/names.ts';
import type { TunnelObject } from '../../../src/core/tunnel-object.ts';
import type { ReporterId } from '../../../src/core/tunnel.ts';
import { Reflector } from '../../../src/k8s/reflector.ts';
import { createTunnelApi, tunnelResource } from '../../../src/k8s/resources.ts';
import type { Log } from '../../../src/log.ts';
import { createMetrics } from '../../../src/metrics.ts';
import { createReplica, type Replica } from '../../../src/replica.ts';
import type { ApiLink } from './api-link.ts';
import type { Prng } from './prng.ts';
import type { SimProcess } from './process.ts';
import { ALLOW_ALL_REPORTS } from '../../../src/grpc/session-dependencies.ts';
import { createReportingService, type ReportingService } from './reporting-service.ts';

/** `--report-interval`. */
export const REPORT_INTERVAL_MS = 5000;
/** `--unknown-after`. */
export const UNKNOWN_AFTER_MS = 20_000;
/** `--expire-after`: short, but longer than a superseded stream needs to claim again. */
export const EXPIRE_AFTER_MS = 120_000;
const WRITE_CONCURRENCY = 8;
const FLUSH_TIMEOUT_MS = 5000;

const digests = new Map<string, Uint8Array>();
/** Names do not depend on the process, and all runs use the same few, so each is hashed only once. */
export const names = createNames((text) => {
  let digest = digests.get(text);
  if (digest === undefined) digests.set(text, (digest = hash('sha256', text, 'buffer')));
  return digest;
});
/** Ignored in the simulation. */
const metrics = createMetrics();
const silentLog: Log = pino({ level: 'silent', base: null });

/** One operator, composed as in `src/operator.ts`, without sockets. */
export interface ReplicaProcess {
  readonly process: SimProcess;
  readonly link: ApiLink;
  readonly service: ReportingService;
  /** Internals for the checks only. */
  readonly components: {
    readonly ledger: Ledger;
    readonly queue: Workqueue;
    readonly cache: TunnelCache;
    readonly enqueuer: TunnelEnqueuer;
    readonly workers: Workers;
    readonly replica: Replica;
  };
  /** Terminates as `stop` of `src/operator.ts` does; calls `exited` when the process may exit. */
  terminate(exited: () => void): void;
}

/** Dependencies of a simulated operator. */
export interface ReplicaProcessOptions {
  readonly process: SimProcess;
  readonly namespace: string;
  readonly link: ApiLink;
  readonly prng: Prng;
  /** Called for each report that was applied. */
  readonly onReport: (reporter: ReporterId) => void;
  /** Receives log lines; undefined: logging is off. */
  readonly log: ((line: string) => void) | undefined;
  readonly pageLimit: number;
}

/** Starts an operator, which is then driven by its process's clock, link and streams. */
export function startReplicaProcess(options: ReplicaProcessOptions): ReplicaProcess {
  const { process, namespace, link, prng } = options;
  const clock = process;
  const random = (): number => prng.fraction();
  const write = options.log;
  const log: Log =
    write === undefined
      ? silentLog
      : pino({ base: null, timestamp: false, level: 'info' }, { write: (line) => write(line) });
  const rows = link.client.resource<TunnelObject>(tunnelResource(namespace));
  const ledger = new Ledger({ tunnelsPerReporter: 1000 });
  const queue = new Workqueue(clock);
  const cache: TunnelCache = new TunnelCache(
    names,
    (key, tunnelName) => ledger.tunnel(key, tunnelName),
    (key, tunnelName) => enqueuer.onObjectChanged(key, tunnelName),
  );
  const retryNow = (): void => {
    reflector.retryNow();
    replica.retryNow();
  };
  const needsWrite = (key: string, tunnelName: string): boolean =>
    reconciler.nextWrite(key, tunnelName) !== undefined;
  const replica: Replica = createReplica({
    self: process.name,
    namespace,
    client: link.client,
    names,
    ledger,
    queue,
    rows: cache,
    objectsSynced: () => reflector.hasSynced,
    // The simulation has no policies; test/unit/policy-enforcement.test.ts covers them.
    policiesSynced: () => true,
    onReporterRemoved: () => {},
    needsWrite,
    enqueuer: () => enqueuer,
    reportIntervalMs: () => REPORT_INTERVAL_MS,
    unknownAfterMs: UNKNOWN_AFTER_MS,
    expireAfterMs: EXPIRE_AFTER_MS,
    relistOthers: () => reflector.relist(),
    onUnreachable: retryNow,
    onReadinessChanged: () => {},
    clock,
    random,
    metrics,
    log,
  });
  const reporters = replica.reporters;
  const reconciler: TunnelReconciler = new TunnelReconciler({
    api: createTunnelApi(rows),
    ledger,
    cache,
    writeAuthorizer: reporters,
    names,
    relist: () => reflector.relist(),
    clock,
    metrics,
    log,
  });
  const workers = new Workers({
    queue,
    reconcile: (item) => reconciler.reconcile(item),
    concurrency: WRITE_CONCURRENCY,
    onUnreachable: retryNow,
    onRejected: ({ key, tunnelName }, answer) => reporters.writeRejected(key, tunnelName, answer),
    clock,
    random,
    metrics,
    log,
  });
  const enqueuer: TunnelEnqueuer = new TunnelEnqueuer({
    ledger,
    grantFor: () => ALLOW_ALL,
    cache,
    queue,
    workers,
    writeAuthorizer: reporters,
    streams: reporters,
    needsWrite,
    revertBackoff: new RevertBackoff(clock),
    clock,
    metrics,
  });
  const service = createReportingService({
    sink: {
      reporterConnected: (reporter, envoy) => enqueuer.reporterConnected(reporter, envoy),
      reporterDisconnected: (reporter, why) => enqueuer.reporterDisconnected(reporter, why),
      apply(reporter, report, receivedMs) {
        const limitExceeded = enqueuer.apply(reporter, report, receivedMs);
        options.onReport(reporter);
        return limitExceeded;
      },
    },
    reportIntervalMs: () => REPORT_INTERVAL_MS,
    maxTunnelsPerReporter: 1000,
    onInvalid: 'skip',
    policy: ALLOW_ALL_REPORTS,
    throttled: (_key, emit) => emit({}),
    throttledDenials: () => {},
    clock,
    log,
    metrics,
  });
  let stopping = false;
  const reflector: Reflector<TunnelObject> = new Reflector<TunnelObject>({
    source: rows,
    handler: cache,
    clock,
    random,
    log,
    pageLimit: options.pageLimit,
    onStateChange: (state) => {
      if (state !== 'synced' || stopping) return;
      workers.start();
      replica.resume();
    },
  });
  const ended = new AbortController();
  void reflector.run(ended.signal);
  void replica.start(ended.signal);

  async function terminate(): Promise<void> {
    stopping = true;
    service.close();
    const written = replica.reporters.reconciler
      .idleWaiters()
      .then(() => enqueuer.drainWaiters())
      .then(() => workers.drained());
    await Promise.all([
      withTimeout(written, FLUSH_TIMEOUT_MS, process),
      withTimeout(replica.stopLeading(), FLUSH_TIMEOUT_MS, process),
    ]);
    workers.stop();
    await withTimeout(replica.stop(), 1500, process);
    ended.abort();
    await link.client.close();
  }

  return {
    process,
    link,
    service,
    components: { ledger, queue, cache, enqueuer, workers, replica },
    terminate: (exited) => void terminate().then(exited),
  };
}

async function withTimeout(work: Promise<void>, timeoutMs: number, clock: SimProcess): Promise<void> {
  const timeout = Promise.withResolvers<void>();
  const cancel = clock.setTimer(timeoutMs, () => timeout.resolve());
  await Promise.race([work, timeout.promise]);
  cancel();
}
