import type { Clock } from '../clock.ts';
import { rewrittenMessage } from '../core/reporter-status.ts';
import { rewrittenPart, type RewrittenField } from '../core/rewrite.ts';
import type { ReporterId } from '../core/tunnel.ts';
import { createLogThrottle, type LogThrottle } from '../log-throttle.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { EventRecorder } from './event-recorder.ts';
import type { ReporterEntry } from './reporter-entry.ts';
import { rewrittenSummary } from './status-inputs.ts';

/** The kind of each resource. */
const KINDS = {
  reversetunnels: 'ReverseTunnel',
  reversetunnelreporters: 'ReverseTunnelReporter',
} as const;

/** A write that was stored with another value. */
export interface RecordedWrite extends RewrittenField {
  readonly reporter: ReporterId;
  /** The name of the object. */
  readonly object: string;
  readonly verb: string;
  /** When the write is repeated, such as `in 5m`. */
  readonly retry?: string;
}

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

  /** Counts and logs a rewritten write. */
  record(resource: keyof typeof KINDS, write: RecordedWrite): void {
    const { metrics, log } = this.#options;
    const { reporter, object, verb, field, desired, stored, retry } = write;
    metrics.writesRewritten.inc({ resource, part: rewrittenPart(field) });
    this.#throttled(resource, (suppressed) =>
      log.warn(
        {
          reporter,
          object,
          verb,
          field,
          desired,
          stored,
          ...(retry === undefined ? {} : { retry }),
          hint: `a mutating admission webhook or policy matches ${resource}; doctor names them`,
          ...suppressed,
        },
        `admission rewrote a ${KINDS[resource]}`,
      ),
    );
  }

  /** Records an Event that describes what is rewritten of a reporter. */
  announce(entry: ReporterEntry): void {
    const summary = rewrittenSummary(entry);
    if (summary !== undefined)
      this.#options.events.record(entry.reporter, 'rewritten', rewrittenMessage(summary));
  }
}
