import type { Report } from '../../../src/core/report.ts';
import { reporterKey, type ReporterId } from '../../../src/core/tunnel.ts';
import { REMOVAL_HOLD, type ReplicaProcess } from './replica-process.ts';

/** What one process has read from one reporter. */
interface ReportedTunnels {
  readonly present: Set<string>;
  /** Removed by name, or by a full push whose removals are immediate. */
  readonly absent: Set<string>;
  readonly heldUntilMs: Map<string, number>;
  isComplete: boolean;
}

/**
 * Computes which objects a process must not delete because their removal is held, from the reports that it has applied and
 * the objects that it has seen. It is written independently of the operator, and holds less where the order of events is
 * not known here: a full push before the first list, and objects that appeared for another reason than a report.
 */
export class HoldInvariant {
  readonly #byProcess = new WeakMap<ReplicaProcess, Map<string, ReportedTunnels>>();

  /** Records a report immediately before it is applied. */
  onReport(
    replica: ReplicaProcess,
    reporter: ReporterId,
    { fullPush, added, removedNames }: Report,
    nowMs: number,
  ): void {
    const { cache, slices, ledger } = replica.components;
    const key = reporterKey(reporter);
    // A process that serves the reporter no longer, and does not own it, forgets its holds.
    if (ledger.reporter(key) === undefined) this.#byProcess.get(replica)?.delete(key);
    const known = this.#reported(replica, key);
    for (const [name, untilMs] of known.heldUntilMs) {
      if (untilMs > nowMs) continue;
      known.heldUntilMs.delete(name);
      known.absent.add(name);
    }
    const addedNames = added.map(({ name }) => name);
    if (!fullPush) {
      for (const name of new Set([...addedNames, ...removedNames])) {
        const isRemoved = removedNames.includes(name);
        // With both, the tunnel may be up or down, and nothing can be required.
        known.heldUntilMs.delete(name);
        known.present.delete(name);
        if (isRemoved) known.absent.add(name);
        else {
          known.absent.delete(name);
          known.present.add(name);
        }
      }
      return;
    }
    for (const name of addedNames) known.heldUntilMs.delete(name);
    const objects = [...new Set([...cache.tunnelNames(key), ...slices.tunnelNames(key)])];
    const lacking = objects.filter(
      (name) =>
        !addedNames.includes(name) &&
        !known.absent.has(name) &&
        (known.present.has(name) || known.heldUntilMs.has(name) || !known.isComplete),
    );
    const { holdMs, thresholdPercent, maxImmediate } = REMOVAL_HOLD;
    const isHeld =
      cache.hasSynced &&
      slices.hasSynced &&
      lacking.length > maxImmediate &&
      lacking.length / objects.length > thresholdPercent / 100;
    for (const name of lacking) {
      if (isHeld && !known.heldUntilMs.has(name)) known.heldUntilMs.set(name, nowMs + holdMs);
      if (!known.heldUntilMs.has(name)) known.absent.add(name);
    }
    known.present.clear();
    for (const name of addedNames) {
      known.present.add(name);
      known.absent.delete(name);
    }
    known.isComplete = true;
  }

  /** Returns for how long a process must not delete the object of a tunnel, in ms; 0 if it may. */
  remainingMs(replica: ReplicaProcess, key: string, tunnelName: string, nowMs: number): number {
    // After `--expire-after`, the objects of a disconnected reporter are deleted in any case.
    if (replica.components.controllers.registry.phase(key) === 'expired') return 0;
    const untilMs = this.#byProcess.get(replica)?.get(key)?.heldUntilMs.get(tunnelName);
    return untilMs === undefined ? 0 : Math.max(0, untilMs - nowMs);
  }

  #reported(replica: ReplicaProcess, key: string): ReportedTunnels {
    const byReporter = this.#byProcess.get(replica) ?? new Map<string, ReportedTunnels>();
    this.#byProcess.set(replica, byReporter);
    const known = byReporter.get(key) ?? {
      present: new Set(),
      absent: new Set(),
      heldUntilMs: new Map(),
      isComplete: false,
    };
    byReporter.set(key, known);
    return known;
  }
}
