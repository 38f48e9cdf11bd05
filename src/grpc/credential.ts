import type { Peer } from '../core/peer.ts';

/** Who a peer is, and until when that is proven. */
export interface Credential {
  readonly peer: Peer;
  /** ms since 1970: the certificate's notAfter or the token's expiry. Undefined: it has no end of its own. */
  readonly expiresMs: number | undefined;
}
