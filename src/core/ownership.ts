import type { Owner, ObservedReporter } from './reporter-object.ts';

/** A stream is open this long after a moment only if its peer has answered a keepalive since (30 s and 10 s). */
const KEEPALIVE_PROOF_MS = 45_000;
const INITIAL_WAIT_MS = 1000;
const MAX_WAIT_MS = 300_000;
/** Owning in peace for this long ends a quarrel: the next one begins with short waits again. */
const CONFLICT_RESET_MS = 600_000;

/** What one object says about ownership, compared as a whole: equal, never higher. */
interface ObservedClaim {
  readonly uid: string;
  readonly owner: Owner | undefined;
}

/** A claim to send: one status write of owner and epoch, at exactly this version. */
export interface Claim {
  /** Undefined: there is no object, and it has to be created before it can be claimed. */
  readonly basis: ObservedReporter | undefined;
  readonly owner: Owner;
  /** False: nobody streams here; the claim only takes over what a dead owner left. */
  readonly streaming: boolean;
}

/** What is to be done next about a reporter's object. */
export type OwnershipAction =
  | { readonly type: 'claim'; readonly claim: Claim }
  /** What is known is in doubt (a conflict, a time-out): the object has to be read, not taken from a cache. */
  | { readonly type: 'read' }
  /** Nothing before `atMs`, if that is defined, or before something is told. */
  | { readonly type: 'wait'; readonly atMs: number | undefined };

/** May a row be written? `read`: not before a fresh read of the reporter's object. */
export type WritePermission = 'allow' | 'verify' | 'deny';

interface StreamState {
  readonly openedMs: number;
  lastReportMs: number | undefined;
  /** What the object said when the report was read that a claim is to be sent for; `none`: no claim is due. */
  pendingClaim: { readonly basis: ObservedClaim | undefined } | 'none';
  /** When it was learnt that another stream's claim won; undefined when none has. */
  supersededAtMs: number | undefined;
  /** Claims of this stream that were lost to another: the wait before the next doubles with each. */
  lostClaims: number;
  /** Not to be claimed for before this: streams of this reporter replace each other too often. */
  readonly notBeforeMs: number;
}

interface ConfirmedClaim {
  readonly uid: string;
  readonly owner: Owner;
  readonly atMs: number;
  /** True: the claim took the reporter from another owner, and its stream has not been heard since. */
  needsFreshReport: boolean;
}

/**
 * One reporter as one replica sees it: may this replica write the reporter's rows, and what has it to do about it?
 * Facts go in with their time, decisions come out; nothing here waits, reads a clock or calls anybody.
 *
 * States, of which `owns` is the one that lets rows be written:
 *
 *   state        | what happens                                          | then
 *   -------------+-------------------------------------------------------+---------------------------------------
 *   idle         | first report of a stream; an owner is found dead      | wanting
 *   wanting      | the object is as it was when the report was read      | claiming (one write, under its version)
 *                | it is not: missing, only status moved, or no stream   | wanting, by what it says now
 *                | it is not: somebody else's stream won                 | superseded
 *   claiming     | 2xx                                                   | owning
 *                | conflict, time-out                                    | doubting
 *   doubting     | the object was read, by a read sent since             | wanting or superseded, as above
 *   owning       | the object says anything but this claim               | wanting or superseded; without stream idle
 *                | a new stream's first report                           | wanting
 *   superseded   | heard again since, and the growing wait is over       | wanting
 *                | the winner has no stream, or the object is gone       | wanting
 *
 * The rules were model-checked; each names the trace of docs/decisions/0005 that breaks without it.
 */
export class Ownership {
  readonly #self: string;
  readonly #freshReportAfterMs: () => number;
  #observed: ObservedReporter | undefined;
  #confirmed: ConfirmedClaim | undefined;
  #stream: StreamState | undefined;
  /** An owner without a stream that is to be taken over, as it was found. */
  #takeover: { readonly basis: ObservedClaim | undefined } | undefined;
  #claiming: (Claim & { readonly needsFreshReport: boolean; readonly externalChanges: number }) | undefined;
  #isUncertain = false;
  /** Changes of rows by somebody else, and doubts, counted: what a read has to be sent after. */
  #externalChanges = 0;
  /** Which of them the doubt was. */
  #uncertaintyMark = 0;
  /** Up to which of them ownership has been confirmed since. */
  #verifiedChanges = 0;
  #lastVerifiedMs = Number.NEGATIVE_INFINITY;

