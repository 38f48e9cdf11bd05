import type { Owner, ReporterSeen } from './reporter-object.ts';

/** A stream is open this long after a moment only if its peer has answered a keepalive since (30 s and 10 s). */
const OPEN_PROVES_MS = 45_000;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 300_000;
/** Owning in peace for this long ends a quarrel: the next one begins with short waits again. */
const PEACE_MS = 600_000;

/** What one object says about ownership, compared as a whole: equal, never higher. */
interface Claimed {
  readonly uid: string;
  readonly owner: Owner | undefined;
}

/** A claim to send: one status write of owner and epoch, at exactly this version. */
export interface Claim {
  /** Undefined: there is no object, and it has to be created before it can be claimed. */
  readonly basis: ReporterSeen | undefined;
  readonly owner: Owner;
  /** False: nobody streams here; the claim only takes over what a dead owner left. */
  readonly streaming: boolean;
}

/** What is to be done next about a reporter's object. */
export type Decision =
  | { readonly do: 'claim'; readonly claim: Claim }
  /** What is known is in doubt (a conflict, a time-out): the object has to be read, not taken from a cache. */
  | { readonly do: 'read' }
  /** Nothing before `atMs`, if that is defined, or before something is told. */
  | { readonly do: 'wait'; readonly atMs: number | undefined };

/** May a row be written? `read`: not before a fresh read of the reporter's object. */
export type Permission = 'yes' | 'read' | 'no';

interface Stream {
  readonly openedMs: number;
  lastReadMs: number | undefined;
  /** What the object said when the report was read that a claim is to be sent for; `none`: no claim is due. */
  wants: { readonly basis: Claimed | undefined } | 'none';
  /** When it was learnt that another stream's claim won; undefined when none has. */
  supersededMs: number | undefined;
  /** Claims of this stream that were lost to another: the wait before the next doubles with each. */
  lost: number;
  /** Not to be claimed for before this: streams of this reporter replace each other too often. */
  readonly notBeforeMs: number;
}

interface Confirmed {
  readonly uid: string;
  readonly owner: Owner;
  readonly atMs: number;
  /** True: the claim took the reporter from another owner, and its stream has not been heard since. */
  needsSpeech: boolean;
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
  readonly #spokenAfterMs: () => number;
  #seen: ReporterSeen | undefined;
  #confirmed: Confirmed | undefined;
  #stream: Stream | undefined;
  /** An owner without a stream that is to be taken over, as it was found. */
  #inherits: { readonly basis: Claimed | undefined } | undefined;
  #claiming: (Claim & { readonly needsSpeech: boolean; readonly foreign: number }) | undefined;
  #doubt = false;
  /** Changes of rows by somebody else, and doubts, counted: what a read has to be sent after. */
  #foreign = 0;
  /** Which of them the doubt was. */
  #doubtMark = 0;
  /** Up to which of them ownership has been confirmed since. */
  #covered = 0;
  #freshMs = Number.NEGATIVE_INFINITY;

  /**
   * @param self this process: no two that ever lived share it
   * @param spokenAfterMs how much later than a moment a report has to be read to have been sent since
   */
  constructor(self: string, spokenAfterMs: () => number) {
    this.#self = self;
    this.#spokenAfterMs = spokenAfterMs;
  }

  /** The object as it was last seen. */
  get seen(): ReporterSeen | undefined {
    return this.#seen;
  }

  /**
   * True while rows are this replica's: the object said so when the claim was answered, and nothing has said otherwise
   * since. A claim under way, or a write that met another version, counts as not.
   */
  get owns(): boolean {
    return this.#confirmed !== undefined && this.#claiming === undefined && !this.#doubt && !this.#wanting();
  }

