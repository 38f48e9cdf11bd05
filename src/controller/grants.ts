import type { Clock } from '../clock.ts';
import { coversGrant, EVERYTHING, NOTHING, sameGrant, type Grant } from '../core/grant.ts';
import { peerKey, type Peer } from '../core/peer.ts';
import { grantOrNothing, OPEN, type PolicySet } from '../core/policy-set.ts';
import { heldRefusal, outsideMessage, peerRefusal, reporterRefusal } from '../core/policy-violation.ts';
import { fullBucket, takeToken, untilTokenMs, type TokenBucket } from '../core/token-bucket.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../core/tunnel.ts';
import type { Violation, ViolationReason } from '../core/violation.ts';

/** Whom changed grants concern, and the clock of the rates. */
export interface GrantsParts {
  /** What a reporter may report is another than before: what it holds is to be looked at again. */
  readonly onChanged: (key: string) => void;
  /** Another peer is about to speak for a reporter: what the former said and may not say is to be forgotten, at once. */
  readonly onOtherPeer: (key: string) => void;
  /** Every reporter has been looked at since the policies changed last. */
  readonly onReviewed: () => void;
  readonly clock: Clock;
}

/** Reporters whose grant is worked out anew in one turn of the event loop, if it stays the same for all of them. */
const REPORTERS_A_TURN = 256;
/**
 * Reporters that one peer may be here, with those whose rows have not expired; without authentication all are one peer. More
 * than a replica has connections; the tunnels of each have a bound of their own.
 */
const REPORTERS_OF_A_PEER = 10_000;
/** Tunnels that are spelt out for the log. */
const SHOWN = 5;

interface Holder {
  readonly reporter: ReporterId;
  peer: Peer;
  grant: Grant;
  readonly bucket: TokenBucket;
  /** Its peer was as many reporters as one may be before it became this one. */
  isOver: boolean;
}

/** Tunnels of a report that its reporter may not report. */
export interface Outside {
  readonly count: number;
  readonly byReason: ReadonlyMap<ViolationReason, number>;
  /** The first few, to be shown. */
  readonly first: readonly Violation[];
}

/**
 * What each reporter may report, by the policies as they are and by the peer of its last stream here; kept after that
 * stream's end, for its rows stay too. When the policies change, reporters are gone through in turns: for each the grant
 * switches in one moment, together with what is known of its tunnels.
 */
export class Grants {
  readonly #parts: GrantsParts;
  readonly #holders = new Map<string, Holder>();
  /** How many of them each peer has, by its text. */
  readonly #ofPeer = new Map<string, number>();
  #set: PolicySet = OPEN;
  /** Those that have not been looked at since the policies changed. */
  #review: Iterator<[string, Holder], unknown> | undefined;

  constructor(parts: GrantsParts) {
    this.#parts = parts;
  }

  /** False: everybody may report everything, and nothing else need be asked. */
  get isSelective(): boolean {
    return this.#set.isSelective;
  }

  /** What the reporter may report; of one that has had no stream here nothing is known to be allowed. */
  of(key: string): Grant {
    return this.#holders.get(key)?.grant ?? (this.isSelective ? NOTHING : EVERYTHING);
  }

