import type { Clock } from '../clock.ts';
import { rewrittenMessage } from '../core/reporter-status.ts';
import { rewrittenPart, type RewrittenField } from '../core/rewrite.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { EventRecorder } from './event-recorder.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import { rewrittenSummary } from './status-inputs.ts';

/** What is logged about a write of each resource. */
const RESOURCES = {
  reversetunnels: {
    message: 'admission rewrote a ReverseTunnel',
    hint: 'a mutating admission webhook or policy matches reversetunnels; doctor names them',
  },
  reversetunnelslices: {
    message: 'admission rewrote a ReverseTunnelSlice',
    hint: 'a mutating admission webhook or policy matches reversetunnelslices; doctor names them',
  },
  reversetunnelreporters: {
    message: 'admission rewrote a ReverseTunnelReporter',
    hint: 'a mutating admission webhook or policy matches reversetunnelreporters; doctor names them',
  },
  reversetunnelexpectations: {
    message: 'the status of a ReverseTunnelExpectation was stored with another value',
    hint: 'a mutating admission webhook or policy matches reversetunnelexpectations/status (doctor names them), or the CRD is older than the operator',
  },
} as const;

export interface RewriteRecorderOptions {
  readonly events: EventRecorder;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/**
 * Counts, logs and announces writes that admission rewrote. A webhook rewrites thousands of objects; one line per
 * resource and minute stands for all of them.
 */
export class RewriteRecorder {
  readonly #options: RewriteRecorderOptions;
  readonly #throttled: LogThrottle;

  constructor(options: RewriteRecorderOptions) {
    this.#options = options;
    this.#throttled = createLogThrottle(options.clock);
  }

  /**
   * Counts and logs a rewritten write.
   *
   * @param context fields for the log that name the object, the verb, and when the write is repeated
   */
  record(
    resource: keyof typeof RESOURCES,
    { field, desired, stored }: RewrittenField,
    context: object,
  ): void {
    const { metrics, log } = this.#options;
    const { message, hint } = RESOURCES[resource];
    metrics.writesRewritten.inc({ resource, part: rewrittenPart(field) });
    this.#throttled(resource, (suppressed) =>
      log.warn({ ...context, field, desired, stored, hint, ...suppressed }, message),
    );
  }

  /** Records an Event that describes what is rewritten of a reporter. */
  announce(entry: ReporterEntry): void {
    const summary = rewrittenSummary(entry);
    if (summary !== undefined)
      this.#options.events.record(entry.reporter, 'rewritten', rewrittenMessage(summary));
  }
}
