import type { Peer } from '../core/peer.ts';
import type { ReporterId, Tunnel } from '../core/tunnel.ts';
import type { Violation } from '../core/violation.ts';
import type { SetAside } from './decode.ts';

/** Who may report what. The answers may be others at any time: `ReportingServer.recheck` is to be called then. */
export interface ReportPolicy {
  /** False: everybody may report everything, and nothing else need be asked. */
  readonly isSelective: boolean;
  /** Why a peer may not report at all; undefined when it may. */
  peerRefusal(peer: Peer): string | undefined;
  /** Why a peer may not report as this reporter; undefined when it may. */
  reporterRefusal(peer: Peer, reporter: ReporterId): Violation | undefined;
  /** Those of the tunnels that a peer may not report as this reporter; undefined when there are none. */
  outside(peer: Peer, reporter: ReporterId, added: readonly Tunnel[]): SetAside | undefined;
  /** A report of the reporter was read: how many milliseconds the next one is to be left unread. 0: none. */
  holdBackMs(reporter: ReporterId): number;
  /** How many milliseconds a new stream's first report is to be left unread, for what was read before. 0: none. */
  debtMs(reporter: ReporterId): number;
}

/** Of a server without policies. */
export const NO_POLICY: ReportPolicy = {
  isSelective: false,
  peerRefusal: () => undefined,
  reporterRefusal: () => undefined,
  outside: () => undefined,
  holdBackMs: () => 0,
  debtMs: () => 0,
};
