import type { Owner, ObservedReporter } from './reporter-object.ts';

/** A stream is still open after this time only if its peer has answered a keepalive (interval 30 s, timeout 10 s). */
const KEEPALIVE_PROOF_MS = 45_000;
const INITIAL_WAIT_MS = 1000;
const MAX_WAIT_MS = 300_000;
/** Owning without contention for this long resets the delay between claims. */
const CONFLICT_RESET_MS = 600_000;

/** The ownership recorded in a reporter object. Compared only for equality; a higher epoch means nothing. */
interface ObservedClaim {
  readonly uid: string;
  readonly owner: Owner | undefined;
}

/** A claim to send: one status write of owner and epoch, at exactly the version of `basis`. */
export interface Claim {
  /** Undefined: the reporter object does not exist and must be created before it can be claimed. */
  readonly basis: ObservedReporter | undefined;
  readonly owner: Owner;
  /** False: this replica holds no stream; the claim takes over the objects of a dead owner. */
  readonly streaming: boolean;
}

/** The next action on a reporter object. */
export type OwnershipAction =
  | { readonly type: 'claim'; readonly claim: Claim }
  /** The state is uncertain (a conflict, a timeout): the object must be read from the API server, not from a cache. */
  | { readonly type: 'read' }
  /** Wait until `atMs`, if that is defined, or until the next input. */
  | { readonly type: 'wait'; readonly atMs: number | undefined };

/** Whether an object may be written. `verify`: only after a live read of the reporter object. */
export type WritePermission = 'allow' | 'verify' | 'deny';

interface StreamState {
  readonly openedMs: number;
  lastReportMs: number | undefined;
  /** The ownership that was recorded when the report was read that causes the claim; `none`: no claim is pending. */
  pendingClaim: { readonly basis: ObservedClaim | undefined } | 'none';
  /** When the claim of another stream was observed; undefined if the stream is not superseded. */
  supersededAtMs: number | undefined;
  /** The number of claims that this stream lost to others: the delay before the next doubles with each. */
  lostClaims: number;
  /** No claim is sent before this time, because streams of this reporter replace each other too often. */
  readonly notBeforeMs: number;
}

interface ConfirmedClaim {
  readonly uid: string;
  readonly owner: Owner;
  readonly atMs: number;
  /** True if the claim was a takeover and its stream has not been confirmed fresh since. */
  needsFreshReport: boolean;
}

/**
 * The ownership of one reporter from the point of view of one replica: whether this replica may write the reporter's
 * objects, and what it has to do about the reporter object. Inputs are events with their times, outputs are decisions;
 * this class never waits, reads a clock or calls anything.
 *
 * States; objects may be written only in `owning`:
 *
 *   state        | event                                                 | next state
 *   -------------+-------------------------------------------------------+---------------------------------------
 *   idle         | first report of a stream; an owner is found dead      | wanting
 *   wanting      | the object is as it was when the report was read      | claiming (one write at its version)
 *                | missing, only the status moved, or no stream          | wanting, from its present content
 *                | claimed by a stream on another replica                | superseded
 *   claiming     | 2xx                                                   | owning
 *                | conflict, timeout                                     | uncertain
 *   uncertain    | the object was read, by a read sent afterwards        | wanting or superseded, as above
 *   owning       | the object records anything but this claim            | wanting or superseded; without stream idle
 *                | first report of a new stream                          | wanting
 *   superseded   | confirmed fresh, and the growing delay is over        | wanting
 *                | the owner has no stream, or the object is missing     | wanting
 *
 * The rules were model-checked; each one names the trace of docs/decisions/0005 that breaks without it.
 */
export class Ownership {
  readonly #self: string;
  readonly #freshReportAfterMs: () => number;
  #observed: ObservedReporter | undefined;
  #confirmed: ConfirmedClaim | undefined;
  #stream: StreamState | undefined;
  /** A pending takeover of a reporter without a stream, with the ownership that was recorded when it was requested. */
  #takeover: { readonly basis: ObservedClaim | undefined } | undefined;
  #claiming: (Claim & { readonly needsFreshReport: boolean; readonly externalChanges: number }) | undefined;
  #isUncertain = false;
  /** Counts external changes and uncertain outcomes. A live read must be sent after the last one. */
  #externalChanges = 0;
  /** The value of `#externalChanges` at the last uncertain outcome. */
  #uncertaintyMark = 0;
  /** The value of `#externalChanges` up to which ownership has been confirmed. */
  #verifiedChanges = 0;
  #lastVerifiedMs = Number.NEGATIVE_INFINITY;