  /** True from a confirmed claim until the object is known to say otherwise, also while that is in doubt or claimed anew. */
  get holds(): boolean {
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
      this.#inherits === undefined &&
      !this.#doubt
    );
  }

  /**
   * The reporter has a new stream here; one that was there before is no more.
   *
   * @param holdMs how long to wait before its claim: above 0 where streams replace each other too often. Not longer than
   *   the one before would have waited, if that is still to be claimed for: else faster streams would end all claims
   */
  streamOpened(nowMs: number, holdMs = 0): void {
    const former = this.#stream;
    const waits = former !== undefined && former.wants !== 'none';
    this.#stream = {
      openedMs: nowMs,
      lastReadMs: undefined,
      wants: 'none',
      supersededMs: undefined,
      lost: 0,
      notBeforeMs: waits ? former.notBeforeMs : nowMs + holdMs,
    };
  }

  /** A report has been read on the stream. */
  reportRead(nowMs: number): void {
    const stream = this.#stream;
    if (stream === undefined) return;
    const first = stream.lastReadMs === undefined;
    stream.lastReadMs = nowMs;
    if (first) stream.wants = { basis: claimed(this.#seen) };
    this.#hear(nowMs);
  }

  streamClosed(): void {
    this.#stream = undefined;
  }

  /** Nobody streams here, and the owner is dead or there is none: take over what it left. */
  inherit(): void {
    if (this.#stream === undefined && !this.owns) this.#inherits = { basis: claimed(this.#seen) };
  }

  /**
   * The object as the watch, a list, a read or the answer to one's own write shows it; undefined when there is none.
   * The caller sees to it that an older version never follows a newer one.
   */
  observed(seen: ReporterSeen | undefined, nowMs: number): void {
    this.#seen = seen;
    // Whether the write that is under way came before or after this, only its answer tells.
    if (this.#claiming !== undefined || this.#doubt) return;
    this.#judge(nowMs);
  }

  /** What to do now. `wait` also while a claim or a read is under way. */
  decide(nowMs: number): Decision {
    if (this.#claiming !== undefined) return { do: 'wait', atMs: undefined };
    if (this.#doubt) return { do: 'read' };
    this.#hear(nowMs);
    if (!this.#wanting()) return { do: 'wait', atMs: this.#nextMs() };
    const notBeforeMs = this.#stream?.notBeforeMs ?? nowMs;
    return nowMs < notBeforeMs
      ? { do: 'wait', atMs: notBeforeMs }
      : { do: 'claim', claim: this.#nextClaim() };
  }

  /** The claim that `decide` gave is sent now. */
  claimSent(claim: Claim): void {
    const held = this.#confirmed;
    // Not by the owner's name: a claim that timed out and landed has this replica's name too. And of a claim that was
    // never spoken on the debt stays: the next stream of this replica may hold just as old a report.
    const unchanged = held !== undefined && !held.needsSpeech && sameClaim(held, claimed(claim.basis));
    this.#claiming = { ...claim, needsSpeech: !unchanged, foreign: this.#foreign };
  }

  /** The claim was answered by 2xx: `answer` is the object as it was stored. `observed` may have shown a later one. */
  claimConfirmed(answer: ReporterSeen, nowMs: number): void {
    const claim = this.#claiming;
    if (claim === undefined) return;
    this.#claiming = undefined;
    this.#inherits = undefined;
    this.#confirmed = {
      uid: answer.uid,
      owner: claim.owner,
      atMs: nowMs,
      needsSpeech: claim.needsSpeech,
    };
    this.#covered = claim.foreign;
    if (this.#stream !== undefined && claim.streaming) {
      // A stream that was opened meanwhile has not been claimed for.
      if (this.#stream.lastReadMs !== undefined) this.#stream.wants = 'none';
      this.#stream.supersededMs = undefined;
    }
    this.#judge(nowMs);
  }

  /** The claim met another version, or was not answered: only a read tells what became of it. */
  claimUnsettled(): void {
    this.#claiming = undefined;
    this.doubt();
  }

  /** The claim was refused for good, for now: the object is as it was, and the claim is still wanted. */
  claimRefused(nowMs: number): void {
    this.#claiming = undefined;
    this.#judge(nowMs);
  }

  /** A write of one's own to the object met another version. */
  doubt(): void {
    if (this.#claiming !== undefined) return;
    this.#doubt = true;
    this.#foreign += 1;
    this.#doubtMark = this.#foreign;
  }

  /** A row of this reporter is not as this replica left it. */
  foreignRow(): void {
    this.#foreign += 1;
  }

  /** What the read that is sent now comes after; to be kept until it is answered. */
  get readMark(): number {
    return this.#foreign;
  }

  /** A read, sent at `sentMs` with `mark`, was answered. */
  readAnswered(seen: ReporterSeen | undefined, mark: number, sentMs: number, nowMs: number): void {
    this.#seen = seen;
    // A read that was sent before the write in doubt may have been answered before it landed.
    if (this.#claiming !== undefined || (this.#doubt && mark < this.#doubtMark)) return;
    this.#doubt = false;
    this.#judge(nowMs);
    if (!this.owns) return;
    this.#covered = Math.max(this.#covered, mark);
    this.#freshMs = Math.max(this.#freshMs, sentMs);
  }

  /** May a row be created or changed? */
  mayWrite(): Permission {
    if (!this.owns) return 'no';
    return this.#foreign > this.#covered ? 'read' : 'yes';
  }

  /** May a row be deleted because its reporter does not report it? */
  mayCollect(nowMs: number): Permission {
    return this.#confirmed?.needsSpeech === true && !this.#hasSpokenSinceClaim(nowMs)
      ? 'no'
      : this.mayWrite();
  }

  /** May a row be deleted because its reporter has been lost for long? Needs a read within the last `freshForMs`. */
  mayExpire(nowMs: number, freshForMs: number): Permission {
    if (!this.owns || this.#stream !== undefined) return 'no';
    return this.#foreign > this.#covered || nowMs - this.#freshMs >= freshForMs ? 'read' : 'yes';
  }

  /** Compares what is seen with what is held, claimed or wanted. */
  #judge(nowMs: number): void {
    const seen = this.#seen;
    const confirmed = this.#confirmed;
    if (confirmed !== undefined && !sameClaim(confirmed, claimed(seen))) {
      this.#confirmed = undefined;
      const stream = this.#stream;
      if (stream !== undefined) {
        if (nowMs - confirmed.atMs >= PEACE_MS) stream.lost = 0;
        // A stream that has not been read yet claims with its first report anyway.
        if (stream.lastReadMs !== undefined) this.#contend(stream, nowMs);
      }
    }
    const stream = this.#stream;
    if (stream === undefined) {
      // Taken over by somebody else, or back: then nothing is left to inherit.
      if (this.#inherits !== undefined && !sameClaim(this.#inherits.basis, claimed(seen)))
        this.#inherits = undefined;
      return;
    }
    this.#inherits = undefined;
    const moved = stream.wants !== 'none' && !sameClaim(stream.wants.basis, claimed(seen));
    if (moved || (stream.supersededMs !== undefined && this.#isFree())) this.#contend(stream, nowMs);
  }

  /** Somebody else has written the object since this stream's report was read. */
  #contend(stream: Stream, nowMs: number): void {
    if (this.#isFree()) {
      stream.wants = { basis: claimed(this.#seen) };
      stream.supersededMs = undefined;
      return;
    }
    stream.wants = 'none';
    stream.supersededMs = nowMs;
    stream.lost += 1;
  }

  /** True when no other stream stands behind the object: none has claimed it, or the owner says that it has none. */
  #isFree(): boolean {
    const owner = this.#seen?.owner;
    return owner === undefined || owner.replica === this.#self || this.#seen?.connected === false;
  }

  /** A superseded stream that has been heard again claims again. */
  #hear(nowMs: number): void {
    const stream = this.#stream;
    const confirmed = this.#confirmed;
    if (confirmed?.needsSpeech === true && this.#hasSpokenSinceClaim(nowMs)) confirmed.needsSpeech = false;
    if (stream?.supersededMs === undefined) return;
    if (nowMs < stream.supersededMs + waitMs(stream.lost)) return;
    if (!this.#hasSpokenSince(stream.supersededMs, nowMs)) return;
    stream.supersededMs = undefined;
    stream.wants = { basis: claimed(this.#seen) };
  }

  #hasSpokenSinceClaim(nowMs: number): boolean {
    return this.#confirmed !== undefined && this.#hasSpokenSince(this.#confirmed.atMs, nowMs);
  }

  /** A report was read late enough after a moment not to have been on its way before it, or the peer is proven. */
  #hasSpokenSince(sinceMs: number, nowMs: number): boolean {
    const stream = this.#stream;
    if (stream === undefined) return false;
    if (stream.lastReadMs !== undefined && stream.lastReadMs >= sinceMs + this.#spokenAfterMs()) return true;
    return nowMs >= Math.max(sinceMs, stream.openedMs) + OPEN_PROVES_MS;
  }

  /** When something comes true by the passing of time alone. */
  #nextMs(): number | undefined {
    const stream = this.#stream;
    if (stream === undefined) return undefined;
    const times: number[] = [];
    if (this.#confirmed?.needsSpeech === true) {
      times.push(Math.max(this.#confirmed.atMs, stream.openedMs) + OPEN_PROVES_MS);
    }
    if (stream.supersededMs !== undefined) {
      const { supersededMs, lost, lastReadMs, openedMs } = stream;
      const spoken = lastReadMs !== undefined && lastReadMs >= supersededMs + this.#spokenAfterMs();
      const heardMs = spoken ? lastReadMs : Math.max(supersededMs, openedMs) + OPEN_PROVES_MS;
      times.push(Math.max(supersededMs + waitMs(lost), heardMs));
    }
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #wanting(): boolean {
    return (this.#stream !== undefined && this.#stream.wants !== 'none') || this.#inherits !== undefined;
  }

  #nextClaim(): Claim {
    const basis = this.#seen;
    return {
      basis,
      owner: { replica: this.#self, epoch: (basis?.owner?.epoch ?? 0) + 1 },
      streaming: this.#stream !== undefined,
    };
  }
}

/** Before the n-th further claim of one stream: 1 s, then twice as long each time, to 5 minutes. */
function waitMs(lost: number): number {
  return lost === 0 ? 0 : Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(lost - 1, 30));
}

function claimed(seen: ReporterSeen | undefined): Claimed | undefined {
  return seen === undefined ? undefined : { uid: seen.uid, owner: seen.owner };
}

function sameClaim(a: Claimed | undefined, b: Claimed | undefined): boolean {
  return a?.uid === b?.uid && a?.owner?.replica === b?.owner?.replica && a?.owner?.epoch === b?.owner?.epoch;
}
