import type { Clock } from '../clock.ts';
import type { LimitExceeded } from '../core/apply-report.ts';
import { isSuperset, ALLOW_ALL, DENY_ALL, sameGrant, type Grant } from '../core/grant.ts';
import { peerKey, type Peer } from '../core/peer.ts';
import {
  ALLOW_ALL_POLICIES,
  deniedTunnelMessage,
  grantOrDeny,
  heldByOtherPeer,
  peerRejection,
  type PolicySet,
  reporterRejection,
} from '../core/policy-set.ts';
import { newBucket, take, delayMs, type TokenBucket } from '../core/token-bucket.ts';
import { reporterKey, type ReporterId, type Tunnel } from '../core/tunnel.ts';
import type { RejectedTunnels, Violation } from '../core/report.ts';

/** Whom changed grants concern, and the clock of the rates. */
export interface AuthorizerOptions {
  /** What a reporter may report is another than before: what it holds is to be looked at again. */
  readonly onGrantChanged: (key: string) => void;
  /** Another peer is about to speak for a reporter: what the former said and may not say is to be forgotten, at once. */
  readonly onPeerChanged: (key: string) => void;
  /** Every reporter has been looked at since the policies changed last. */
  readonly onReevaluated: () => void;
  readonly clock: Clock;
}

/** Reporters whose grant is worked out anew in one turn of the event loop, if it stays the same for all of them. */
const REPORTERS_PER_TICK = 256;
/**
 * Reporters that one peer may be here, with those whose rows have not expired; without authentication all are one peer. More
 * than a replica has connections; the tunnels of each have a bound of their own.
 */
const MAX_REPORTERS_PER_PEER = 10_000;
/** Tunnels that are spelt out for the log. */
const MAX_LISTED_TUNNELS = 5;

interface ReporterGrant {
  readonly reporter: ReporterId;
  peer: Peer;
  grant: Grant;
  readonly bucket: TokenBucket;
  /** Its peer was as many reporters as one may be before it became this one. */
  isOverLimit: boolean;
}

