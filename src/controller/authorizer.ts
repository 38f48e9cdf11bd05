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

export interface AuthorizerEventHandler {
  /** The policies changed, before any reporter was evaluated with them. */
  onPoliciesChanged?(): void;
  /** What a reporter may report has changed. */
  onGrantChanged?(key: string, grant: Grant): void;
  /** Another peer reports as a reporter from now on. Called before the new peer's grant applies. */
  onPeerChanged?(key: string): void;
  /** All reporters have been evaluated for the first time. */
  onReviewed?(): void;
}

/** Reporters evaluated per tick of the event loop, if the grant of none of them changes. */
const REPORTERS_PER_TICK = 256;
/**
 * Reporters that one peer may report as, including those whose objects have not expired; without authentication all
 * clients are one peer. More than a replica has connections, and the tunnels of each reporter have a limit of their own.
 */
const MAX_REPORTERS_PER_PEER = 10_000;
/** Denied tunnels of a report that are described in the log. */
const MAX_LISTED_TUNNELS = 5;

interface ReporterGrant {
  readonly reporter: ReporterId;
  peer: Peer;
  grant: Grant;
  readonly bucket: TokenBucket;
  /** True if the peer was at the limit of reporters when it opened its stream. */
  isOverLimit: boolean;
}

/**
 * What each reporter may report, by the current policies and the peer of its last stream. A grant outlives the stream,
 * because the objects do too. A change of policies is applied to a limited number of reporters per tick; for each of them
 * the grant and the resulting state of its tunnels change together.
 */
export class Authorizer {
  readonly #clock: Clock;
  readonly #handlers: AuthorizerEventHandler[] = [];
  readonly #reporters = new Map<string, ReporterGrant>();
  /** Number of reporters by `peerKey`. */
  readonly #reportersPerPeer = new Map<string, number>();
  #policies: PolicySet = ALLOW_ALL_POLICIES;
  #hasReviewed = false;
  /** Reporters that have not been evaluated since the last change of policies. */
  #pendingReview: Iterator<[string, ReporterGrant], unknown> | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  addEventHandler(handler: AuthorizerEventHandler): void {
    this.#handlers.push(handler);
  }

  /** False if all clients may report everything. */
  get hasPolicies(): boolean {
    return this.#policies.hasPolicies;
  }

  /** True once the policies are known and all reporters have been evaluated with them. */
  get hasReviewed(): boolean {
    return this.#hasReviewed;
  }

  /** Returns what a reporter may report. With policies, a reporter without a stream here so far may report nothing. */
  grantFor(key: string): Grant {
    return this.#reporters.get(key)?.grant ?? (this.hasPolicies ? DENY_ALL : ALLOW_ALL);
  }

  /** Records the peer of a reporter's new stream. Must be called before the first report is applied. */
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
      // The current policies may not have been applied to this reporter yet.
      this.#applyGrant(key, holder, grantOrDeny(this.#policies, holder.peer, reporter));
      for (const handler of this.#handlers) handler.onPeerChanged?.(key);
    }
    holder.peer = peer;
    this.#applyGrant(key, holder, grant);
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
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

  /**
   * Handles new policies. Streams are checked before the reporters: the first policies enable writes, which a stream that
   * they end must not cause.
   */
  onPoliciesChanged(policies: PolicySet): void {
    this.#policies = policies;
    for (const handler of this.#handlers) handler.onPoliciesChanged?.();
    const isRunning = this.#pendingReview !== undefined;
    this.#pendingReview = this.#reporters.entries();
    if (!isRunning) this.#reviewNext();
  }

  /** Returns why a peer may not report at all; undefined if it may. */
  peerRejection(peer: Peer): string | undefined {
    return this.#policies.admits(peer) ? undefined : peerRejection(this.#policies, peer);
  }

  /**
   * Returns why a peer may not report as a reporter; undefined if it may. While another peer has a stream or objects as
   * that reporter, a peer must be allowed to report everything that the other may: otherwise its first report would
   * delete objects of the other peer.
   */
  reporterRejection(peer: Peer, reporter: ReporterId): Violation | undefined {
    const grant = this.#policies.grant(peer, reporter);
    if (grant === undefined) return reporterRejection(peer, reporter);
    const holder = this.hasPolicies ? this.#reporters.get(reporterKey(reporter)) : undefined;
    if (holder === undefined || peerKey(holder.peer) === peerKey(peer)) return undefined;
    const heldGrant = grantOrDeny(this.#policies, holder.peer, reporter);
    return isSuperset(grant, heldGrant) ? undefined : heldByOtherPeer(peer, reporter);
  }

  /** Returns the tunnels that a peer may not report as a reporter; undefined if there are none. */
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

  /** Counts a report of a reporter. Returns the delay in ms before the next one may be read; 0: no delay. */
  throttleDelayMs(reporter: ReporterId): number {
    const holder = this.#reporters.get(reporterKey(reporter));
    const rate = holder?.grant.rate;
    if (holder === undefined || rate === undefined) return 0;
    return take(holder.bucket, rate, this.#clock.monotonicMs());
  }

  /** Returns the delay in ms before the first report of a new stream may be read, for reports read before. */
  rateDebtMs(reporter: ReporterId): number {
    const holder = this.#reporters.get(reporterKey(reporter));
    const rate = holder?.grant.rate;
    if (holder === undefined || rate === undefined) return 0;
    return delayMs(holder.bucket, rate, this.#clock.monotonicMs());
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
    if (!isSame) for (const handler of this.#handlers) handler.onGrantChanged?.(key, grant);
    return !isSame;
  }

  /** Evaluates reporters up to the first changed grant, which may concern 100,000 tunnels; continues on the next tick. */
  #reviewNext(): void {
    for (let reviewed = 0; reviewed < REPORTERS_PER_TICK; reviewed += 1) {
      const next = this.#pendingReview?.next();
      if (next === undefined || next.done === true) {
        this.#pendingReview = undefined;
        this.#completeReview();
        return;
      }
      const [key, holder] = next.value;
      if (this.#applyGrant(key, holder, grantOrDeny(this.#policies, holder.peer, holder.reporter))) break;
    }
    this.#clock.setTimer(0, () => this.#reviewNext());
  }

  #completeReview(): void {
    if (this.#hasReviewed) return;
    this.#hasReviewed = true;
    for (const handler of this.#handlers) handler.onReviewed?.();
  }
}
