import { WriteWindow } from './write-window.ts';

/** A tunnel flaps once it has gone down more often than this within the window. */
const MAX_DROPS = 6;
const WINDOW_MS = 600_000;
/** Least time between two writes for a flapping tunnel, and between two writes of the counts of its reporter. */
const WRITE_INTERVAL_MS = 30_000;
/** Writes for flapping tunnels, of all reporters together: 1,000 tunnels can be written every 30 s. */
const SLOTS_PER_SECOND = 34;
const SLOT_INTERVAL_MS = 1000 / SLOTS_PER_SECOND;
/** A write that is not sent this soon after its slot gets another slot, so that missed slots do not add up to a burst. */
const SLOT_VALID_MS = 1000;
/** Writes that the API server handles within any second, although slots may be used late and answers may take long. */
const MAX_WRITES_PER_SECOND = 36;
/** Tunnels whose drops are counted: a bound of a few MiB. While as many went down recently, no others are counted. */
const MAX_TRACKED_TUNNELS = 20_000;
/** Tunnels that have not gone down for 10 minutes are forgotten this often, or each second while the bound is reached. */
const PURGE_INTERVAL_MS = 60_000;
const URGENT_PURGE_INTERVAL_MS = 1000;
/** Tunnels that the status names. */
const MAX_NAMED = 5;

/** The flapping tunnels of one reporter, for its status. */
export interface FlappingSummary {
  readonly tunnels: number;
  /** The tunnels that have gone down most often: at most 5, sorted by name. */
  readonly worst: readonly string[];
}

/** The time of a write, which is reserved before it is sent, monotonic ms. */
interface WriteSlot {
  lastWriteMs: number;
  slotMs: number | undefined;
}

interface TrackedTunnel extends WriteSlot {
  /** The last drops, oldest first: as many as decide whether the tunnel flaps. Replaced, as most tunnels have only one. */
  recentMs: readonly number[];
  /** All drops without a pause of 10 minutes. */
  drops: number;
}

interface TrackedReporter {
  readonly tunnels: Map<string, TrackedTunnel>;
  /** Names of tunnels that were flapping when this was last checked. */
  readonly flapping: Set<string>;
  readonly status: WriteSlot;
}

/**
 * The tunnels of all reporters that come and go too often, and the limit of their writes. Two streams under one reporter
 * ID that supersede each other are another subject (`core/duplicate-reporter`).
 *
 * A tunnel flaps from its seventh drop within 10 minutes until these are fewer again. For this time, at most one write per
 * 30 s is sent for it, with the latest state, and at most 34 per second for all flapping tunnels. Each write has a slot of
 * its own, so that tunnels that flap together are not written together.
 */
export class FlappingTunnels {
  readonly #reporters = new Map<string, TrackedReporter>();
  #trackedCount = 0;
  #nextSlotMs = Number.NEGATIVE_INFINITY;
  readonly #window = new WriteWindow(MAX_WRITES_PER_SECOND, 1000);
  #purgedMs = Number.NEGATIVE_INFINITY;

  /** The number of tunnels whose drops are counted. */
  get trackedCount(): number {
    return this.#trackedCount;
  }

  /**
   * Records how often tunnels of a reporter have gone down.
   *
   * @returns true if tunnels of this reporter flap now and none did before
   */
  record(key: string, drops: ReadonlyMap<string, number>, nowMs: number): boolean {
    if (drops.size > 0) this.#purge(nowMs, PURGE_INTERVAL_MS);
    const before = this.hasFlapping(key, nowMs);
    for (const [name, count] of drops) {
      const tunnel = this.#track(key, name, nowMs);
      if (tunnel === undefined) continue;
      addDrops(tunnel, count, nowMs);
      if (flaps(tunnel, nowMs)) this.#reporters.get(key)?.flapping.add(name);
    }
    return !before && (this.#reporters.get(key)?.flapping.size ?? 0) > 0;
  }

