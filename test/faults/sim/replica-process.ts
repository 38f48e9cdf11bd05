import { hash } from 'node:crypto';
import { pino } from 'pino';
import { Mirror } from '../../../src/controller/mirror.ts';
import { Reconciler } from '../../../src/controller/reconciler.ts';
import { RowCache } from '../../../src/controller/row-cache.ts';
import { UndoPacing } from '../../../src/controller/undo-pacing.ts';
import { Workers } from '../../../src/controller/workers.ts';
import { Workqueue } from '../../../src/controller/workqueue.ts';
import { Ledger } from '../../../src/core/ledger.ts';
import { createNames } from '../../../src/core/names.ts';
import type { RowObject } from '../../../src/core/row.ts';
import type { ReporterId } from '../../../src/core/tunnel.ts';
import { Reflector } from '../../../src/k8s/reflector.ts';
import { createRowApi, rowResource } from '../../../src/k8s/row-api.ts';
import type { Log } from '../../../src/log.ts';
import { createMetrics } from '../../../src/metrics.ts';
import { createReplica, type Replica } from '../../../src/replica.ts';
import type { ApiLink } from './api-link.ts';
import type { Dice } from './dice.ts';
import type { SimProcess } from './process.ts';
import { NO_POLICY } from '../../../src/grpc/report-policy.ts';
import { createReportingService, type ReportingService } from './reporting-service.ts';

/** `--report-interval`. */
export const REPORT_INTERVAL_MS = 5000;
/** `--unknown-after`. */
export const UNKNOWN_AFTER_MS = 20_000;
/** `--expire-after`: short, but longer than a superseded stream needs to claim again. */
export const EXPIRE_AFTER_MS = 120_000;
const WRITE_CONCURRENCY = 8;
const FLUSH_MS = 5000;

const digests = new Map<string, Uint8Array>();
/** Names do not depend on the process, and all worlds have the same few: each is hashed once. */
export const names = createNames((text) => {
  let digest = digests.get(text);
  if (digest === undefined) digests.set(text, (digest = hash('sha256', text, 'buffer')));
  return digest;
});
/** Nobody's business here. */
const metrics = createMetrics();
const silent: Log = pino({ level: 'silent', base: null });

/** One operator, as `src/operator.ts` composes it, without sockets. */
export interface ReplicaProcess {
  readonly process: SimProcess;
  readonly link: ApiLink;
  readonly service: ReportingService;
  /** What may be asked by a judge, and by nobody else. */
  readonly parts: {
    readonly ledger: Ledger;
    readonly queue: Workqueue;
    readonly cache: RowCache;
    readonly mirror: Mirror;
    readonly workers: Workers;
    readonly replica: Replica;
  };
  /** SIGTERM: what `stop` of `src/operator.ts` does; `exited` is called when the process may end. */
  terminate(exited: () => void): void;
}

/** What an operator runs on. */
export interface ReplicaProcessOptions {
  readonly process: SimProcess;
  readonly namespace: string;
  readonly link: ApiLink;
  readonly dice: Dice;
  /** Told of each report that was folded. */
  readonly onReport: (reporter: ReporterId) => void;
  /** Where log lines go; undefined: nowhere. */
  readonly log: ((line: string) => void) | undefined;
  readonly pageLimit: number;
}

/** Starts one; from here on it lives by its process's clock, link and streams. */
export function startReplicaProcess(options: ReplicaProcessOptions): ReplicaProcess {
  const { process, namespace, link, dice } = options;
  const clock = process;
  const random = (): number => dice.fraction();
  const write = options.log;
  const log: Log =
    write === undefined
      ? silent
      : pino({ base: null, timestamp: false, level: 'info' }, { write: (line) => write(line) });
  const rows = link.client.resource<RowObject>(rowResource(namespace));
  const ledger = new Ledger(1000);
  const queue = new Workqueue(clock);
  const cache: RowCache = new RowCache(
    names,
    (key, tunnelName) => ledger.tunnel(key, tunnelName),
    (key, tunnelName) => mirror.rowChanged(key, tunnelName),
  );
  const hasten = (): void => {
    reflector.hasten();
    replica.hasten();
  };
  const isDue = (key: string, tunnelName: string): boolean => reconciler.due(key, tunnelName) !== undefined;
  const replica: Replica = createReplica({
    self: process.name,
    namespace,
    client: link.client,
    names,
    ledger,
    queue,
    rows: cache,
    rowsListed: () => reflector.hasSynced,
    // There are no policies in the simulation: test/unit/policy-rows.test.ts has those.
    policiesKnown: () => true,
    onForgotten: () => {},
    isDue,
    mirror: () => mirror,
    reportIntervalMs: () => REPORT_INTERVAL_MS,
    unknownAfterMs: UNKNOWN_AFTER_MS,
    expireAfterMs: EXPIRE_AFTER_MS,
    relistOthers: () => reflector.relist(),
    onNoAnswer: hasten,
    onProgress: () => {},
    clock,
    random,
    metrics,
    log,
  });
  const gate = replica.reporters;
  const reconciler: Reconciler = new Reconciler({
    api: createRowApi(rows),
    ledger,
    cache,
    gate,
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
    isDue,
    pacing: new UndoPacing(clock),
    clock,
    metrics,
  });
  const service = createReportingService({
    sink: {
      reporterConnected: (reporter, envoy) => mirror.reporterConnected(reporter, envoy),
      reporterDisconnected: (reporter, why) => mirror.reporterDisconnected(reporter, why),
      fold(reporter, report, receivedMs) {
        const over = mirror.fold(reporter, report, receivedMs);
        options.onReport(reporter);
        return over;
      },
    },
    reportIntervalMs: () => REPORT_INTERVAL_MS,
    maxTunnelsPerReporter: 1000,
    onInvalid: 'skip',
    policy: NO_POLICY,
    denials: { denied() {} },
    say: (_what, say) => say({}),
    clock,
    log,
    metrics,
  });
  let stopping = false;
  const reflector: Reflector<RowObject> = new Reflector<RowObject>({
    source: rows,
    handler: cache,
    clock,
    random,
    log,
    pageLimit: options.pageLimit,
    onState: (state) => {
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
    const written = replica.reporters.driver
      .idle()
      .then(() => mirror.looked())
      .then(() => workers.drained());
    await Promise.all([
      withinMs(written, FLUSH_MS, process),
      withinMs(replica.stopLeading(), FLUSH_MS, process),
    ]);
    workers.stop();
    await withinMs(replica.stop(), 1500, process);
    ended.abort();
    await link.client.close();
  }

  return {
    process,
    link,
    service,
    parts: { ledger, queue, cache, mirror, workers, replica },
    terminate: (exited) => void terminate().then(exited),
  };
}

async function withinMs(work: Promise<void>, limitMs: number, clock: SimProcess): Promise<void> {
  const late = Promise.withResolvers<void>();
  const cancel = clock.setTimer(limitMs, () => late.resolve());
  await Promise.race([work, late.promise]);
  cancel();
}