/**
 * What each reporter may report, by the policies as they are and by the peer of its last stream here; kept after that
 * stream's end, for its rows stay too. When the policies change, reporters are gone through in turns: for each the grant
 * switches in one moment, together with what is known of its tunnels.
 */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #reporters = new Map<string, ReporterGrant>();
  /** How many of them each peer has, by its text. */
  readonly #reportersPerPeer = new Map<string, number>();
  #policies: PolicySet = ALLOW_ALL_POLICIES;
  /** Those that have not been looked at since the policies changed. */
  #pendingReview: Iterator<[string, ReporterGrant], unknown> | undefined;

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** False: everybody may report everything, and nothing else need be asked. */
  get hasPolicies(): boolean {
    return this.#policies.hasPolicies;
  }

  /** What the reporter may report; of one that has had no stream here nothing is known to be allowed. */
  grantFor(key: string): Grant {
    return this.#reporters.get(key)?.grant ?? (this.hasPolicies ? DENY_ALL : ALLOW_ALL);
  }

  /** A reporter has a new stream; to be told before its first report is folded. */
  onStreamOpened(reporter: ReporterId, peer: Peer): void {
    const key = reporterKey(reporter);
    const grant = grantOrDeny(this.#policies, peer, reporter);
    const holder = this.#reporters.get(key);
    if (holder === undefined) {
      this.#count(peer, 1);
      const isOver = this.#isOverLimit(peer);
      this.#reporters.set(key, { reporter, peer, grant, bucket: newBucket(), isOverLimit: isOver });
      return;
    }
    if (peerKey(holder.peer) === peerKey(peer)) holder.isOverLimit &&= this.#isOverLimit(peer);
    else {
      this.#count(holder.peer, -1);
      this.#count(peer, 1);
      holder.isOverLimit = this.#isOverLimit(peer);
      // By the policies of now, which may not have come to this reporter yet.
      this.#applyGrant(key, holder, grantOrDeny(this.#policies, holder.peer, reporter));
      this.#options.onPeerChanged(key);
    }
    holder.peer = peer;
    this.#applyGrant(key, holder, grant);
  }

  /** Nothing has to be remembered of a reporter any more. */
  forget(key: string): void {
    const holder = this.#reporters.get(key);
    if (holder === undefined) return;
    this.#reporters.delete(key);
    this.#count(holder.peer, -1);
  }

  /** Returns the limit of reporters per peer if the reporter's peer exceeds it; undefined otherwise. */
  limitExceeded(reporter: ReporterId): LimitExceeded | undefined {
    const holder = this.#reporters.get(reporterKey(reporter));
    if (holder?.isOverLimit !== true) return undefined;
    return {
      limit: 'reportersPerPeer',
      count: this.#reportersPerPeer.get(peerKey(holder.peer)) ?? 0,
      max: MAX_REPORTERS_PER_PEER,
    };
  }

  /** The policies are others. @param beforeReview called when they are in force and no reporter has been looked at yet */
  setPolicies(policies: PolicySet, beforeReview?: () => void): void {
    this.#policies = policies;
    beforeReview?.();
    const isRunning = this.#pendingReview !== undefined;
    this.#pendingReview = this.#reporters.entries();
    if (!isRunning) this.#reviewNext();
  }

  /** Why a peer may not report at all; undefined when it may. */
  peerRejection(peer: Peer): string | undefined {
    return this.#policies.admits(peer) ? undefined : peerRejection(peer);
  }

  /**
   * Why a peer may not report as this reporter; undefined when it may. While another peer is known here for it, with rows
   * or a stream, only one that may report all that the other may: else its first report would delete the other's rows.
   */
  reporterRejection(peer: Peer, reporter: ReporterId): Violation | undefined {
    const grant = this.#policies.grant(peer, reporter);
    if (grant === undefined) return reporterRejection(peer, reporter);
    const holder = this.hasPolicies ? this.#reporters.get(reporterKey(reporter)) : undefined;
    if (holder === undefined || peerKey(holder.peer) === peerKey(peer)) return undefined;
    const heldGrant = grantOrDeny(this.#policies, holder.peer, reporter);
    return isSuperset(grant, heldGrant) ? undefined : heldByOtherPeer(peer, reporter);
  }

  /** Those of the tunnels that a peer may not report as this reporter; undefined when there are none. */
  deniedTunnels(peer: Peer, reporter: ReporterId, added: readonly Tunnel[]): RejectedTunnels | undefined {
    if (added.length === 0 || !this.#policies.hasPolicies) return undefined;
    const { permits } = grantOrDeny(this.#policies, peer, reporter);
    if (permits === undefined) return undefined;
    let count = 0;
    const first: Violation[] = [];
    for (const tunnel of added) {
      if (permits(tunnel)) continue;
      count += 1;
      if (first.length < MAX_LISTED_TUNNELS) {
        first.push({ field: 'added_tunnels', reason: 'policy', message: deniedTunnelMessage(tunnel) });
      }
    }
    return count === 0 ? undefined : { count, byReason: new Map([['policy', count]]), first };
  }

  /** A report of the reporter was read: how many milliseconds the next one is to be left unread. 0: none. */
  throttleDelayMs(reporter: ReporterId): number {
    const holder = this.#reporters.get(reporterKey(reporter));
    const rate = holder?.grant.rate;
    if (holder === undefined || rate === undefined) return 0;
    return take(holder.bucket, rate, this.#options.clock.monotonicMs());
  }

  /** How many milliseconds a new stream's first report is to be left unread, for what was read before. 0: none. */
  rateDebtMs(reporter: ReporterId): number {
    const holder = this.#reporters.get(reporterKey(reporter));
    const rate = holder?.grant.rate;
    if (holder === undefined || rate === undefined) return 0;
    return delayMs(holder.bucket, rate, this.#options.clock.monotonicMs());
  }

  #count(peer: Peer, delta: number): void {
    const text = peerKey(peer);
    const count = (this.#reportersPerPeer.get(text) ?? 0) + delta;
    if (count === 0) this.#reportersPerPeer.delete(text);
    else this.#reportersPerPeer.set(text, count);
  }

  #isOverLimit(peer: Peer): boolean {
    return (this.#reportersPerPeer.get(peerKey(peer)) ?? 0) > MAX_REPORTERS_PER_PEER;
  }

  #applyGrant(key: string, holder: ReporterGrant, grant: Grant): boolean {
    const isSame = sameGrant(holder.grant, grant);
    holder.grant = grant;
    if (!isSame) this.#options.onGrantChanged(key);
    return !isSame;
  }

  /** A change may mean a look at 100,000 tunnels: after one the others have their turn. */
  #reviewNext(): void {
    for (let reviewed = 0; reviewed < REPORTERS_PER_TICK; reviewed += 1) {
      const next = this.#pendingReview?.next();
      if (next === undefined || next.done === true) {
        this.#pendingReview = undefined;
        this.#options.onReevaluated();
        return;
      }
      const [key, holder] = next.value;
      if (this.#applyGrant(key, holder, grantOrDeny(this.#policies, holder.peer, holder.reporter))) break;
    }
    this.#options.clock.setTimer(0, () => this.#reviewNext());
  }
}
