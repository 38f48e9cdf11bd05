import { pino } from 'pino';

import { Grants } from '../../src/controller/grants.ts';
import { Mirror } from '../../src/controller/mirror.ts';
import { Reconciler } from '../../src/controller/reconciler.ts';
import { RowCache } from '../../src/controller/row-cache.ts';
import { UndoPacing } from '../../src/controller/undo-pacing.ts';
import { Workers } from '../../src/controller/workers.ts';
import { Workqueue } from '../../src/controller/workqueue.ts';
import type { RowGate } from '../../src/controller/row-gate.ts';
import { Ledger } from '../../src/core/ledger.ts';
import { ANYBODY, type Peer } from '../../src/core/peer.ts';
import type { Report } from '../../src/core/report.ts';
import type { RowObject } from '../../src/core/row.ts';
import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import { createMetrics } from '../../src/metrics.ts';
import { FakeClock } from './fake-clock.ts';
import { passTime, settled } from './fake-time.ts';
import { MemoryRowApi } from './memory-row-api.ts';
import { names } from './sample-tunnels.ts';

/** One for all worlds, as each would observe garbage collections for itself. */
const metrics = createMetrics();

/** A replica that owns every reporter, for tests about rows and not about whose they are. */
export const OPEN_GATE: RowGate = {
  isOpen: () => true,
  permission: () => 'yes',
  freshRead: () => Promise.resolve(undefined),
  phase: () => undefined,
  reporter: () => undefined,
  foreignRow() {},
  skipped() {},
  refused() {},
};

/** What an Envoy that tells nothing tells about itself. */
export const PLAIN_ENVOY = { version: undefined, locality: undefined };
/** A report in which everything was right. */
export const NONE_SET_ASIDE = { setAside: { count: 0, first: [] } };

/** The controller as the operator composes it, over rows in memory, in fake time. Metrics begin at zero. */
export function createWorld({
  api = new MemoryRowApi(),
  concurrency = 8,
  maxTunnelsPerReporter = 1000,
  gate = OPEN_GATE,
}: { api?: MemoryRowApi; concurrency?: number; maxTunnelsPerReporter?: number; gate?: RowGate } = {}) {
  metrics.registry.resetMetrics();
  const logged: Record<string, unknown>[] = [];
  const log = pino(
    { base: null },
    { write: (line: string) => logged.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const clock = new FakeClock();
  // As on a real machine, whose monotonic clock began before the process did.
  clock.advance(60_000);
  const grants = new Grants({
    onChanged: (key) => mirror.grantChanged(key),
    onOtherPeer: (key) => ledger.dropOutside(key),
    onReviewed() {},
    clock,
  });
  const ledger = new Ledger(maxTunnelsPerReporter, (key) => grants.of(key));
  const queue = new Workqueue(clock);
  const cache: RowCache = new RowCache(
    names,
    (key, tunnelName) => ledger.tunnel(key, tunnelName),
    (key, tunnelName) => mirror.rowChanged(key, tunnelName),
  );
  const reconciler = new Reconciler({
    api,
    ledger,
    cache,
    gate,
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
    onNoAnswer: () => {},
    onRefused: () => {},
    clock,
    random: () => 0.5,
    metrics,
    log,
  });
  const mirror: Mirror = new Mirror({
    ledger,
    cache,
    queue,
    workers,
    gate,
    streams: { streamOpened() {}, streamClosed() {}, reportRead() {}, grantChanged() {} },
    isDue: (key, tunnelName) => reconciler.due(key, tunnelName) !== undefined,
    pacing: new UndoPacing(clock),
    clock,
    metrics,
  });

  /** Lets all run that can without time passing, the watch included. */
  async function settle(): Promise<void> {
    do await settled();
    while (api.deliver(cache) > 0);
  }

  return {
    api,
    cache,
    clock,
    grants,
    ledger,
    logged,
    metrics,
    mirror,
    queue,
    workers,
    settle,

    /** The operator has listed the rows, and begins to write. */
    begin: async (): Promise<void> => {
      api.relist(cache);
      workers.start();
      await settle();
    },

    /** A report comes; it has to be accepted. */
    report: (reporter: ReporterId, report: Report, peer: Peer = ANYBODY): void => {
      grants.connected(reporter, peer);
      mirror.reporterConnected(reporter, PLAIN_ENVOY);
      const overLimit = mirror.fold(reporter, { ...report, ...NONE_SET_ASIDE }, clock.monotonicMs());
      if (overLimit !== undefined) throw new Error(`over the limit: ${JSON.stringify(overLimit)}`);
    },

    /** Lets time pass, everything running meanwhile, the watch included. */
    pass: (ms: number): Promise<void> => passTime(clock, ms, settle),

    /** Lets time pass while the watch is silent. */
    passUnwatched: (ms: number): Promise<void> => passTime(clock, ms),

    /** The row that stands for a tunnel in the API server. */
    row: (reporter: ReporterId, of: Tunnel): RowObject | undefined =>
      api.rows.get(names.rowName(reporter, of)),
  };
}

/** One replica that owns every reporter, over an API server in memory, in fake time. */
export type World = ReturnType<typeof createWorld>;

/** What the rows say, and nothing of how they came to say it; in the order of their text. */
export function rowTexts(rows: Iterable<RowObject>): string[] {
  return [...rows]
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
