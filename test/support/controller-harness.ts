import { pino } from 'pino';

import { Authorizer } from '../../src/controller/authorizer.ts';
import { TunnelEnqueuer } from '../../src/controller/tunnel-enqueuer.ts';
import { TunnelReconciler } from '../../src/controller/tunnel-reconciler.ts';
import { TunnelCache } from '../../src/controller/tunnel-cache.ts';
import { RevertBackoff } from '../../src/controller/revert-backoff.ts';
import { Workers } from '../../src/controller/workers.ts';
import { Workqueue } from '../../src/controller/workqueue.ts';
import type { WriteAuthorizer } from '../../src/controller/write-authorizer.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { ANONYMOUS, type Peer } from '../../src/core/peer.ts';
import type { Report } from '../../src/core/report.ts';
import type { TunnelObject } from '../../src/core/tunnel-object.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { advanceTime, flushEventLoop } from './fake-time.ts';
import { MemoryTunnelApi } from './memory-tunnel-api.ts';
import { names } from './sample-tunnels.ts';

/** One for all worlds, as each would observe garbage collections for itself. */
const metrics = createMetrics();

/** A replica that owns every reporter, for tests about rows and not about whose they are. */
export const ALLOW_ALL_WRITES: WriteAuthorizer = {
  canWrite: () => true,
  authorize: () => 'allow',
  liveRead: () => Promise.resolve(undefined),
  phase: () => undefined,
  reporter: () => undefined,
  externalChange() {},
  writeSkipped() {},
  writeRejected() {},
};

/** What an Envoy that tells nothing tells about itself. */
export const PLAIN_ENVOY = { version: undefined, locality: undefined };
/** A report in which everything was right. */
export const NONE_REJECTED = { rejected: { count: 0, first: [] } };

/** The controller as the operator composes it, over rows in memory, in fake time. Metrics begin at zero. */
export function createHarness({
  api = new MemoryTunnelApi(),
  concurrency = 8,
  maxTunnelsPerReporter = 1000,
  gate = ALLOW_ALL_WRITES,
}: {
  api?: MemoryTunnelApi;
  concurrency?: number;
  maxTunnelsPerReporter?: number;
  gate?: WriteAuthorizer;
} = {}) {
  metrics.registry.resetMetrics();
  const logged: Record<string, unknown>[] = [];
  const log = pino(
    { base: null },
    { write: (line: string) => logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const clock = new FakeClock();
  // As on a real machine, whose monotonic clock began before the process did.
  clock.advance(60_000);
  const authorizer = new Authorizer({
    onGrantChanged: (key) => enqueuer.onGrantChanged(key),
    onPeerChanged: (key) => ledger.dropDenied(key),
    onReevaluated() {},
    clock,
  });
  const ledger = new Ledger({ tunnelsPerReporter: maxTunnelsPerReporter });
  const queue = new Workqueue(clock);
  const cache: TunnelCache = new TunnelCache(
    names,
    (key, tunnelName) => ledger.tunnel(key, tunnelName),
    (key, tunnelName) => enqueuer.onObjectChanged(key, tunnelName),
  );
  const reconciler = new TunnelReconciler({
    api,
    ledger,
    cache,
    writeAuthorizer: gate,
    names,
    relist: () => api.relist(cache),
    clock,
    metrics,
    log,
  });
  const workers = new Workers({
    queue,
    reconcile: (item) => reconciler.reconcile(item),
    concurrency,
    onUnreachable: () => {},
    onRejected: () => {},
    clock,
    random: () => 0.5,
    metrics,
    log,
  });
  const enqueuer: TunnelEnqueuer = new TunnelEnqueuer({
    ledger,
    grantFor: (key) => authorizer.grantFor(key),
    cache,
    queue,
    workers,
    writeAuthorizer: gate,
    streams: { onStreamOpened() {}, onStreamClosed() {}, onReport() {}, onGrantChanged() {} },
    needsWrite: (key, tunnelName) => reconciler.nextWrite(key, tunnelName) !== undefined,
    revertBackoff: new RevertBackoff(clock),
    clock,
    metrics,
  });

  /** Lets all run that can without time passing, the watch included. */
  async function settle(): Promise<void> {
    do await flushEventLoop();
    while (api.deliver(cache) > 0);
  }

  return {
    api,
    cache,
    clock,
    authorizer,
    ledger,
    logged,
    metrics,
    enqueuer,
    queue,
    workers,
    settle,

    /** The operator has listed the rows, and begins to write. */
    start: async (): Promise<void> => {
      api.relist(cache);
      workers.start();
      await settle();
    },

    /** A report comes; it has to be accepted. */
    report: (reporter: ReporterId, report: Report, peer: Peer = ANONYMOUS): void => {
      authorizer.onStreamOpened(reporter, peer);
      enqueuer.reporterConnected(reporter, PLAIN_ENVOY);
      const limitExceeded = enqueuer.apply(reporter, { ...report, ...NONE_REJECTED }, clock.monotonicMs());
      if (limitExceeded !== undefined) throw new Error(`over the limit: ${JSON.stringify(limitExceeded)}`);
    },

    /** Lets time pass, everything running meanwhile, the watch included. */
    advance: (ms: number): Promise<void> => advanceTime(clock, ms, settle),

    /** Lets time pass while the watch is silent. */
    advanceUnwatched: (ms: number): Promise<void> => advanceTime(clock, ms),

    /** The row that stands for a tunnel in the API server. */
    object: (reporter: ReporterId, of: Tunnel): TunnelObject | undefined =>
      api.stored.get(names.tunnelObjectName(reporter, of)),
  };
}

/** One replica that owns every reporter, over an API server in memory, in fake time. */
export type ControllerHarness = ReturnType<typeof createHarness>;

/** What the rows say, and nothing of how they came to say it; in the order of their text. */
export function objectTexts(objects: Iterable<TunnelObject>): string[] {
  return [...objects]
    .map(({ metadata, spec, status }) =>
      JSON.stringify([
        metadata.name,
        metadata.labels,
        spec,
        status?.state,
        status?.conditions?.map(({ type, status, reason }) => [type, status, reason]),
      ]),
    )
    .toSorted();
}
