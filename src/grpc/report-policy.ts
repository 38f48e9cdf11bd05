import type { Peer } from '../core/peer.ts';
import type { ReporterId, Tunnel } from '../core/tunnel.ts';
import type { Violation } from '../core/violation.ts';
import type { RejectedTunnels } from './decode.ts';

/** Who may report what. The answers may be others at any time: `ReportingServer.recheck` is to be called then. */
export interface ReportPolicy {
  /** False: everybody may report everything, and nothing else need be asked. */
  readonly hasPolicies: boolean;
  /** Why a peer may not report at all; undefined when it may. */
  peerRejection(peer: Peer): string | undefined;
  /** Why a peer may not report as this reporter; undefined when it may. */
  reporterRejection(peer: Peer, reporter: ReporterId): Violation | undefined;
  /** Those of the tunnels that a peer may not report as this reporter; undefined when there are none. */
  deniedTunnels(peer: Peer, reporter: ReporterId, added: readonly Tunnel[]): RejectedTunnels | undefined;
  /** A report of the reporter was read: how many milliseconds the next one is to be left unread. 0: none. */
  throttleDelayMs(reporter: ReporterId): number;
  /** How many milliseconds a new stream's first report is to be left unread, for what was read before. 0: none. */
  rateDebtMs(reporter: ReporterId): number;
}

/** Of a server without policies. */
export const ALLOW_ALL: ReportPolicy = {
  hasPolicies: false,
  peerRejection: () => undefined,
  reporterRejection: () => undefined,
  deniedTunnels: () => undefined,
  throttleDelayMs: () => 0,
  rateDebtMs: () => 0,
};
