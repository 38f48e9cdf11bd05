import type { TunnelAction } from '../core/plan.ts';
import type { SliceAction } from '../core/slice-plan.ts';
import { entryChanges } from '../core/slice-transition.ts';
import { Drift } from '../core/tunnel-object.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { PlannedTransition, TransitionRecorder } from './transition-recorder.ts';

/** A change of one tunnel by a write of a slice. */
interface PlannedEntry {
  readonly name: string;
  readonly transition: PlannedTransition | undefined;
  /** The write that follows if the tunnel is replaced. */
  readonly next: TunnelAction | undefined;
}

/** The transitions that a write of a slice shows. */
export interface SliceTransitions {
  /** The API server has confirmed the write. */
  written(): void;
  /** The response to the write was lost. */
  outcomeUnknown(): void;
}

const NO_TRANSITIONS: SliceTransitions = { written() {}, outcomeUnknown() {} };

/** Records the transitions of tunnels in slices, like those of objects. */
export class SliceTransitionRecorder {
  readonly #recorder: TransitionRecorder | undefined;
  readonly #mirrored: MirroredTunnels;
  /** Tunnels in writes whose response was lost, by reporter key, then by slice. */
  readonly #lost = new Map<string, Map<string, string[]>>();

  /** @param recorder undefined: transitions are not recorded */
  constructor(recorder: TransitionRecorder | undefined, mirrored: MirroredTunnels) {
    this.#recorder = recorder;
    this.#mirrored = mirrored;
  }

  /** Returns the transitions that a write is about to show. Must be called before the write. */
  plan(key: string, sliceName: string, action: SliceAction): SliceTransitions {
    const recorder = this.#recorder;
    if (recorder === undefined) return NO_TRANSITIONS;
    const planned = entryChanges(action).flatMap(({ name, actions: [first, next] }) =>
      first === undefined || this.#isShownElsewhere(key, name, first)
        ? []
        : [{ name, transition: recorder.plan(key, name, first), next }],
    );
    return {
      written: () => this.#written(recorder, key, sliceName, planned),
      outcomeUnknown: () => {
        for (const { transition } of planned)
          if (transition !== undefined) recorder.outcomeUnknown(transition);
        const ofReporter = this.#lost.get(key) ?? new Map<string, string[]>();
        this.#lost.set(key, ofReporter);
        ofReporter.set(
          sliceName,
          planned.map(({ name }) => name),
        );
      },
    };
  }

  /** Records that no entry of a slice must change. */
  settled(key: string, sliceName: string, tunnelNames: Iterable<string>): void {
    const recorder = this.#recorder;
    if (recorder === undefined) return;
    const ofReporter = this.#lost.get(key);
    for (const name of [...tunnelNames, ...(ofReporter?.get(sliceName) ?? [])]) recorder.settled(key, name);
    if (ofReporter?.delete(sliceName) === true && ofReporter.size === 0) this.#lost.delete(key);
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    this.#lost.delete(key);
  }

  #written(
    recorder: TransitionRecorder,
    key: string,
    sliceName: string,
    planned: readonly PlannedEntry[],
  ): void {
    for (const { name, transition, next } of planned) {
      if (transition !== undefined) recorder.written(transition, sliceName);
      // Its reason follows from the first one.
      const following = next === undefined ? undefined : recorder.plan(key, name, next);
      if (following !== undefined) recorder.written(following, sliceName);
    }
  }

  /** Returns true if a tunnel only moves: from an object to a slice, or from one slice to another. */
  #isShownElsewhere(key: string, name: string, action: TunnelAction): boolean {
    if (action.type !== 'create') return false;
    return this.#mirrored.forms(key, name).some(({ drift }) => (drift & Drift.terminating) === 0);
  }
}
