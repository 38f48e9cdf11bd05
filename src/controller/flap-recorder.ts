import type { Clock } from '../clock.ts';
import type { FlappingTunnels } from '../core/flapping-tunnels.ts';
import { flappingMessage } from '../core/reporter-status.ts';
import type { Log } from '../log.ts';
import type { EventRecorder } from './event-recorder.ts';
import type { ReporterRegistry } from './reporter-registry.ts';

export interface FlapRecorderOptions {
  readonly flapping: FlappingTunnels;
  readonly registry: ReporterRegistry;
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly log: Log;
}

/** Records the tunnels that go down, and announces when tunnels of a reporter start to flap. */
export class FlapRecorder {
  readonly #options: FlapRecorderOptions;

  constructor(options: FlapRecorderOptions) {
    this.#options = options;
  }

  /** @param drops how often each tunnel has gone down */
  record(key: string, drops: ReadonlyMap<string, number>): void {
    const { flapping, registry, events, clock, log } = this.#options;
    const nowMs = clock.monotonicMs();
    if (!flapping.record(key, drops, nowMs)) return;
    const entry = registry.entry(key);
    const summary = flapping.summary(key, nowMs);
    if (entry === undefined || summary === undefined) return;
    entry.status.markDirty();
    log.warn({ reporter: entry.reporter, ...summary }, 'tunnels flap; their writes are limited');
    if (!entry.ownership.isSuperseded) events.record(entry.reporter, 'flapping', flappingMessage(summary));
  }

  /** Handles the removal of a reporter from this replica. */
  onReporterRemoved(key: string): void {
    this.#options.flapping.forget(key);
  }
}