  /**
   * @param self this process: no two that ever lived share it
   * @param freshReportAfterMs how much later than a moment a report has to be read to have been sent since
   */
  constructor(self: string, freshReportAfterMs: () => number) {
    this.#self = self;
    this.#freshReportAfterMs = freshReportAfterMs;
  }

  /** The object as it was last seen. */
  get observed(): ObservedReporter | undefined {
    return this.#observed;
  }

  /**
   * True while rows are this replica's: the object said so when the claim was answered, and nothing has said otherwise
   * since. A claim under way, or a write that met another version, counts as not.
   */
  get owns(): boolean {
    return (
      this.#confirmed !== undefined &&
      this.#claiming === undefined &&
      !this.#isUncertain &&
      !this.#wantsClaim()
    );
  }

  /** True from a confirmed claim until the object is known to say otherwise, also while that is in doubt or claimed anew. */
  get hasConfirmedClaim(): boolean {
    return this.#confirmed !== undefined;
  }

  /** The confirmed claim, for writes that have to repeat it. */
  get owner(): Owner | undefined {
    return this.owns ? this.#confirmed?.owner : undefined;
  }

  get hasStream(): boolean {
    return this.#stream !== undefined;
  }

  /** True when there is nothing to remember but what the API server has. */
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
   * The reporter has a new stream here; one that was there before is no more.
   *
   * @param delayMs how long to wait before its claim: above 0 where streams replace each other too often. Not longer than
   *   the one before would have waited, if that is still to be claimed for: else faster streams would end all claims
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

  /** A report has been read on the stream. */
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