  /** Returns true while the writes for a tunnel are limited. */
  isFlapping(key: string, name: string, nowMs: number): boolean {
    const tunnel = this.#reporters.get(key)?.tunnels.get(name);
    return tunnel !== undefined && flaps(tunnel, nowMs);
  }

  /** Returns how long the next write for a tunnel must wait, in ms, and reserves that time; 0 if it may be sent now. */
  writeDelayMs(key: string, name: string, nowMs: number): number {
    const tunnel = this.#reporters.get(key)?.tunnels.get(name);
    return tunnel !== undefined && flaps(tunnel, nowMs) ? this.#reserve(tunnel, nowMs) : 0;
  }

  /** Records that a write for a tunnel is sent. The result must be called with the time of its answer. */
  startWrite(key: string, name: string, nowMs: number): (answeredMs: number) => void {
    return this.#start(this.#reporters.get(key)?.tunnels.get(name), nowMs);
  }

  /**
   * Returns how long a status write in which only counts or names have changed must wait, in ms, and reserves that time.
   * Otherwise, a thousand reporters with one flapping tunnel each would cause more writes than their tunnels.
   */
  statusDelayMs(key: string, nowMs: number): number {
    const reporter = this.#reporters.get(key);
    if (reporter === undefined || !this.hasFlapping(key, nowMs)) return 0;
    return this.#reserve(reporter.status, nowMs);
  }

  /** Records that the status of a reporter is written. The result must be called with the time of the answer. */
  startStatusWrite(key: string, nowMs: number): (answeredMs: number) => void {
    return this.#start(this.#reporters.get(key)?.status, nowMs);
  }

  /** Returns true if tunnels of a reporter flap. Takes constant time, unlike `summary`. */
  hasFlapping(key: string, nowMs: number): boolean {
    const reporter = this.#reporters.get(key);
    for (const name of reporter?.flapping ?? []) {
      const tunnel = reporter?.tunnels.get(name);
      if (tunnel !== undefined && flaps(tunnel, nowMs)) return true;
      reporter?.flapping.delete(name);
    }
    return false;
  }

  /** Returns the flapping tunnels of a reporter; undefined if there are none. */
  summary(key: string, nowMs: number): FlappingSummary | undefined {
    const flapping = this.#flapping(key, nowMs);
    if (flapping === undefined || flapping.size === 0) return undefined;
    const { tunnels } = this.#reporters.get(key) ?? {};
    const worst: { readonly name: string; readonly drops: number }[] = [];
    for (const name of flapping) {
      const drops = tunnels?.get(name)?.drops ?? 0;
      const isAhead = worst.length < MAX_NAMED || drops > (worst.at(-1)?.drops ?? 0);
      if (!isAhead) continue;
      const position = worst.findIndex((other) => other.drops < drops);
      worst.splice(position < 0 ? worst.length : position, 0, { name, drops });
      if (worst.length > MAX_NAMED) worst.pop();
    }
    return { tunnels: flapping.size, worst: worst.map(({ name }) => name).toSorted() };
  }

  /** Returns when the number of a reporter's flapping tunnels changes if none goes down; undefined if there are none. */
  nextEndMs(key: string, nowMs: number): number | undefined {
    let nextMs: number | undefined;
    for (const name of this.#flapping(key, nowMs) ?? []) {
      const [firstMs = nowMs] = this.#reporters.get(key)?.tunnels.get(name)?.recentMs ?? [];
      nextMs = Math.min(nextMs ?? Number.POSITIVE_INFINITY, firstMs + WINDOW_MS);
    }
    return nextMs;
  }

