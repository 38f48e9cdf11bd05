/** Who is at the other end of a stream, as its credential proves it. */
export type Peer =
  /** Anybody: nothing was asked for (`--auth insecure`). */
  | { readonly kind: 'nothing' }
  /** A client certificate of the configured CA. */
  | {
      readonly kind: 'certificate';
      /** Its URI SANs, among them a SPIFFE id, as they stand there. */
      readonly uris: readonly string[];
      /** Its DNS SANs, as they stand there. */
      readonly dnsNames: readonly string[];
    }
  /** A ServiceAccount's token that the API server has reviewed. */
  | { readonly kind: 'token'; readonly namespace: string; readonly serviceAccount: string };

/** One text for each peer: two that prove the same are one. */
export function peerKey(peer: Peer): string {
  return JSON.stringify(peer);
}

/** Of a peer that was asked for nothing. */
export const ANONYMOUS: Peer = { kind: 'nothing' };
