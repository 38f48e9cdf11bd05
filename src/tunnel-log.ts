import type { Clock } from './clock.ts';
import type { RecordedTransition, TransitionSink } from './controller/transition-recorder.ts';
import { delayMs, newBucket, take, type Rate } from './core/token-bucket.ts';
import { errorMessage } from './error-message.ts';
import { LineWriter } from './line-writer.ts';
import { createLogThrottle } from './log-throttle.ts';
import type { Log } from './log.ts';
import type { Metrics } from './metrics.ts';

/** More than an API server executes for one client; a further limit is that of the buffer. */
const LINE_RATE: Rate = { burst: 20_000, perSecond: 5000 };
/** Dropped lines are reported at most this often. */
const DROPPED_INTERVAL_MS = 1000;

export interface TunnelLogOptions {
  /** `--tunnel-log`: a path, or `stdout`. */
  readonly target: string;
  /** Namespace of the objects. */
  readonly namespace: string;
  /** This process: the replica ID with a random suffix per start. */
  readonly replica: string;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** The log of transitions: one JSON line each. docs/tunnel-log.md is its specification. */
export interface TunnelLog extends TransitionSink {
  /** Writes what is buffered and closes the file. The caller must limit the time. */
  close(): Promise<void>;
}

/** The target of the tunnel log cannot be written; the message is one line that names it and the reason. */
export class TunnelLogError extends Error {
  override readonly name = 'TunnelLogError';
}

/**
 * Opens the tunnel log. Lines above 5,000 per second, after a burst of 20,000, and lines that do not fit into the buffer
 * are dropped, counted in a metric, and reported by a line with their number.
 *
 * @throws TunnelLogError if the target cannot be opened and that will not change by itself
 */
export async function openTunnelLog(options: TunnelLogOptions): Promise<TunnelLog> {
  const { target, clock, metrics, log } = options;
  const throttled = createLogThrottle(clock);
  const bucket = newBucket();
  let dropped = 0;
  let closed = false;
  let cancelReport: (() => void) | undefined;
  let writer: LineWriter;
  try {
    writer = await LineWriter.open({
      target,
      clock,
      onWritten: (lines) => metrics.tunnelLogLines.inc({ outcome: 'written' }, lines),
      onFailure: (error) =>
        throttled('failed', (suppressed) =>
          log.warn(
            { target, error: errorMessage(error), ...suppressed },
            'failed to write the tunnel log; retrying, and keeping up to 8 MiB of lines',
          ),
        ),
      onRecovery: () => log.info({ target }, 'writing the tunnel log again'),
    });
  } catch (error) {
    throw new TunnelLogError(`cannot open ${target}: ${errorMessage(error)}`, { cause: error });
  }

  /** Writes the number of dropped lines, now or after a second. */
  function reportDropped(): void {
    cancelReport?.();
    cancelReport = undefined;
    if (dropped === 0) return;
    if (writer.write(droppedLine(options, clock.wallMs(), dropped))) dropped = 0;
    else if (!closed) cancelReport = clock.setTimer(DROPPED_INTERVAL_MS, reportDropped);
  }

  function drop(outcome: 'rate_limited' | 'buffer_full'): void {
    dropped += 1;
    metrics.tunnelLogLines.inc({ outcome });
    // Nothing can be written once the log is closed, and a timer would keep the process alive.
    if (!closed) cancelReport ??= clock.setTimer(DROPPED_INTERVAL_MS, reportDropped);
  }

  return {
    write(transition) {
      const nowMs = clock.monotonicMs();
      if (delayMs(bucket, LINE_RATE, nowMs) > 0) {
        drop('rate_limited');
        return;
      }
      take(bucket, LINE_RATE, nowMs);
      if (!writer.write(transitionLine(options, transition))) drop('buffer_full');
    },
    async close() {
      closed = true;
      reportDropped();
      const lost = await writer.close();
      if (lost > 0) log.warn({ target, lines: lost }, 'lost the last lines of the tunnel log');
    },
  };
}

/** Returns the line of a transition. JSON escapes every character that could end it. */
export function transitionLine(
  { namespace, replica }: Pick<TunnelLogOptions, 'namespace' | 'replica'>,
  transition: RecordedTransition,
): string {
  const { wallMs, sequence, reporter, reason, state, tunnel, upMs, objectName } = transition;
  const line = {
    log: 'tunnel',
    time: new Date(wallMs).toISOString(),
    reason,
    state,
    tunnel: tunnel.name,
    tenant: tunnel.tenantID,
    cluster: tunnel.clusterID,
    node: tunnel.nodeID,
    reporter: { cluster: reporter.cluster, id: reporter.id },
    createdAt: tunnel.createdAt,
    upSeconds: upMs === undefined ? undefined : upMs / 1000,
    seq: sequence,
    replica,
    namespace,
    object: objectName,
  };
  return `${JSON.stringify(line)}\n`;
}

function droppedLine(
  { namespace, replica }: Pick<TunnelLogOptions, 'namespace' | 'replica'>,
  wallMs: number,
  dropped: number,
): string {
  const line = { log: 'tunnel', time: new Date(wallMs).toISOString(), dropped, replica, namespace };
  return `${JSON.stringify(line)}\n`;
}