  /**
   * @param self ID of this process, which no other process ever has or had
   * @param freshReportAfterMs how long after a time T a report must be read to be a fresh report since T
   */
  constructor(self: string, freshReportAfterMs: () => number) {
    this.#self = self;
    this.#freshReportAfterMs = freshReportAfterMs;
  }

  /** The reporter object as last observed. */
  get observed(): ObservedReporter | undefined {
    return this.#observed;
  }

  /**
   * True while this replica owns the reporter: the object recorded that when the claim was confirmed, and nothing has
   * contradicted it since. False while a claim is in flight and after a write that met another version.
   */
  get owns(): boolean {
    return (
      this.#confirmed !== undefined &&
      this.#claiming === undefined &&
      !this.#isUncertain &&
      !this.#wantsClaim()
    );
  }

  /** True from a confirmed claim until the object is known to record another, also while uncertain or claiming again. */
  get hasConfirmedClaim(): boolean {
    return this.#confirmed !== undefined;
  }

  /** The confirmed claim, which status writes must repeat; undefined if this replica does not own the reporter. */
  get owner(): Owner | undefined {
    return this.owns ? this.#confirmed?.owner : undefined;
  }

  get hasStream(): boolean {
    return this.#stream !== undefined;
  }

  /** True if a stream on another replica has claimed the reporter, which writes its objects. */
  get isSuperseded(): boolean {
    return this.#stream?.supersededAtMs !== undefined;
  }

  /** True if there is no state that cannot be restored from the API server. */
  get isIdle(): boolean {
    return (
      this.#stream === undefined &&
      this.#confirmed === undefined &&
      this.#claiming === undefined &&
      this.#takeover === undefined &&
      !this.#isUncertain
    );
  }

