/** The slices of one reporter in memory, written as the operator does, with packing and plan but without an API server. */
import type { DisconnectPhase } from '../../src/core/grace-timer.ts';
import type { TunnelState } from '../../src/core/ledger.ts';
import type { ObservedSlice } from '../../src/core/slice-object.ts';
import { SlicePacking } from '../../src/core/slice-packing.ts';
import { planSlice, type DesiredEntry, type Placement, type SliceAction } from '../../src/core/slice-plan.ts';
import { Drift } from '../../src/core/tunnel-object.ts';
import { sameIdentity, type Tunnel } from '../../src/core/tunnel.ts';
import { tunnel } from './sample-tunnels.ts';

/** A write that was planned and is executed later, or an executed one. */
export interface SliceWrite {
  readonly sliceName: string;
  readonly action: SliceAction;
  /** Entries that leave because their tunnels were down when the write was planned. */
  readonly down: ReadonlySet<string>;
}

export class SliceFixture {
  /** What the reporter reports. */
  readonly reported = new Map<string, Tunnel>();
  /** Tunnels whose removal is held. */
  readonly held = new Set<string>();
  /** The existing slices. */
  readonly stored = new Map<string, ObservedSlice>();
  readonly writes: SliceWrite[] = [];
  phase: DisconnectPhase | undefined;
  canRemove = true;

  packing = this.#createPacking();
  /** Writes that were planned and are not executed yet, by slice. */
  readonly inFlight = new Map<string, SliceWrite>();
  /** Tunnels that lost an entry by a manual edit while a write was in flight, which may remove the only other one. */
  readonly lostManually = new Set<string>();
  readonly #queue = new Set<string>();
  readonly #closed = new Set<string>();
  #version = 0;

  /** Reports tunnels of a tenant. */
  add(names: readonly string[], tenantID = 'a', clusterID = 'eu-1'): void {
    for (const name of names) {
      this.reported.set(name, tunnel(name, { tenantID, clusterID }));
      this.held.delete(name);
      this.#compare(name);
    }
  }

  /** Reports that tunnels are down. */
  remove(names: readonly string[]): void {
    for (const name of names) {
      this.reported.delete(name);
      this.held.delete(name);
      this.#compare(name);
    }
  }

  /** Reports a full push that lacks tunnels, whose removal is held. */
  hold(names: readonly string[]): void {
    for (const name of names) {
      if (this.reported.delete(name)) this.held.add(name);
      this.#compare(name);
    }
  }

  /** Permits removals, or not. */
  permitRemovals(isPermitted: boolean): void {
    this.canRemove = isPermitted;
    this.resync();
  }

  /** Compares everything. */
  resync(): void {
    for (const slice of this.stored.values()) {
      this.#queue.add(slice.name);
      for (const name of slice.entries.keys()) this.#compare(name);
    }
    for (const name of this.reported.keys()) this.#compare(name);
  }

  /** Restarts the operator. */
  restart(): void {
    this.packing = this.#createPacking();
    this.packing.adopt(this.stored.values());
    this.#queue.clear();
    this.#closed.clear();
    this.inFlight.clear();
    this.resync();
  }

  /** Starts a merge if there are half-empty slices. Returns true if it has. */
  merge(): boolean {
    const merge = this.packing.planMerge();
    if (merge !== undefined) this.packing.merge(merge);
    this.#takeChanged();
    return merge !== undefined;
  }

