import { hash } from 'node:crypto';
import { pino } from 'pino';
import type { SliceCache } from '../../../src/controller/slice-cache.ts';
import type { TunnelCache } from '../../../src/controller/tunnel-cache.ts';
import type { Controllers } from '../../../src/controllers.ts';
import type { Ledger } from '../../../src/core/ledger.ts';
import { createNames } from '../../../src/core/names.ts';
import type { Report } from '../../../src/core/report.ts';
import type { Representation } from '../../../src/core/representation.ts';
import type { ReporterId } from '../../../src/core/tunnel.ts';
import type { Log } from '../../../src/log.ts';
import { createMetrics } from '../../../src/metrics.ts';
import { createReplica } from '../../../src/replica.ts';
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
/** `--removal-hold`, and a threshold that the few tunnels of a simulated reporter reach. */
export const REMOVAL_HOLD = { holdMs: 15_000, thresholdPercent: 50, maxImmediate: 1 };
/** Few, so that the tunnels of a simulated reporter need several slices. */
export const MAX_SLICE_TUNNELS = 2;
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
  /** `--representation`. */
  readonly representation: Representation;
  /** Internals for the checks only. */
  readonly components: {
    readonly ledger: Ledger;
    readonly cache: TunnelCache;
    readonly slices: SliceCache;
    readonly controllers: Controllers;
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
  /** `--representation`. */
  readonly representation: Representation;
  /** False: the API server does not serve slices. */
  readonly hasSlices: boolean;
  /** Called for each report before it is applied. */
  readonly beforeReport: (reporter: ReporterId, report: Report) => void;
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
  const write = options.log;
  const log: Log =
    write === undefined
      ? silentLog
      : pino({ base: null, timestamp: false, level: 'info' }, { write: (line) => write(line) });
  const { client } = link;
  const replica = createReplica({
    self: process.name,
    names,
    client,
    namespace,
    limits: { tunnelsPerReporter: 1000 },
    settings: {
      reportIntervalMs: REPORT_INTERVAL_MS,
      unknownAfterMs: UNKNOWN_AFTER_MS,
      expireAfterMs: EXPIRE_AFTER_MS,
      removalHold: REMOVAL_HOLD,
      representation: options.representation,
      maxSliceTunnels: MAX_SLICE_TUNNELS,
      writeConcurrency: WRITE_CONCURRENCY,
    },
    watchSlices: options.hasSlices,
    watchPolicies: false,
    watchExpectations: false,
    tunnelPageLimit: options.pageLimit,
    clock,
    random: () => prng.fraction(),
    metrics,
    log,
  });
  const { ledger, caches, leases, controllers } = replica;
  const { intake } = controllers;
  // The simulation has no policies; test/unit/policy-enforcement.test.ts has.
  caches.policies.onKindMissing();
  if (!options.hasSlices) caches.slices.onKindMissing();
  const service = createReportingService({
    sink: {
      reporterConnected: (reporter, envoy, peer, isReconnect) =>
        intake.reporterConnected(reporter, envoy, peer, isReconnect),
      reporterDisconnected: (reporter, reason) => intake.reporterDisconnected(reporter, reason),
      knownTunnels: (reporter) => intake.knownTunnels(reporter),
      accept(reporter, report, receivedMs) {
        options.beforeReport(reporter, report);
        const exceeded = intake.accept(reporter, report, receivedMs);
        options.onReport(reporter);
        return exceeded;
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
  const ended = new AbortController();
  void replica.run(ended.signal);

  async function terminate(): Promise<void> {
    service.close();
    await Promise.all([
      withTimeout(controllers.drained(), FLUSH_TIMEOUT_MS, process),
      withTimeout(leases.leader.release(), FLUSH_TIMEOUT_MS, process),
    ]);
    controllers.stop();
    await withTimeout(leases.own.release(), 1500, process);
    ended.abort();
    await client.close();
  }

  return {
    process,
    link,
    service,
    representation: options.representation,
    components: { ledger, cache: caches.tunnels, slices: caches.slices, controllers },
    terminate: (exited) => void terminate().then(exited),
  };
}

async function withTimeout(work: Promise<void>, timeoutMs: number, clock: SimProcess): Promise<void> {
  const timeout = Promise.withResolvers<void>();
  const cancel = clock.setTimer(timeoutMs, () => timeout.resolve());
  await Promise.race([work, timeout.promise]);
  cancel();
}
