import type { LimitExceeded } from '../core/apply-report.ts';
import type { Peer } from '../core/peer.ts';
import type { RejectedTunnels, Violation } from '../core/report.ts';
import type { EnvoyMetadata, ReporterDisconnectReason } from '../core/reporter-status.ts';
import type { ReporterId, Tunnel } from '../core/tunnel.ts';
import type { DecodedReport } from './decode.ts';

/** Why a reporter no longer has a stream on this replica. */
export type LocalDisconnectReason = Exclude<ReporterDisconnectReason, 'OwnerLost'> | 'shutdown';

/** Where valid reports go. Implemented by `ReportIntake` (`src/controller/report-intake.ts`). */
export interface ReportSink {
  /**
   * A reporter opened a stream, possibly in place of an older one; called before its first report is applied.
   *
   * @param isReconnect its previous stream here was closed so that it would reconnect, and that end was not reported
   */
  reporterConnected(reporter: ReporterId, envoy: EnvoyMetadata, peer: Peer, isReconnect: boolean): void;
  /** A reporter no longer has a stream here. */
  reporterDisconnected(reporter: ReporterId, reason: LocalDisconnectReason): void;
  /**
   * Returns the tunnels that a reporter has reported, in the order in which it probably lists them in a full push: equal
   * ones are then not created again. Empty is always correct.
   */
  knownTunnels(reporter: ReporterId): Iterable<Tunnel>;
  /**
   * Applies a report in memory, synchronously. The report is ACKed when this returns; requests to the API server are
   * sent on a later tick.
   *
   * @param receivedMs when the whole report had been read, monotonic
   * @returns the limit that the report exceeds, in which case nothing has changed
   */
  accept(reporter: ReporterId, report: DecodedReport, receivedMs: number): LimitExceeded | undefined;
}

/**
 * The permissions of reporters. Implemented by `Authorizer` (`src/controller/authorizer.ts`). When the answers change,
 * `ReportingServer.reauthorize` must be called.
 */
export interface ReportPolicy {
  /** False: every peer may report everything, and the other members need not be called. */
  readonly hasPolicies: boolean;
  /** Returns why a peer may not report at all; undefined if it may. */
  peerRejection(peer: Peer): string | undefined;
  /** Returns why a peer may not report as this reporter; undefined if it may. */
  reporterRejection(peer: Peer, reporter: ReporterId): Violation | undefined;
  /** Returns the tunnels that a peer may not report as this reporter; undefined if it may report all of them. */
  deniedTunnels(peer: Peer, reporter: ReporterId, added: readonly Tunnel[]): RejectedTunnels | undefined;
  /** Records that a report was read, and returns the delay before the next one may be read, in ms; 0: none. */
  throttleDelayMs(reporter: ReporterId): number;
  /** Returns the delay before a new stream's first report may be read, due to earlier reports, in ms; 0: none. */
  rateDebtMs(reporter: ReporterId): number;
}

/** The policy of a server without policies. */
export const ALLOW_ALL_REPORTS: ReportPolicy = {
  hasPolicies: false,
  peerRejection: () => undefined,
  reporterRejection: () => undefined,
  deniedTunnels: () => undefined,
  throttleDelayMs: () => 0,
  rateDebtMs: () => 0,
};
