import { LRUCache } from 'lru-cache';
import type { Clock } from '../clock.ts';
import type { Ledger } from '../core/ledger.ts';
import type { TunnelAction } from '../core/plan.ts';
import type { ObservedTunnel } from '../core/tunnel-object.ts';
import {
  isApplied,
  transitionOf,
  type TransitionHint,
  type TunnelTransition,
} from '../core/tunnel-transition.ts';
import { parseReporterKey, type ReporterId } from '../core/tunnel.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { SliceAssignments } from './slice-assignments.ts';
import { sliceItemName } from './slice-item.ts';
import type { Workqueue } from './workqueue.ts';

/** Reporters whose transitions are numbered; the least recently used one starts from 1 again. */
const MAX_NUMBERED_REPORTERS = 10_000;

/**
 * Hints before the first list, for names that may have no object: a peer may remove any names. Beyond it, what a delta
 * removes is recorded as absent from the full push.
 */
const MAX_EARLY_HINTS = 100_000;

/** A transition that the API server has confirmed. */
export interface RecordedTransition extends TunnelTransition {
  /** When the response to the write was received, ms since 1970. */
  readonly wallMs: number;
  /** Counts the transitions of the reporter that this process has recorded, from 1. */
  readonly sequence: number;
  readonly reporter: ReporterId;
  /** Name of the ReverseTunnel object, or of the slice. */
  readonly objectName: string;
  /** How long `ended` was up, in ms; undefined if there is none, or if its `createdAt` is unknown or in the future. */
  readonly upMs: number | undefined;
}

/** Where transitions are written to. Must neither throw nor wait. */
export interface TransitionSink {
  write(transition: RecordedTransition): void;
}

/** A transition that a write is about to show. */
export interface PlannedTransition {
  readonly key: string;
  readonly name: string;
  readonly action: TunnelAction;
  readonly transition: TunnelTransition;
  /** What the transition was derived from. An event during the write gives another hint, for the next write. */
  readonly hint: TransitionHint | undefined;
}

export interface TransitionRecorderOptions {
  readonly sink: TransitionSink;
  readonly ledger: Ledger;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly assignments: SliceAssignments;
  readonly registry: ReporterRegistry;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  /** False until the policies have been evaluated for the first time. */
  readonly authorizer: { readonly hasReviewed: boolean };
  readonly clock: Clock;
}

interface ReporterTransitions {
  /** By tunnel name; only for tunnels whose objects must change. */
  readonly hints: Map<string, TransitionHint>;
  /** Transitions whose response was lost, by tunnel name. */
  readonly unconfirmed: Map<string, PlannedTransition>;
}

/**
 * Records the transitions of tunnels as the API server confirms them. Only the owner of a reporter writes its objects, so
 * each transition is recorded by one replica. A write whose response was lost is recorded once its effect was observed.
 *
 * Reconciliation is level-triggered and does not know why a tunnel is absent. The events that do are kept as hints until
 * the object is written; their number is bounded by that of the objects that must change.
 */
export class TransitionRecorder {
  readonly #options: TransitionRecorderOptions;
  readonly #reporters = new Map<string, ReporterTransitions>();
  /** The last number of each reporter, also of one that this replica does not own any longer. */
  readonly #sequences = new LRUCache<string, number>({ max: MAX_NUMBERED_REPORTERS });

  /** Hints that were given before the first list; 0 from then on. */
  #earlyHints = 0;

  constructor(options: TransitionRecorderOptions) {
    this.#options = options;
  }

