import type { Clock } from '../clock.ts';
import { expectsSame, type Match } from '../core/expectation.ts';
import type { ExpectationObject } from '../core/expectation-object.ts';
import { evaluate, EXPECTATION_STATES, progressAfterEdit, progressFrom } from '../core/expectation-status.ts';
import type { ExpectationState } from '../core/expectation-status.ts';
import { ExpectationTally } from '../core/expectation-tally.ts';
import type { Names } from '../core/names.ts';
import { newBucket } from '../core/token-bucket.ts';
import { GroupIndex, presenceOf, TunnelGroup, type Presence } from '../core/tunnel-groups.ts';
import type { ObservedTunnel } from '../core/tunnel-object.ts';
import { sameIdentity } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { ExpectationCache, ExpectationCacheEventHandler } from './expectation-cache.ts';
import { COUNTS_DELAY_MS } from './expectation-entry.ts';
import type { CountedGroup, ExpectationEntry, GroupMember } from './expectation-entry.ts';
import { ExpectationQuota, NOT_PARSED } from './expectation-quota.ts';
import type { MirroredTunnels, MirroredTunnelsEventHandler } from './mirrored-tunnels.ts';
import type { Workqueue } from './workqueue.ts';

/** The key of all expectations in their queue; the name of an item is that of the expectation. */
export const EXPECTATIONS_KEY = 'expectations';

/** How often this replica checks whether it is the leader. */
const LEADER_CHECK_INTERVAL_MS = 1000;
/** Objects that a scan counts per tick of the event loop. */
const SCANNED_PER_TICK = 4096;
/** Expectations that a scan queues per tick once its objects are counted. */
const QUEUED_PER_TICK = 256;
/** Minimum time between two scans, however many expectations are added or edited. */
const SCAN_INTERVAL_MS = 1000;
/** Limits the work for groups with many members, such as 10,000 expectations about one tenant. */
const MEMBERS_PER_MS = 10;

export interface ExpectationTrackerOptions {
  readonly expectations: Pick<ExpectationCache, 'hasSynced' | 'names'>;
  /** The tunnels in either form. */
  readonly tunnels: Pick<MirroredTunnels, 'hasSynced' | 'snapshot'>;
  readonly names: Pick<Names, 'labelValue'>;
  /** Only the leader keeps counts. */
  readonly leader: { readonly isHeld: boolean };
  /** Receives the names of expectations whose result may have changed. */
  readonly queue: Workqueue;
  /** Limit of the matches of all expectations together. Default: 200,000. */
  readonly maxMatches?: number;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Counts the tunnels of each expectation, on the leader. A change of an object updates the groups that it belongs to,
 * and queues their expectations; nothing is scanned periodically. Only a new match causes one scan of all objects, which
 * all matches that are added within a second share.
 */
export class ExpectationTracker implements MirroredTunnelsEventHandler, ExpectationCacheEventHandler {
  readonly #options: ExpectationTrackerOptions;
  readonly #entries = new Map<string, ExpectationEntry>();
  readonly #groups = new Map<string, CountedGroup>();
  readonly #quota: ExpectationQuota;
  #index: GroupIndex;
  /** The counted group of each group in the index. */
  readonly #byGroup = new Map<TunnelGroup, CountedGroup>();
  readonly #waiting = new Set<CountedGroup>();
  readonly #changed = new Set<CountedGroup>();
  #isActive = false;
  #stopPolling: (() => void) | undefined;
  #cancelNotify: (() => void) | undefined;
  #notifyScheduled = false;
  #cancelScan: (() => void) | undefined;
  #isScanning = false;
  #nextScanMs = 0;
  /** Increased by each deactivation, so that a scan in progress ends. */
  #term = 0;

  constructor(options: ExpectationTrackerOptions) {
    this.#options = options;
    this.#index = new GroupIndex(options.names);
    this.#quota = new ExpectationQuota(options.maxMatches);
  }

