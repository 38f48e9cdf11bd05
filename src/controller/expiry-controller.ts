import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { runPeriodically } from '../run-periodically.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { ReporterEnqueuer } from './reporter-enqueuer.ts';
import type { Disconnection, ReporterEntry } from './reporter-entry.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { ControllerSettings } from './settings.ts';
import type { TunnelEnqueuer } from './tunnel-enqueuer.ts';
import type { Workqueue } from './workqueue.ts';
import type { WriteFence } from './write-fence.ts';

const TICK_INTERVAL_MS = 1000;
/** Tunnels queued per tick, over all reporters: a third of the writes that a small API server can process. */
const OBJECTS_PER_TICK = 200;
/** Smallest batch of one reporter: each batch of expiry deletes costs a live read. */
const MIN_BATCH = 20;

export interface ExpiryControllerOptions {
  readonly registry: ReporterRegistry;
  readonly reporters: ReporterEnqueuer;
  readonly tunnels: TunnelEnqueuer;
  /** The queue of tunnels and slices. */
  readonly queue: Workqueue;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly fence: WriteFence;
  readonly settings: ControllerSettings;
  readonly clock: Clock;
  readonly log: Log;
}

interface ExpiryCandidate {
  readonly entry: ReporterEntry;
  readonly disconnection: Disconnection;
  readonly position: number;
}

/**
 * Queues the tunnels of reporters that are owned by this replica and have no stream, in each phase after the grace
 * phase, and finally the reporter. It limits the rate and writes nothing: `nextDisconnectedAction` of `core/plan` decides
 * whether an object is set to Unknown or deleted, and `TunnelReconciler` writes it. One batch per second leaves the API
 * server capacity for connected reporters even if thousands of tunnels are lost. Each batch of deletes follows a live
 * read (`Ownership.canExpire`).
 */
export class ExpiryController {
  readonly #options: ExpiryControllerOptions;
  /** Positions in line: new reporters, and reporters that got a batch, go to the end. */
  readonly #positions = new WeakMap<Disconnection, number>();
  #lastPosition = 0;
  #stopTicking: (() => void) | undefined;

  constructor(options: ExpiryControllerOptions) {
    this.#options = options;
  }

  start(): void {
    const { clock, log } = this.#options;
    this.#stopTicking = runPeriodically(clock, log, {
      name: 'queue the tunnels of disconnected reporters',
      intervalMs: TICK_INTERVAL_MS,
      run: () => this.#tick(),
    });
  }

  stop(): void {
    this.#stopTicking?.();
  }

  #tick(): void {
    const { registry, fence, settings, clock } = this.#options;
    const nowMs = clock.monotonicMs();
    const canWrite = fence.canWrite();
    const candidates: ExpiryCandidate[] = [];
    for (const entry of registry.entries()) {
      const { disconnection } = entry;
      if (disconnection === undefined) continue;
      disconnection.tick(nowMs, canWrite, settings.unknownAfterMs);
      if (disconnection.phase !== 'grace' && canWrite && entry.ownership.owns)
        candidates.push({ entry, disconnection, position: this.#positionOf(disconnection) });
    }
    candidates.sort((a, b) => a.position - b.position);
    this.#distribute(candidates);
  }

  /** Divides the objects of one tick equally, and what a reporter does not need among the others. */
  #distribute(all: readonly ExpiryCandidate[]): void {
    let budget = OBJECTS_PER_TICK;
    let candidates = all;
    do {
      const share = Math.max(MIN_BATCH, Math.floor(budget / candidates.length));
      const unfinished: ExpiryCandidate[] = [];
      for (const candidate of candidates) {
        const limit = Math.min(share, budget);
        const queued = this.#expireBatch(candidate.entry, candidate.disconnection, limit);
        budget -= queued;
        if (queued > 0) this.#positions.set(candidate.disconnection, (this.#lastPosition += 1));
        if (queued === limit) unfinished.push(candidate);
      }
      candidates = unfinished;
    } while (budget > 0 && candidates.length > 0);
  }

  #positionOf(disconnection: Disconnection): number {
    const position = this.#positions.get(disconnection) ?? (this.#lastPosition += 1);
    this.#positions.set(disconnection, position);
    return position;
  }

  /** Queues up to `limit` tunnels of a reporter. Returns their number. */
  #expireBatch(entry: ReporterEntry, disconnection: Disconnection, limit: number): number {
    const { reporters, tunnels, queue, mirrored } = this.#options;
    const { key } = entry;
    let queued = 0;
    while (queued < limit) {
      const name = disconnection.nextName(tunnels.itemNames(key));
      if (name === undefined) break;
      if (tunnels.enqueue(key, name)) queued += 1;
    }
    if (!disconnection.isScanComplete || queue.pending(key) > 0 || disconnection.phase !== 'expired')
      return queued;
    // Remaining objects were rejected, or appeared late. Without any, the reconciler deletes the reporter object.
    if (mirrored.hasObjects(key)) disconnection.restartScan();
    else reporters.enqueue(entry);
    return queued;
  }
}