  /** Records why the tunnels that a report changed may be absent. */
  reportApplied(
    key: string,
    report: { readonly fullPush: boolean; readonly removedNames: readonly string[] },
    changed: readonly string[],
  ): void {
    const { ledger, mirrored } = this.#options;
    const hints = this.#reporters.get(key)?.hints;
    if (hints !== undefined && hints.size > 0)
      for (const name of changed) if (hints.delete(name) && !mirrored.hasSynced) this.#earlyHints -= 1;
    if (report.fullPush) return;
    for (const name of report.removedNames) {
      if (ledger.tunnel(key, name) !== undefined) continue;
      if (mirrored.hasSynced ? this.#hasObject(key, name) : this.#takeEarlyHint(key, name))
        this.#hint(key, name, 'Removed');
    }
  }

  /** Records names of tunnels that the policies permit now and did not before, or the reverse. */
  grantChanged(key: string, changed: readonly string[]): void {
    const { ledger, authorizer } = this.#options;
    // Which of them were permitted before this process started is not known.
    if (!authorizer.hasReviewed) return;
    for (const name of changed) {
      const isPermitted = ledger.tunnelState(key, name).state === 'present';
      const hasObject = this.#hasObject(key, name);
      if (isPermitted && !hasObject) this.#hint(key, name, 'PolicyAllowed');
      else if (!isPermitted && hasObject) this.#hint(key, name, 'PolicyDenied');
      else this.#reporters.get(key)?.hints.delete(name);
    }
  }

  /** Handles an object that was found to be gone although its tunnel is up. */
  objectLost(key: string, name: string): void {
    if (this.#options.ledger.tunnelState(key, name).state === 'present') this.#hint(key, name, 'Recovered');
  }

  /** Handles a change of an object that a list or the watch showed. */
  onTunnelObjectChanged(key: string, name: string): void {
    const { ledger, mirrored, registry } = this.#options;
    const entry = registry.entry(key);
    // What is about to be written, at once or after a delay, differs because the tunnel has changed.
    if (entry === undefined || this.#isActive(key, name) || entry.pendingWrites.isLimited(name)) return;
    const hints = this.#reporters.get(key)?.hints;
    const [object] = mirrored.forms(key, name);
    const state = ledger.tunnelState(key, name, object?.tunnel);
    if (state.state !== 'present') {
      if (object === undefined) hints?.delete(name);
      return;
    }
    // What the first list shows was not changed since the report.
    if (!mirrored.hasSynced || !entry.ownership.owns) return;
    if (object === undefined) this.#hint(key, name, 'Recovered');
    else if (object.tunnel.createdAt === state.tunnel.createdAt) hints?.delete(name);
    else this.#hint(key, name, 'Edited');
  }

  /** Handles the entry of a tunnel in a slice that changed, for whatever reason. */
  onEntryObserved(key: string, before: ObservedTunnel | undefined, after: ObservedTunnel | undefined): void {
    const name = (after ?? before)?.tunnel.name;
    if (name !== undefined) this.onTunnelObjectChanged(key, name);
  }

  /** Handles a complete list: hints that were given before the objects were known may concern none. */
  onListed(): void {
    this.#earlyHints = 0;
    for (const [key, { hints }] of this.#reporters)
      for (const [name, hint] of hints)
        if (hint === 'Removed' && !this.#hasObject(key, name)) hints.delete(name);
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    if (!this.#options.mirrored.hasSynced) this.#earlyHints -= this.#reporters.get(key)?.hints.size ?? 0;
    this.#reporters.delete(key);
  }

  /** Returns the transition that a write is about to show; undefined if it shows none. Must be called before the write. */
  plan(key: string, name: string, action: TunnelAction): PlannedTransition | undefined {
    const { ledger, registry } = this.#options;
    const state = this.#reporters.get(key);
    const unconfirmed = state?.unconfirmed.get(name);
    if (unconfirmed !== undefined && unconfirmed.action.type !== action.type) this.#confirm(unconfirmed);
    const hint = state?.hints.get(name);
    const transition = transitionOf(action, {
      held: ledger.tunnel(key, name),
      isDesired: ledger.tunnelState(key, name).state === 'present',
      isComplete: ledger.isComplete(key),
      isHeld: ledger.isHeld(key, name),
      isOrphan: registry.entry(key)?.isOrphan ?? false,
      hint,
    });
    return transition === undefined ? undefined : { key, name, action, transition, hint };
  }

  /** Records that the API server has confirmed the write. */
  written(planned: PlannedTransition, objectName: string): void {
    const { key, name, action, transition, hint } = planned;
    const state = this.#reporters.get(key);
    state?.unconfirmed.delete(name);
    if (state?.hints.get(name) === hint) {
      state?.hints.delete(name);
      if (transition.reason === 'Replaced' && action.type === 'delete') this.#hint(key, name, 'Replaced');
    }
    this.#write(planned, objectName);
  }

  /** Records that the response to the write was lost. */
  outcomeUnknown(planned: PlannedTransition): void {
    this.#state(planned.key).unconfirmed.set(planned.name, planned);
  }

  /** Records that no object of the tunnel must change. */
  settled(key: string, name: string): void {
    const state = this.#reporters.get(key);
    if (state === undefined) return;
    const unconfirmed = state.unconfirmed.get(name);
    if (unconfirmed !== undefined) this.#confirm(unconfirmed);
    state.hints.delete(name);
  }

  /** Records that this replica may not write the objects of the tunnel. Their owner records what it writes. */
  skipped(key: string, name: string): void {
    this.#reporters.get(key)?.unconfirmed.delete(name);
  }

  #confirm(planned: PlannedTransition): void {
    const { key, name, action } = planned;
    this.#reporters.get(key)?.unconfirmed.delete(name);
    const objects = this.#options.mirrored.forms(key, name);
    if (!isApplied(action, objects)) return;
    this.#write(planned, action.type === 'create' ? (objects[0]?.name ?? '') : action.object.name);
  }

  #write({ key, transition }: PlannedTransition, objectName: string): void {
    const { sink, clock } = this.#options;
    const sequence = (this.#sequences.get(key) ?? 0) + 1;
    this.#sequences.set(key, sequence);
    const wallMs = clock.wallMs();
    sink.write({
      ...transition,
      wallMs,
      sequence,
      reporter: parseReporterKey(key),
      objectName,
      upMs: this.#upMs(key, transition, wallMs),
    });
  }

  #upMs(key: string, { ended, endedWithReporter }: TunnelTransition, wallMs: number): number | undefined {
    if (ended?.createdAt === undefined) return undefined;
    const { registry, clock } = this.#options;
    const disconnectedMs = registry.entry(key)?.disconnection?.sinceMs;
    const sinceEndMs =
      endedWithReporter && disconnectedMs !== undefined ? clock.monotonicMs() - disconnectedMs : 0;
    const upMs = wallMs - sinceEndMs - Date.parse(ended.createdAt);
    return upMs < 0 ? undefined : Math.round(upMs);
  }

  /** Returns false if there are too many hints for names that may have no object. */
  #takeEarlyHint(key: string, name: string): boolean {
    if (this.#reporters.get(key)?.hints.has(name) === true) return true;
    if (this.#earlyHints >= MAX_EARLY_HINTS) return false;
    this.#earlyHints += 1;
    return true;
  }

  /** Returns true if the object or the slice of a tunnel is about to be written. */
  #isActive(key: string, name: string): boolean {
    const { queue, assignments } = this.#options;
    const sliceName = assignments.known(key)?.sliceOf(name);
    const isInSlice = sliceName !== undefined && queue.isActive(key, sliceItemName(sliceName));
    return isInSlice || queue.isActive(key, name);
  }

  #hasObject(key: string, name: string): boolean {
    return this.#options.mirrored.forms(key, name).length > 0 || this.#isActive(key, name);
  }

  #hint(key: string, name: string, hint: TransitionHint): void {
    this.#state(key).hints.set(name, hint);
  }

  /** Returns the state of a reporter; one that is not stored if the reporter was removed during a write. */
  #state(key: string): ReporterTransitions {
    const known = this.#reporters.get(key);
    if (known !== undefined) return known;
    const state: ReporterTransitions = { hints: new Map(), unconfirmed: new Map() };
    if (this.#options.registry.entry(key) !== undefined) this.#reporters.set(key, state);
    return state;
  }
}