  /** Plans the write of the next queued slice without executing it; undefined if there is none. */
  plan(): SliceWrite | undefined {
    for (const sliceName of this.#queue) {
      if (this.inFlight.has(sliceName)) continue;
      this.#queue.delete(sliceName);
      for (const name of [...this.packing.pending(sliceName)])
        if (!this.reported.has(name)) this.packing.release(name);
      this.packing.writing(sliceName);
      const { action, overflow } = planSlice(this.stored.get(sliceName), {
        tenantID: this.stored.get(sliceName)?.tenantID ?? this.packing.identity(sliceName)?.tenantID ?? '',
        phase: this.phase,
        canRemove: this.canRemove,
        pending: this.packing.pending(sliceName),
        desired: (name, entry) => this.#desired(sliceName, name, entry),
      });
      if (overflow.length > 0) this.packing.reassign(sliceName, overflow);
      this.#takeChanged();
      if (action === undefined) continue;
      const down = removedBy(action).filter((name) => this.#tunnelState(name).state === 'absent');
      const write = { sliceName, action, down: new Set(down) };
      this.inFlight.set(sliceName, write);
      return write;
    }
    return undefined;
  }

  /** Executes a planned write. */
  execute(write: SliceWrite): void {
    const { sliceName, action } = write;
    this.inFlight.delete(sliceName);
    if (this.inFlight.size === 0) this.lostManually.clear();
    this.writes.push(write);
    const known = this.stored.get(sliceName);
    if (action.type === 'create' && known === undefined) {
      const { tenantID, ordinal } = this.packing.identity(sliceName) ?? { tenantID: '', ordinal: -1 };
      this.store({ ...this.#emptySlice(sliceName, tenantID, ordinal), entries: byName(action.tunnels) });
    } else if (known === undefined || action.type === 'create' || action.slice !== known) {
      // The precondition is not met: the slice is compared again.
      this.writes.pop();
      this.#queue.add(sliceName);
      return;
    } else if (action.type === 'patch') {
      this.store({ ...known, entries: byName(action.tunnels), drift: known.drift & ~Drift.labels });
    } else if (action.type === 'patchStatus') {
      const isUnknown = action.unknown.size === known.entries.size;
      const exceptions = isUnknown ? new Set<string>() : action.unknown;
      this.store({ ...known, isUnknown, exceptions, drift: known.drift & ~(Drift.status | Drift.closed) });
    } else if (action.type === 'markClosed') {
      this.store({ ...known, drift: known.drift | Drift.closed | Drift.status });
    } else this.discard(sliceName);
    this.#queue.add(sliceName);
  }

  /** Rejects a planned write: what it was to add goes to other slices, and so do new tunnels. */
  reject({ sliceName }: SliceWrite): void {
    this.inFlight.delete(sliceName);
    this.packing.close(sliceName);
    this.#closed.add(sliceName);
    this.moveElsewhere(sliceName, this.stored.has(sliceName));
    this.#queue.add(sliceName);
  }

  /** Assigns the tunnels to other slices that a slice does not contain yet. */
  moveElsewhere(sliceName: string, canOpen: boolean): void {
    this.packing.moveElsewhere(sliceName, [...this.packing.pending(sliceName)], canOpen);
    this.#takeChanged();
  }

  /** Assigns tunnels to rejected slices again. */
  reopen(): void {
    for (const sliceName of this.#closed) this.packing.reopen(sliceName);
    this.#closed.clear();
  }

  /** Writes until nothing differs. Returns the number of writes. */
  settle(): number {
    const before = this.writes.length;
    for (const write of [...this.inFlight.values()]) this.execute(write);
    for (let write = this.plan(); write !== undefined; write = this.plan()) {
      if (this.writes.length - before > 1000) throw new Error('the writes do not end');
      this.execute(write);
    }
    return this.writes.length - before;
  }

  /** Stores a slice, as the response to a write or a watch event. */
  store(slice: ObservedSlice): void {
    this.#version += 1;
    const stored = { ...slice, resourceVersion: String(this.#version) };
    const before = this.stored.get(slice.name)?.entries;
    this.stored.set(slice.name, stored);
    this.#afterObserved(slice.name, this.packing.observe(stored), before, stored.entries);
  }

  /** Removes a slice, as the response to a write or a watch event. */
  discard(sliceName: string): void {
    const before = this.stored.get(sliceName)?.entries;
    this.stored.delete(sliceName);
    this.packing.observeDeleted(sliceName);
    this.#afterObserved(sliceName, [], before, undefined);
  }

  /** Replaces the entries of a slice, or deletes it, like a user. */
  editManually(slice: ObservedSlice, entries: ReadonlyMap<string, Tunnel> | undefined): void {
    for (const name of slice.entries.keys())
      if (this.inFlight.size > 0 && entries?.has(name) !== true) this.lostManually.add(name);
    if (entries === undefined) this.discard(slice.name);
    else this.store({ ...slice, entries });
  }

  /** Returns the names of the slices that contain a tunnel. */
  slicesOf(name: string): string[] {
    const names: string[] = [];
    for (const slice of this.stored.values()) if (slice.entries.has(name)) names.push(slice.name);
    return names;
  }

  #emptySlice(name: string, tenantID: string, ordinal: number): ObservedSlice {
    return {
      name,
      uid: `uid-${(this.#version += 1)}`,
      resourceVersion: '0',
      key: 'key',
      tenantID,
      ordinal,
      entries: new Map(),
      isUnknown: false,
      exceptions: new Set(),
      drift: 0,
    };
  }

  #createPacking(): SlicePacking {
    return new SlicePacking((tenantID, ordinal) => `${tenantID}-${ordinal}`);
  }

  #afterObserved(
    sliceName: string,
    orphans: readonly string[],
    before: ReadonlyMap<string, Tunnel> | undefined,
    after: ReadonlyMap<string, Tunnel> | undefined,
  ): void {
    this.#queue.add(sliceName);
    this.#takeChanged();
    for (const name of new Set([...orphans, ...(before?.keys() ?? []), ...(after?.keys() ?? [])]))
      this.#compare(name);
  }

  #compare(name: string): void {
    const { state } = this.#tunnelState(name);
    const reported = this.reported.get(name);
    if (reported !== undefined) {
      const sliceName = this.packing.assign(name, reported.tenantID);
      if (this.stored.get(sliceName)?.entries.get(name) !== reported) this.#queue.add(sliceName);
    } else if (state === 'absent' && this.canRemove) this.packing.release(name);
    this.#takeChanged();
  }

  #takeChanged(): void {
    for (const sliceName of this.packing.takeChanged()) this.#queue.add(sliceName);
  }

  #tunnelState(name: string): TunnelState {
    const reported = this.reported.get(name);
    if (reported !== undefined) return { state: 'present', tunnel: reported };
    return { state: this.held.has(name) ? 'held' : 'absent' };
  }

