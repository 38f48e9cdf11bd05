import type { Clock } from '../clock.ts';
import type { StartedHold } from '../core/apply-report.ts';
import type { Ledger } from '../core/ledger.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import { rfc3339 } from '../timestamps.ts';
import type { EventRecorder } from './event-recorder.ts';
import type { MirroredTunnels } from './mirrored-tunnels.ts';
import type { ReporterEnqueuer } from './reporter-enqueuer.ts';
import type { ReporterRegistry } from './reporter-registry.ts';
import type { TunnelEnqueuer } from './tunnel-enqueuer.ts';

/** Holds that end within this time of each other are ended together, so that many holds cause few timers. */
const TIMER_GRANULARITY_MS = 100;

export interface RemovalHoldsOptions {
  readonly ledger: Ledger;
  /** The tunnels in either form. */
  readonly mirrored: MirroredTunnels;
  readonly registry: ReporterRegistry;
  readonly reporters: ReporterEnqueuer;
  readonly tunnels: TunnelEnqueuer;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Ends the holds of removals. A full push that lacks many of a reporter's objects may be that of an Envoy that has just
 * restarted: the ledger keeps the objects (`core/removal-hold`), and this class removes those whose tunnels have not
 * returned in time. A hold changes what is desired and nothing else: the deletes that follow are subject to all rules on
 * deleting stale objects.
 */
export class RemovalHolds {
  readonly #options: RemovalHoldsOptions;
  /** Keys of reporters that may have held removals. */
  readonly #keys = new Set<string>();
  /** A peer may send such full pushes continuously. */
  readonly #throttled: LogThrottle;
  #cancelTimer: (() => void) | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #stopped = false;

  constructor(options: RemovalHoldsOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
  }

  /** Records a hold that the ledger has started. */
  start(key: string, { held, objects }: StartedHold): void {
    const { ledger, registry, reporters, events, clock, metrics, log } = this.#options;
    const removals = ledger.heldRemovals(key);
    const entry = registry.entry(key);
    if (removals === undefined || entry === undefined) return;
    const until = rfc3339(clock.wallMs() + removals.lastUntilMs - clock.monotonicMs());
    this.#keys.add(key);
    this.#setTimer(removals.nextUntilMs);
    entry.removalsHeldUntil = until;
    entry.status.markDirty();
    metrics.removalHolds.inc();
    this.#throttled(key, (suppressed) =>
      log.warn(
        { reporter: entry.reporter, held, objects, until, ...suppressed },
        'full push lacks many ReverseTunnel objects; their removal is held',
      ),
    );
    if (!entry.ownership.isSuperseded) {
      const note = `The last full push lacks ${held} of ${objects} ReverseTunnel objects; they are kept until ${until}`;
      events.record(entry.reporter, 'removalsHeld', note);
    }
    reporters.enqueue(entry);
  }

  /** Compares the full pushes that arrived before the objects were listed. */
  onListed(): void {
    const { ledger, mirrored, registry, clock } = this.#options;
    for (const { key } of registry.entries()) {
      const hold = ledger.holdUncompared(key, mirrored.priorState(key), clock.monotonicMs());
      if (hold !== undefined) this.start(key, hold);
    }
  }

  /** Ends the timer: held removals stay held. */
  stop(): void {
    this.#stopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  #setTimer(atMs: number | undefined): void {
    if (this.#stopped || atMs === undefined || atMs >= this.#timerAtMs) return;
    const { clock } = this.#options;
    this.#cancelTimer?.();
    this.#timerAtMs = atMs;
    this.#cancelTimer = clock.setTimer(Math.max(TIMER_GRANULARITY_MS, atMs - clock.monotonicMs()), () => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#cancelTimer = undefined;
      this.#releaseEnded();
    });
  }

  #releaseEnded(): void {
    const { ledger, registry, reporters, tunnels, clock, log } = this.#options;
    const nowMs = clock.monotonicMs();
    for (const key of this.#keys) {
      const released = ledger.releaseHeld(key, nowMs);
      const remaining = ledger.heldRemovals(key);
      if (remaining === undefined) this.#keys.delete(key);
      else this.#setTimer(remaining.nextUntilMs);
      const entry = registry.entry(key);
      if (entry === undefined) continue;
      if (released.length > 0) {
        log.info({ reporter: entry.reporter, removed: released.length }, 'hold of removals has ended');
        tunnels.enqueueReleased(key, released);
      }
      if (released.length === 0 && remaining !== undefined) continue;
      entry.status.markDirty();
      reporters.enqueue(entry);
    }
  }
}