  /** Nobody streams here, and the owner is dead or there is none: take over what it left. */
  takeOver(): void {
    if (this.#stream === undefined && !this.owns) this.#takeover = { basis: observedClaim(this.#observed) };
  }

  /**
   * The object as the watch, a list, a read or the answer to one's own write shows it; undefined when there is none.
   * The caller sees to it that an older version never follows a newer one.
   */
  onObserved(observed: ObservedReporter | undefined, nowMs: number): void {
    this.#observed = observed;
    // Whether the write that is under way came before or after this, only its answer tells.
    if (this.#claiming !== undefined || this.#isUncertain) return;
    this.#evaluate(nowMs);
  }

  /** What to do now. `wait` also while a claim or a read is under way. */
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

  /** The claim that `decide` gave is sent now. */
  claimSent(claim: Claim): void {
    const confirmed = this.#confirmed;
    // Not by the owner's name: a claim that timed out and landed has this replica's name too. And of a claim that was
    // never spoken on the debt stays: the next stream of this replica may hold just as old a report.
    const unchanged =
      confirmed !== undefined &&
      !confirmed.needsFreshReport &&
      sameClaim(confirmed, observedClaim(claim.basis));
    this.#claiming = { ...claim, needsFreshReport: !unchanged, externalChanges: this.#externalChanges };
  }

  /** The claim was answered by 2xx: `answer` is the object as it was stored. `observed` may have shown a later one. */
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
      // A stream that was opened meanwhile has not been claimed for.
      if (this.#stream.lastReportMs !== undefined) this.#stream.pendingClaim = 'none';
      this.#stream.supersededAtMs = undefined;
    }
    this.#evaluate(nowMs);
  }

  /** The claim met another version, or was not answered: only a read tells what became of it. */
  claimOutcomeUnknown(): void {
    this.#claiming = undefined;
    this.isUncertain();
  }

  /** The claim was refused for good, for now: the object is as it was, and the claim is still wanted. */
  claimRejected(nowMs: number): void {
    this.#claiming = undefined;
    this.#evaluate(nowMs);
  }

  /** A write of one's own to the object met another version. */
  isUncertain(): void {
    if (this.#claiming !== undefined) return;
    this.#isUncertain = true;
    this.#externalChanges += 1;
    this.#uncertaintyMark = this.#externalChanges;
  }

  /** A row of this reporter is not as this replica left it. */
  externalChange(): void {
    this.#externalChanges += 1;
  }

  /** What the read that is sent now comes after; to be kept until it is answered. */
  get readMark(): number {
    return this.#externalChanges;
  }

  /** A read, sent at `sentMs` with `mark`, was answered. */
  readAnswered(observed: ObservedReporter | undefined, mark: number, sentMs: number, nowMs: number): void {
    this.#observed = observed;
    // A read that was sent before the write in doubt may have been answered before it landed.
    if (this.#claiming !== undefined || (this.#isUncertain && mark < this.#uncertaintyMark)) return;
    this.#isUncertain = false;
    this.#evaluate(nowMs);
    if (!this.owns) return;
    this.#verifiedChanges = Math.max(this.#verifiedChanges, mark);
    this.#lastVerifiedMs = Math.max(this.#lastVerifiedMs, sentMs);
  }

  /** May a row be created or changed? */
  canWrite(): WritePermission {
    if (!this.owns) return 'deny';
    return this.#externalChanges > this.#verifiedChanges ? 'verify' : 'allow';
  }

  /** May a row be deleted because its reporter does not report it? */
  canDelete(nowMs: number): WritePermission {
    return this.#confirmed?.needsFreshReport === true && !this.#hasReportedSinceClaim(nowMs)
      ? 'deny'
      : this.canWrite();
  }

  /** May a row be deleted because its reporter has been lost for long? Needs a read within the last `freshForMs`. */
  canExpire(nowMs: number, maxAgeMs: number): WritePermission {
    if (!this.owns || this.#stream !== undefined) return 'deny';
    return this.#externalChanges > this.#verifiedChanges || nowMs - this.#lastVerifiedMs >= maxAgeMs
      ? 'verify'
      : 'allow';
  }

  /** Compares what is seen with what is held, claimed or wanted. */
  #evaluate(nowMs: number): void {
    const observed = this.#observed;
    const confirmed = this.#confirmed;
    if (confirmed !== undefined && !sameClaim(confirmed, observedClaim(observed))) {
      this.#confirmed = undefined;
      const stream = this.#stream;
      if (stream !== undefined) {
        if (nowMs - confirmed.atMs >= CONFLICT_RESET_MS) stream.lostClaims = 0;
        // A stream that has not been read yet claims with its first report anyway.
        if (stream.lastReportMs !== undefined) this.#compete(stream, nowMs);
      }
    }
    const stream = this.#stream;
    if (stream === undefined) {
      // Taken over by somebody else, or back: then nothing is left to inherit.
      if (this.#takeover !== undefined && !sameClaim(this.#takeover.basis, observedClaim(observed)))
        this.#takeover = undefined;
      return;
    }
    this.#takeover = undefined;
    const moved =
      stream.pendingClaim !== 'none' && !sameClaim(stream.pendingClaim.basis, observedClaim(observed));
    if (moved || (stream.supersededAtMs !== undefined && this.#isUncontended())) this.#compete(stream, nowMs);
  }

  /** Somebody else has written the object since this stream's report was read. */
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

  /** True when no other stream stands behind the object: none has claimed it, or the owner says that it has none. */
  #isUncontended(): boolean {
    const owner = this.#observed?.owner;
    return owner === undefined || owner.replica === this.#self || this.#observed?.connected === false;
  }

  /** A superseded stream that has been heard again claims again. */
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

  /** A report was read late enough after a moment not to have been on its way before it, or the peer is proven. */
  #hasReportedSince(sinceMs: number, nowMs: number): boolean {
    const stream = this.#stream;
    if (stream === undefined) return false;
    if (stream.lastReportMs !== undefined && stream.lastReportMs >= sinceMs + this.#freshReportAfterMs())
      return true;
    return nowMs >= Math.max(sinceMs, stream.openedMs) + KEEPALIVE_PROOF_MS;
  }

  /** When something comes true by the passing of time alone. */
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

/** Before the n-th further claim of one stream: 1 s, then twice as long each time, to 5 minutes. */
function claimDelayMs(lostClaims: number): number {
  return lostClaims === 0 ? 0 : Math.min(MAX_WAIT_MS, INITIAL_WAIT_MS * 2 ** Math.min(lostClaims - 1, 30));
}

function observedClaim(observed: ObservedReporter | undefined): ObservedClaim | undefined {
  return observed === undefined ? undefined : { uid: observed.uid, owner: observed.owner };
}

function sameClaim(a: ObservedClaim | undefined, b: ObservedClaim | undefined): boolean {
  return a?.uid === b?.uid && a?.owner?.replica === b?.owner?.replica && a?.owner?.epoch === b?.owner?.epoch;
}