  #desired(sliceName: string, name: string, entry: Tunnel | undefined): DesiredEntry {
    const state = this.#tunnelState(name);
    const of = state.state === 'present' ? state.tunnel : entry;
    return { state, placement: of === undefined ? 'elsewhere' : this.#placement(sliceName, of) };
  }

  #placement(sliceName: string, of: Tunnel): Placement {
    const assigned = this.packing.sliceOf(of.name);
    if (assigned === undefined) return 'elsewhere';
    if (assigned === sliceName) return 'here';
    const slice = this.stored.get(assigned);
    const entry = slice?.entries.get(of.name);
    if (slice === undefined || entry === undefined || (slice.drift & Drift.terminating) !== 0)
      return 'elsewhere';
    const write = this.inFlight.get(assigned);
    const isLeaving = write !== undefined && removedBy(write.action).includes(of.name);
    return !isLeaving && sameIdentity(entry, of) ? 'covered' : 'elsewhere';
  }
}

/** Returns the names of the entries that a write removes. */
function removedBy(action: SliceAction): readonly string[] {
  if (action.type === 'patch') return action.removed;
  return action.type === 'delete' || action.type === 'expire' ? [...action.slice.entries.keys()] : [];
}

function byName(tunnels: readonly Tunnel[]): Map<string, Tunnel> {
  return new Map(tunnels.map((of) => [of.name, of]));
}