  start(): void {
    const { clock, log } = this.#options;
    this.#stopPolling = runPeriodically(clock, log, {
      name: 'check whether this replica evaluates expectations',
      intervalMs: LEADER_CHECK_INTERVAL_MS,
      run: () => this.#checkLeader(),
    });
  }

  /** Ends all timers, and forgets everything. */
  stop(): void {
    this.#stopPolling?.();
    this.#deactivate();
  }

  /** True while this replica evaluates expectations. */
  get isActive(): boolean {
    return this.#isActive;
  }

  /** The number of expectations in each state; all 0 on a replica that is not the leader. */
  countStates(): Readonly<Record<ExpectationState, number>> {
    const counts = Object.fromEntries(EXPECTATION_STATES.map((state) => [state, 0]));
    for (const { state } of this.#entries.values())
      if (state !== undefined) counts[state] = (counts[state] ?? 0) + 1;
    return counts as Record<ExpectationState, number>;
  }

  onExpectationChanged(name: string): void {
    if (this.#isActive) this.#enqueue(name);
  }

  onTunnelObserved(
    reporterKey: string,
    before: ObservedTunnel | undefined,
    after: ObservedTunnel | undefined,
  ): void {
    if (this.#byGroup.size === 0) return;
    const from = before === undefined ? 'absent' : presenceOf(before);
    const to = after === undefined ? 'absent' : presenceOf(after);
    if (
      from === to &&
      (before === undefined || after === undefined || sameIdentity(before.tunnel, after.tunnel))
    )
      return;
    this.#addToGroups(reporterKey, before, from, -1);
    this.#addToGroups(reporterKey, after, to, 1);
    this.#scheduleNotify();
  }

  /** Returns the entry of an expectation; it is created if the expectation is new or was recreated. */
  entryOf(object: ExpectationObject): ExpectationEntry {
    const { name, uid } = object.metadata;
    const known = this.#entries.get(name);
    if (known?.uid === uid) return known;
    this.remove(name);
    const entry: ExpectationEntry = {
      name,
      uid,
      spec: object.spec,
      generation: object.metadata.generation,
      expectation: NOT_PARSED,
      members: [],
      tally: undefined,
      progress: progressFrom(object),
      state: undefined,
      reason: undefined,
      countsDueMs: undefined,
      rewritten: undefined,
      isEvaluated: false,
      edits: newBucket(),
      writes: newBucket(),
    };
    this.#entries.set(name, entry);
    this.#quota.parse(entry);
    this.#join(entry);
    return entry;
  }

  /** Applies an edit of the spec. If tunnels must be counted for it, `entry.tally` is undefined until then. */
  apply(entry: ExpectationEntry, { metadata, spec }: ExpectationObject): void {
    if (!expectsSame(entry.spec, spec)) entry.progress = progressAfterEdit(entry.progress);
    const { members } = entry;
    entry.spec = spec;
    entry.generation = metadata.generation;
    entry.isEvaluated = false;
    this.#quota.parse(entry);
    // The new groups are joined before the old ones are left, so that a group in both stays counted.
    this.#join(entry);
    this.#leave(members);
  }

  /** Forgets an expectation. */
  remove(name: string): void {
    const entry = this.#entries.get(name);
    if (entry === undefined) return;
    this.#entries.delete(name);
    this.#quota.forget(entry);
    const { members } = entry;
    entry.members = [];
    this.#leave(members);
  }

  #addToGroups(
    reporterKey: string,
    object: ObservedTunnel | undefined,
    presence: Presence,
    count: 1 | -1,
  ): void {
    if (object === undefined || presence === 'absent') return;
    for (const group of this.#index.groupsOf(reporterKey, object.tunnel)) {
      group.add(reporterKey, presence, count);
      this.#changed.add(this.#counted(group));
    }
  }

  #checkLeader(): void {
    const { leader, expectations, tunnels } = this.#options;
    if (!leader.isHeld) {
      if (this.#isActive) this.#deactivate();
    } else if (!this.#isActive && expectations.hasSynced && tunnels.hasSynced) {
      this.#isActive = true;
      for (const name of expectations.names()) this.#enqueue(name);
    }
  }

  #deactivate(): void {
    this.#isActive = false;
    this.#term += 1;
    this.#cancelNotify?.();
    this.#cancelNotify = undefined;
    this.#cancelScan?.();
    this.#cancelScan = undefined;
    this.#isScanning = false;
    this.#index = new GroupIndex(this.#options.names);
    this.#quota.clear();
    for (const state of [this.#entries, this.#groups, this.#byGroup, this.#waiting, this.#changed])
      state.clear();
    this.#options.queue.forget(EXPECTATIONS_KEY);
  }

  #enqueue(name: string): void {
    const { queue, clock } = this.#options;
    queue.add(EXPECTATIONS_KEY, name, clock.monotonicMs());
  }

  #counted(group: TunnelGroup): CountedGroup {
    const counted = this.#byGroup.get(group);
    if (counted === undefined) throw new Error(`no expectation has the match ${group.match.key}`);
    return counted;
  }

  /** Gives the room that others have left to expectations that exceeded the limit. */
  #readmit(): void {
    for (let entry = this.#quota.next(); entry !== undefined; entry = this.#quota.next()) {
      this.#quota.parse(entry);
      this.#join(entry);
      this.#enqueue(entry.name);
    }
  }

  /** Creates the groups of an expectation, or joins existing ones. */
  #join(entry: ExpectationEntry): void {
    entry.tally = undefined;
    entry.members = entry.expectation.matches.map((match, index) => {
      const counted = this.#groupFor(match);
      const member = { counted, entry, index };
      counted.members.add(member);
      return member;
    });
    this.#quota.join(entry.members.length);
    this.#createTally(entry);
  }

  #groupFor(match: Match): CountedGroup {
    const known = this.#groups.get(match.key);
    if (known !== undefined) return known;
    const group = new TunnelGroup(match);
    const counted: CountedGroup = { group, phase: 'waiting', members: new Set(), nextNotifyMs: 0 };
    this.#groups.set(match.key, counted);
    this.#waiting.add(counted);
    this.#scheduleScan();
    return counted;
  }

  /** Leaves groups, and drops those without members. */
  #leave(members: readonly GroupMember[]): void {
    this.#quota.leave(members.length);
    for (const member of members) {
      const { counted } = member;
      counted.members.delete(member);
      if (counted.members.size > 0) continue;
      this.#groups.delete(counted.group.match.key);
      this.#waiting.delete(counted);
      this.#changed.delete(counted);
      if (this.#byGroup.delete(counted.group)) this.#index.remove(counted.group);
    }
    this.#readmit();
  }

  #createTally(entry: ExpectationEntry): void {
    const { expectation, members } = entry;
    if (members.length === 0 || members.some(({ counted }) => counted.phase !== 'counted')) return;
    entry.tally = new ExpectationTally(
      expectation,
      members.map(({ counted }) => counted.group),
    );
  }

  /** Passes changes on, on a later tick: a report with many changes then causes one evaluation. */
  #scheduleNotify(): void {
    if (this.#notifyScheduled || this.#changed.size === 0) return;
    this.#notifyScheduled = true;
    this.#options.clock.setImmediate(() => {
      this.#notifyScheduled = false;
      this.#notifyMembers();
    });
  }

  #notifyMembers(): void {
    const { clock } = this.#options;
    const nowMs = clock.monotonicMs();
    let nextMs = Infinity;
    for (const counted of this.#changed) {
      if (counted.phase !== 'counted') {
        this.#changed.delete(counted);
        continue;
      }
      if (nowMs < counted.nextNotifyMs) {
        nextMs = Math.min(nextMs, counted.nextNotifyMs);
        continue;
      }
      this.#changed.delete(counted);
      counted.nextNotifyMs = nowMs + Math.floor(counted.members.size / MEMBERS_PER_MS);
      for (const member of counted.members) this.#notify(member, nowMs);
    }
    this.#cancelNotify?.();
    this.#cancelNotify =
      nextMs === Infinity ? undefined : clock.setTimer(nextMs - nowMs, () => this.#notifyMembers());
  }

  /**
   * Evaluates an expectation again. If its state or reason changes, it is queued at once; otherwise it is queued once for
   * when changed counts are written or its grace period ends, however many changes follow until then.
   */
  #notify({ entry, index }: GroupMember, nowMs: number): void {
    const { name, tally, expectation, progress } = entry;
    if (tally === undefined) return;
    tally.update(index);
    const { state, reason, graceEndsAtMs, ...evaluation } = evaluate(
      expectation,
      tally.finding,
      progress,
      nowMs,
    );
    entry.progress = evaluation.progress;
    if (state !== entry.state || reason !== entry.reason) {
      this.#enqueue(name);
      return;
    }
    entry.countsDueMs ??= nowMs + COUNTS_DELAY_MS;
    const dueMs = Math.min(entry.countsDueMs, graceEndsAtMs ?? Infinity);
    const item = { key: EXPECTATIONS_KEY, name, priority: 'normal', sinceMs: nowMs } as const;
    this.#options.queue.addAfter(item, Math.max(0, dueMs - nowMs));
  }

  #scheduleScan(): void {
    if (this.#cancelScan !== undefined || this.#isScanning) return;
    const { clock } = this.#options;
    const delayMs = Math.max(0, this.#nextScanMs - clock.monotonicMs());
    this.#cancelScan = clock.setTimer(delayMs, () => {
      this.#cancelScan = undefined;
      this.#scan();
    });
  }

  /**
   * Counts the tunnels of the waiting groups. The scan reads them as they were at its start, and changes from then on are
   * applied in addition, so the result is exact although the scan takes many ticks.
   */
  #scan(): void {
    const { clock, tunnels, names } = this.#options;
    this.#isScanning = true;
    this.#nextScanMs = clock.monotonicMs() + SCAN_INTERVAL_MS;
    const scanned = [...this.#waiting];
    this.#waiting.clear();
    const index = new GroupIndex(names);
    for (const counted of scanned) {
      counted.phase = 'counting';
      index.insert(counted.group);
      this.#index.insert(counted.group);
      this.#byGroup.set(counted.group, counted);
    }
    const remaining = tunnels.snapshot()[Symbol.iterator]();
    const term = this.#term;
    const countSome = (): void => {
      if (term !== this.#term) return;
      for (let count = 0; count < SCANNED_PER_TICK; count += 1) {
        const { done, value } = remaining.next();
        if (done === true) {
          this.#endScan(scanned);
          return;
        }
        const [key, object] = value;
        const presence = presenceOf(object);
        if (presence === 'absent') continue;
        for (const group of index.groupsOf(key, object.tunnel)) group.add(key, presence, 1);
      }
      clock.setImmediate(countSome);
    };
    countSome();
  }

  /** Queues the expectations whose groups have been counted, in batches: ACKs must not wait for thousands of them. */
  #endScan(scanned: readonly CountedGroup[]): void {
    const entries = new Set<ExpectationEntry>();
    for (const counted of scanned) {
      counted.phase = 'counted';
      for (const { entry } of counted.members) entries.add(entry);
    }
    const term = this.#term;
    const remaining = entries.values();
    const queueSome = (): void => {
      if (term !== this.#term) return;
      for (let queued = 0; queued < QUEUED_PER_TICK; queued += 1) {
        const { done, value: entry } = remaining.next();
        if (done === true) {
          this.#isScanning = false;
          if (this.#waiting.size > 0) this.#scheduleScan();
          return;
        }
        this.#createTally(entry);
        if (entry.tally !== undefined) this.#enqueue(entry.name);
      }
      this.#options.clock.setImmediate(queueSome);
    };
    queueSome();
  }
}