  /** Returns the number of flapping tunnels of all reporters. */
  count(nowMs: number): number {
    this.#purge(nowMs, PURGE_INTERVAL_MS);
    let count = 0;
    for (const key of this.#reporters.keys()) count += this.#flapping(key, nowMs)?.size ?? 0;
    return count;
  }

  /** Forgets a reporter. */
  forget(key: string): void {
    this.#trackedCount -= this.#reporters.get(key)?.tunnels.size ?? 0;
    this.#reporters.delete(key);
  }

  /** Returns the names of the flapping tunnels of a reporter; undefined if none has gone down. */
  #flapping(key: string, nowMs: number): ReadonlySet<string> | undefined {
    const reporter = this.#reporters.get(key);
    if (reporter === undefined) return undefined;
    for (const name of reporter.flapping) {
      const tunnel = reporter.tunnels.get(name);
      if (tunnel === undefined || !flaps(tunnel, nowMs)) reporter.flapping.delete(name);
    }
    return reporter.flapping;
  }

  #track(key: string, name: string, nowMs: number): TrackedTunnel | undefined {
    const known = this.#reporters.get(key)?.tunnels.get(name);
    if (known !== undefined) return known;
    if (this.#trackedCount >= MAX_TRACKED_TUNNELS) this.#purge(nowMs, URGENT_PURGE_INTERVAL_MS);
    if (this.#trackedCount >= MAX_TRACKED_TUNNELS) return undefined;
    let reporter = this.#reporters.get(key);
    if (reporter === undefined) {
      reporter = { tunnels: new Map(), flapping: new Set(), status: newSlot() };
      this.#reporters.set(key, reporter);
    }
    const tunnel = { lastWriteMs: Number.NEGATIVE_INFINITY, slotMs: undefined, recentMs: [], drops: 0 };
    reporter.tunnels.set(name, tunnel);
    this.#trackedCount += 1;
    return tunnel;
  }

  /** Forgets the tunnels that have not gone down for 10 minutes, unless that was done less than `intervalMs` ago. */
  #purge(nowMs: number, intervalMs: number): void {
    if (nowMs - this.#purgedMs < intervalMs) return;
    this.#purgedMs = nowMs;
    for (const [key, { tunnels }] of this.#reporters) {
      for (const [name, { recentMs }] of tunnels) {
        if (nowMs - (recentMs.at(-1) ?? nowMs) < WINDOW_MS) continue;
        tunnels.delete(name);
        this.#trackedCount -= 1;
      }
      if (tunnels.size === 0) this.#reporters.delete(key);
    }
  }

  #reserve(slot: WriteSlot, nowMs: number): number {
    if (slot.slotMs === undefined || nowMs > slot.slotMs + SLOT_VALID_MS) {
      slot.slotMs = Math.max(nowMs, slot.lastWriteMs + WRITE_INTERVAL_MS, this.#nextSlotMs);
      this.#nextSlotMs = slot.slotMs + SLOT_INTERVAL_MS;
    }
    return nowMs < slot.slotMs ? slot.slotMs - nowMs : this.#window.delayMs(nowMs);
  }

  #start(slot: WriteSlot | undefined, nowMs: number): (answeredMs: number) => void {
    if (slot === undefined) return ignoreAnswer;
    const isLimited = slot.slotMs !== undefined;
    slot.lastWriteMs = nowMs;
    slot.slotMs = undefined;
    return isLimited ? this.#window.start() : ignoreAnswer;
  }
}

/** For writes that are not limited. */
function ignoreAnswer(): void {}

function newSlot(): WriteSlot {
  return { lastWriteMs: Number.NEGATIVE_INFINITY, slotMs: undefined };
}

function addDrops(tunnel: TrackedTunnel, count: number, nowMs: number): void {
  const { recentMs } = tunnel;
  if (nowMs - (recentMs.at(-1) ?? nowMs) >= WINDOW_MS) tunnel.drops = 0;
  tunnel.drops += count;
  const added = Array.from({ length: Math.min(count, MAX_DROPS + 1) }, () => nowMs);
  tunnel.recentMs = [...recentMs, ...added].slice(-(MAX_DROPS + 1));
}

function flaps({ recentMs }: TrackedTunnel, nowMs: number): boolean {
  const [firstMs] = recentMs;
  return recentMs.length > MAX_DROPS && firstMs !== undefined && nowMs - firstMs < WINDOW_MS;
}