  /** A reporter has a new stream; to be told before its first report is folded. */
  connected(reporter: ReporterId, peer: Peer): void {
    const key = reporterKey(reporter);
    const grant = grantOrNothing(this.#set, peer, reporter);
    const holder = this.#holders.get(key);
    if (holder === undefined) {
      this.#count(peer, 1);
      const isOver = this.#isOver(peer);
      this.#holders.set(key, { reporter, peer, grant, bucket: fullBucket(), isOver });
      return;
    }
    if (peerKey(holder.peer) === peerKey(peer)) holder.isOver &&= this.#isOver(peer);
    else {
      this.#count(holder.peer, -1);
      this.#count(peer, 1);
      holder.isOver = this.#isOver(peer);
      // By the policies of now, which may not have come to this reporter yet.
      this.#switch(key, holder, grantOrNothing(this.#set, holder.peer, reporter));
      this.#parts.onOtherPeer(key);
    }
    holder.peer = peer;
    this.#switch(key, holder, grant);
  }

  /** Nothing has to be remembered of a reporter any more. */
  forget(key: string): void {
    const holder = this.#holders.get(key);
    if (holder === undefined) return;
    this.#holders.delete(key);
    this.#count(holder.peer, -1);
  }

  /** Why no report of this reporter is to be taken: its peer would be too many. Undefined when it may. */
  overLimit(reporter: ReporterId): { readonly reporters: number; readonly limit: number } | undefined {
    const holder = this.#holders.get(reporterKey(reporter));
    if (holder?.isOver !== true) return undefined;
    return { reporters: this.#ofPeer.get(peerKey(holder.peer)) ?? 0, limit: REPORTERS_OF_A_PEER };
  }

  /** The policies are others. @param first called when they are in force and no reporter has been looked at yet */
  changed(set: PolicySet, first?: () => void): void {
    this.#set = set;
    first?.();
    const isRunning = this.#review !== undefined;
    this.#review = this.#holders.entries();
    if (!isRunning) this.#reviewOn();
  }

  /** Why a peer may not report at all; undefined when it may. */
  peerRefusal(peer: Peer): string | undefined {
    return this.#set.admits(peer) ? undefined : peerRefusal(peer);
  }

  /**
   * Why a peer may not report as this reporter; undefined when it may. While another peer is known here for it, with rows
   * or a stream, only one that may report all that the other may: else its first report would delete the other's rows.
   */
  reporterRefusal(peer: Peer, reporter: ReporterId): Violation | undefined {
    const grant = this.#set.grant(peer, reporter);
    if (grant === undefined) return reporterRefusal(peer, reporter);
    const holder = this.isSelective ? this.#holders.get(reporterKey(reporter)) : undefined;
    if (holder === undefined || peerKey(holder.peer) === peerKey(peer)) return undefined;
    const held = grantOrNothing(this.#set, holder.peer, reporter);
    return coversGrant(grant, held) ? undefined : heldRefusal(peer, reporter);
  }

  /** Those of the tunnels that a peer may not report as this reporter; undefined when there are none. */
  outside(peer: Peer, reporter: ReporterId, added: readonly Tunnel[]): Outside | undefined {
    if (added.length === 0 || !this.#set.isSelective) return undefined;
    const { permits } = grantOrNothing(this.#set, peer, reporter);
    if (permits === undefined) return undefined;
    let count = 0;
    const first: Violation[] = [];
    for (const tunnel of added) {
      if (permits(tunnel)) continue;
      count += 1;
      if (first.length < SHOWN) {
        first.push({ field: 'added_tunnels', reason: 'policy', message: outsideMessage(tunnel) });
      }
    }
    return count === 0 ? undefined : { count, byReason: new Map([['policy', count]]), first };
  }

  /** A report of the reporter was read: how many milliseconds the next one is to be left unread. 0: none. */
  holdBackMs(reporter: ReporterId): number {
    const holder = this.#holders.get(reporterKey(reporter));
    const rate = holder?.grant.rate;
    if (holder === undefined || rate === undefined) return 0;
    return takeToken(holder.bucket, rate, this.#parts.clock.monotonicMs());
  }

  /** How many milliseconds a new stream's first report is to be left unread, for what was read before. 0: none. */
  debtMs(reporter: ReporterId): number {
    const holder = this.#holders.get(reporterKey(reporter));
    const rate = holder?.grant.rate;
    if (holder === undefined || rate === undefined) return 0;
    return untilTokenMs(holder.bucket, rate, this.#parts.clock.monotonicMs());
  }

  #count(peer: Peer, by: number): void {
    const text = peerKey(peer);
    const count = (this.#ofPeer.get(text) ?? 0) + by;
    if (count === 0) this.#ofPeer.delete(text);
    else this.#ofPeer.set(text, count);
  }

  #isOver(peer: Peer): boolean {
    return (this.#ofPeer.get(peerKey(peer)) ?? 0) > REPORTERS_OF_A_PEER;
  }

  #switch(key: string, holder: Holder, grant: Grant): boolean {
    const same = sameGrant(holder.grant, grant);
    holder.grant = grant;
    if (!same) this.#parts.onChanged(key);
    return !same;
  }

  /** A change may mean a look at 100,000 tunnels: after one the others have their turn. */
  #reviewOn(): void {
    for (let looked = 0; looked < REPORTERS_A_TURN; looked += 1) {
      const next = this.#review?.next();
      if (next === undefined || next.done === true) {
        this.#review = undefined;
        this.#parts.onReviewed();
        return;
      }
      const [key, holder] = next.value;
      if (this.#switch(key, holder, grantOrNothing(this.#set, holder.peer, holder.reporter))) break;
    }
    this.#parts.clock.setTimer(0, () => this.#reviewOn());
  }
}
