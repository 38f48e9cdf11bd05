import type { Clock } from '../clock.ts';
import type { LimitExceeded, ObjectsContext } from '../core/apply-report.ts';
import type { Ledger } from '../core/ledger.ts';
import type { Peer } from '../core/peer.ts';
import type { Report } from '../core/report.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../core/tunnel.ts';
import type { Authorizer } from './authorizer.ts';
import type { FlapRecorder } from './flap-recorder.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { RemovalHolds } from './removal-holds.ts';
import type { ReportBurst } from './report-burst.ts';
import type { ReporterEnqueuer, ReportSummary } from './reporter-enqueuer.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import { sliceItemName } from './slice-item.ts';
import type { TransitionRecorder } from './transition-recorder.ts';
import type { TunnelEnqueuer } from './tunnel-enqueuer.ts';
import type { Workqueue } from './workqueue.ts';

export interface ReportIntakeOptions {
  readonly ledger: Ledger;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly assignments: SliceAssignments;
  readonly authorizer: Authorizer;
  readonly reporters: ReporterEnqueuer;
  readonly tunnels: TunnelEnqueuer;
  readonly registry: ReporterRegistry;
  readonly holds: RemovalHolds;
  readonly flaps: FlapRecorder;
  readonly burst: ReportBurst;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  readonly clock: Clock;
  /** Undefined: transitions are not recorded. */
  readonly transitions: TransitionRecorder | undefined;
}

/**
 * The entry point for everything that the gRPC server receives: streams and reports. It implements `ReportSink`, which
 * `src/grpc/session.ts` declares.
 */
export class ReportIntake {
  readonly #options: ReportIntakeOptions;

  constructor(options: ReportIntakeOptions) {
    this.#options = options;
  }

  /**
   * Records a new stream of a reporter, which replaces the previous one, if any. Must be called before its first report.
   *
   * @param isReconnect true if the reporter was asked to reconnect
   */
  reporterConnected(reporter: ReporterId, envoy: EnvoyMetadata, peer: Peer, isReconnect = false): void {
    const { authorizer, reporters } = this.#options;
    authorizer.onStreamOpened(reporter, peer);
    reporters.streamOpened(reporter, envoy, isReconnect);
  }

  /**
   * Records the end of a reporter's stream. What it reported is still written.
   *
   * @param reason `shutdown`: this replica stops, which is not recorded as a disconnect of the reporter
   */
  reporterDisconnected(reporter: ReporterId, reason: ReporterDisconnectReason | 'shutdown'): void {
    if (reason !== 'shutdown') this.#options.reporters.streamClosed(reporter, reason);
  }

  /** Returns the tunnels that a reporter holds, in the order in which they became known; see `Ledger.tunnels`. */
  knownTunnels(reporter: ReporterId): Iterable<Tunnel> {
    return this.#options.ledger.tunnels(reporterKey(reporter));
  }

  /**
   * Applies a report to the ledger and queues what it changed, synchronously. The workers start on a later tick, so the
   * ACK that the caller writes next precedes every request to the API server.
   *
   * @param receivedMs when the complete report was received, monotonic ms
   * @returns the limit that the report would exceed, in which case nothing has changed; undefined if it was accepted
   */
  accept(
    reporter: ReporterId,
    report: Report & Pick<ReportSummary, 'rejected'>,
    receivedMs: number,
  ): LimitExceeded | undefined {
    const { ledger, mirrored, authorizer, reporters, tunnels, holds, flaps, burst, clock, transitions } =
      this.#options;
    const exceeded = authorizer.limitExceeded(reporter);
    if (exceeded !== undefined) return exceeded;
    const key = reporterKey(reporter);
    const context = report.fullPush ? this.#objectsContext(key) : undefined;
    const result = ledger.apply(
      reporter,
      report,
      mirrored.priorState(key),
      authorizer.grantFor(key),
      context,
    );
    if ('limit' in result) return result;
    if (result.drops !== undefined) flaps.record(key, result.drops);
    if (result.hold !== undefined) holds.start(key, result.hold);
    transitions?.reportApplied(key, report, result.changed);
    reporters.reportReceived(key, report, result.changed.length > 0 || result.becameComplete);
    tunnels.enqueueReport(key, result, receivedMs);
    burst.reportRead(result.changed.length, clock.monotonicMs());
    return undefined;
  }

  #objectsContext(key: string): ObjectsContext {
    const { mirrored, assignments, registry, queue, clock } = this.#options;
    return {
      nowMs: clock.monotonicMs(),
      isListed: mirrored.hasSynced,
      isOwned: registry.entry(key)?.ownership.hasConfirmedClaim === true,
      isBeingWritten(name) {
        const sliceName = assignments.known(key)?.sliceOf(name);
        const isInSlice = sliceName !== undefined && queue.isRunning(key, sliceItemName(sliceName));
        return isInSlice || queue.isRunning(key, name);
      },
    };
  }
}