  /**
   * Handles a new stream of the reporter on this replica, which replaces the previous one.
   *
   * @param delayMs the delay before its claim: above 0 if streams replace each other too often. A pending claim of the
   *   previous stream is not delayed further, because streams that are replaced faster than that would prevent all claims
   */
  onStreamOpened(nowMs: number, delayMs = 0): void {
    const previous = this.#stream;
    const isPending = previous !== undefined && previous.pendingClaim !== 'none';
    this.#stream = {
      openedMs: nowMs,
      lastReportMs: undefined,
      pendingClaim: 'none',
      supersededAtMs: undefined,
      lostClaims: 0,
      notBeforeMs: isPending ? previous.notBeforeMs : nowMs + delayMs,
    };
  }

  /** Handles a report that was read from the stream. */
  onReport(nowMs: number): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    const first = stream.lastReportMs === undefined;
    stream.lastReportMs = nowMs;
    if (first) stream.pendingClaim = { basis: observedClaim(this.#observed) };
    this.#checkFreshReport(nowMs);
  }

  onStreamClosed(): void {
    this.#stream = undefined;
  }

  /** Requests a takeover: this replica has no stream, and the owner is dead or there is none. */
  takeOver(): void {
    if (this.#stream === undefined && !this.owns) this.#takeover = { basis: observedClaim(this.#observed) };
  }

  /**
   * Handles the reporter object as observed by the watch, a list, a read or the response to a write of this replica;
   * undefined if it does not exist. The caller ensures that an older version never follows a newer one.
   */
  onObserved(observed: ObservedReporter | undefined, nowMs: number): void {
    this.#observed = observed;
    // Only the response to the write in flight shows whether it was applied before or after this version.
    if (this.#claiming !== undefined || this.#isUncertain) return;
    this.#evaluate(nowMs);
  }

  /** Returns the next action; `wait` also while a claim is in flight. */
  decide(nowMs: number): OwnershipAction {
    if (this.#claiming !== undefined) return { type: 'wait', atMs: undefined };
    if (this.#isUncertain) return { type: 'read' };
    this.#checkFreshReport(nowMs);
    if (!this.#wantsClaim()) return { type: 'wait', atMs: this.#nextDeadlineMs() };
    const notBeforeMs = this.#stream?.notBeforeMs ?? nowMs;
    return nowMs < notBeforeMs
      ? { type: 'wait', atMs: notBeforeMs }
      : { type: 'claim', claim: this.#nextClaim() };
  }

  /** Must be called when the claim that `decide` returned is sent. */
  claimSent(claim: Claim): void {
    const confirmed = this.#confirmed;
    // Not decided by the owner's name: a claim that timed out but was applied has the name of this replica, too. A claim
    // that never was confirmed fresh leaves its debt to the next stream, which may contain a report that is just as old.
    const unchanged =
      confirmed !== undefined &&
      !confirmed.needsFreshReport &&
      sameClaim(confirmed, observedClaim(claim.basis));
    this.#claiming = { ...claim, needsFreshReport: !unchanged, externalChanges: this.#externalChanges };
  }

  /** Handles a claim that was answered with 2xx. `answer` is the stored object; a later one may have been observed already. */
  claimConfirmed(answer: ObservedReporter, nowMs: number): void {
    const claim = this.#claiming;
    if (claim === undefined) return;
    this.#claiming = undefined;
    this.#takeover = undefined;
    this.#confirmed = {
      uid: answer.uid,
      owner: claim.owner,
      atMs: nowMs,
      needsFreshReport: claim.needsFreshReport,
    };
    this.#verifiedChanges = claim.externalChanges;
    if (this.#stream !== undefined && claim.streaming) {
      // A stream that was opened after the claim was sent still has to claim.
      if (this.#stream.lastReportMs !== undefined) this.#stream.pendingClaim = 'none';
      this.#stream.supersededAtMs = undefined;
    }
    this.#evaluate(nowMs);
  }

  /** Handles a claim that met another version or was not answered: only a read shows its outcome. */
  claimOutcomeUnknown(): void {
    this.#claiming = undefined;
    this.markUncertain();
  }

  /** Handles a claim that was rejected: the object is unchanged, and the claim is still pending. */
  claimRejected(nowMs: number): void {
    this.#claiming = undefined;
    this.#evaluate(nowMs);
  }

  /** Handles a write of this replica to the reporter object that met another version. */
  markUncertain(): void {
    if (this.#claiming !== undefined) return;
    this.#isUncertain = true;
    this.#externalChanges += 1;
    this.#uncertaintyMark = this.#externalChanges;
  }

  /** Handles an external change of an object of this reporter. */
  externalChange(): void {
    this.#externalChanges += 1;
  }

  /** Identifies the changes that precede a read that is sent now; to be passed to `readAnswered`. */
  get readMark(): number {
    return this.#externalChanges;
  }

  /** Handles the response to a live read that was sent at `sentMs` with `mark`. */
  readAnswered(observed: ObservedReporter | undefined, mark: number, sentMs: number, nowMs: number): void {
    this.#observed = observed;
    // A read that was sent before the uncertain write may have been answered before that write was applied.
    if (this.#claiming !== undefined || (this.#isUncertain && mark < this.#uncertaintyMark)) return;
    this.#isUncertain = false;
    this.#evaluate(nowMs);
    if (!this.owns) return;
    this.#verifiedChanges = Math.max(this.#verifiedChanges, mark);
    this.#lastVerifiedMs = Math.max(this.#lastVerifiedMs, sentMs);
  }

  /** Returns whether objects may be created or updated. */
  canWrite(): WritePermission {
    if (!this.owns) return 'deny';
    return this.#externalChanges > this.#verifiedChanges ? 'verify' : 'allow';
  }

  /** Returns whether stale objects may be deleted. */
  canDelete(nowMs: number): WritePermission {
    return this.#confirmed?.needsFreshReport === true && !this.#hasReportedSinceClaim(nowMs)
      ? 'deny'
      : this.canWrite();
  }

  /** Returns whether expiry deletes are allowed. They need a live read within the last `maxAgeMs`. */
  canExpire(nowMs: number, maxAgeMs: number): WritePermission {
    if (!this.owns || this.#stream !== undefined) return 'deny';
    return this.#externalChanges > this.#verifiedChanges || nowMs - this.#lastVerifiedMs >= maxAgeMs
      ? 'verify'
      : 'allow';
  }

  /** Compares the observed ownership with the confirmed claim, the takeover and the pending claim. */
  #evaluate(nowMs: number): void {
    const observed = this.#observed;
    const confirmed = this.#confirmed;
    if (confirmed !== undefined && !sameClaim(confirmed, observedClaim(observed))) {
      this.#confirmed = undefined;
      const stream = this.#stream;
      if (stream !== undefined) {
        if (nowMs - confirmed.atMs >= CONFLICT_RESET_MS) stream.lostClaims = 0;
        // A stream without a report claims with its first report anyway.
        if (stream.lastReportMs !== undefined) this.#compete(stream, nowMs);
      }
    }
    const stream = this.#stream;
    if (stream === undefined) {
      // The ownership has changed: another replica has taken over, or the reporter has reconnected.
      if (this.#takeover !== undefined && !sameClaim(this.#takeover.basis, observedClaim(observed)))
        this.#takeover = undefined;
      return;
    }
    this.#takeover = undefined;
    const moved =
      stream.pendingClaim !== 'none' && !sameClaim(stream.pendingClaim.basis, observedClaim(observed));
    if (moved || (stream.supersededAtMs !== undefined && this.#isUncontended())) this.#compete(stream, nowMs);
  }

  /** Decides what a stream does after the recorded ownership has changed: claim from its present state, or be superseded. */
  #compete(stream: StreamState, nowMs: number): void {
    if (this.#isUncontended()) {
      stream.pendingClaim = { basis: observedClaim(this.#observed) };
      stream.supersededAtMs = undefined;
      return;
    }
    stream.pendingClaim = 'none';
    stream.supersededAtMs = nowMs;
    stream.lostClaims += 1;
  }

  /** Returns true if no other stream has claimed the reporter, or the owner reports that it has no stream. */
  #isUncontended(): boolean {
    const owner = this.#observed?.owner;
    return owner === undefined || owner.replica === this.#self || this.#observed?.connected === false;
  }

  /** Lets a superseded stream claim again, and clears the debt of a takeover, once the stream is confirmed fresh. */
  #checkFreshReport(nowMs: number): void {
    const stream = this.#stream;
    const confirmed = this.#confirmed;
    if (confirmed?.needsFreshReport === true && this.#hasReportedSinceClaim(nowMs))
      confirmed.needsFreshReport = false;
    if (stream?.supersededAtMs === undefined) return;
    if (nowMs < stream.supersededAtMs + claimDelayMs(stream.lostClaims)) return;
    if (!this.#hasReportedSince(stream.supersededAtMs, nowMs)) return;
    stream.supersededAtMs = undefined;
    stream.pendingClaim = { basis: observedClaim(this.#observed) };
  }

  #hasReportedSinceClaim(nowMs: number): boolean {
    return this.#confirmed !== undefined && this.#hasReportedSince(this.#confirmed.atMs, nowMs);
  }

  /** Returns true if the stream is confirmed fresh: a fresh report was read, or keepalive has proven the peer alive. */
  #hasReportedSince(sinceMs: number, nowMs: number): boolean {
    const stream = this.#stream;
    if (stream === undefined) return false;
    if (stream.lastReportMs !== undefined && stream.lastReportMs >= sinceMs + this.#freshReportAfterMs())
      return true;
    return nowMs >= Math.max(sinceMs, stream.openedMs) + KEEPALIVE_PROOF_MS;
  }

  /** Returns the next time at which a decision changes without any input. */
  #nextDeadlineMs(): number | undefined {
    const stream = this.#stream;
    if (stream === undefined) return undefined;
    const times: number[] = [];
    if (this.#confirmed?.needsFreshReport === true) {
      times.push(Math.max(this.#confirmed.atMs, stream.openedMs) + KEEPALIVE_PROOF_MS);
    }
    if (stream.supersededAtMs !== undefined) {
      const { supersededAtMs, lostClaims, lastReportMs, openedMs } = stream;
      const hasReported =
        lastReportMs !== undefined && lastReportMs >= supersededAtMs + this.#freshReportAfterMs();
      const freshAtMs = hasReported ? lastReportMs : Math.max(supersededAtMs, openedMs) + KEEPALIVE_PROOF_MS;
      times.push(Math.max(supersededAtMs + claimDelayMs(lostClaims), freshAtMs));
    }
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #wantsClaim(): boolean {
    return (
      (this.#stream !== undefined && this.#stream.pendingClaim !== 'none') || this.#takeover !== undefined
    );
  }

  #nextClaim(): Claim {
    const basis = this.#observed;
    return {
      basis,
      owner: { replica: this.#self, epoch: (basis?.owner?.epoch ?? 0) + 1 },
      streaming: this.#stream !== undefined,
    };
  }
}

/** Returns the delay before a repeated claim: 1 s, doubling with each claim that the stream lost, up to 5 min. */
function claimDelayMs(lostClaims: number): number {
  return lostClaims === 0 ? 0 : Math.min(MAX_WAIT_MS, INITIAL_WAIT_MS * 2 ** Math.min(lostClaims - 1, 30));
}

function observedClaim(observed: ObservedReporter | undefined): ObservedClaim | undefined {
  return observed === undefined ? undefined : { uid: observed.uid, owner: observed.owner };
}

function sameClaim(a: ObservedClaim | undefined, b: ObservedClaim | undefined): boolean {
  return a?.uid === b?.uid && a?.owner?.replica === b?.owner?.replica && a?.owner?.epoch === b?.owner?.epoch;
}
