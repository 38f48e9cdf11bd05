import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';

/** Why a connection is refused or cut, and how that is said to people. The keys are the metric's only labels. */
const WORDS = {
  connections: 'as many connections are open as may be',
  address_connections: 'this address has as many connections open as it may have',
  http1: 'it speaks HTTP/1, this port speaks gRPC (HTTP/2)',
  tls: 'it speaks TLS, this port is plaintext',
  not_http2: 'it does not speak HTTP/2',
  silent: 'it did not begin to speak HTTP/2 in time',
  header_block: 'it sends headers that are too long',
  tiny_frames: 'it sends a report in too many, too small frames',
  control_frames: 'it sends too many frames that carry no report',
  new_streams: 'it opens too many streams',
  held_bytes: 'it makes the operator hold too many bytes of reports',
  held_streams: 'it holds too many streams open',
} as const;

export type RefusalReason = keyof typeof WORDS;

/** Counts a connection that was refused or cut, and logs it. */
export type Refuse = (reason: RefusalReason, address: string) => void;

/** A flood must not fill the log: of each reason one line a minute, which says how many there were. */
const LOG_INTERVAL_MS = 60_000;

export function createRefusals(parts: {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}): Refuse {
  const { clock, log, metrics } = parts;
  const logged = new Map<RefusalReason, { atMs: number; unsaid: number }>();
  return (reason, address) => {
    metrics.connectionsRefused.inc({ reason });
    const nowMs = clock.monotonicMs();
    const last = logged.get(reason);
    if (last !== undefined && nowMs - last.atMs < LOG_INTERVAL_MS) {
      last.unsaid += 1;
      return;
    }
    const unsaid = last?.unsaid ?? 0;
    logged.set(reason, { atMs: nowMs, unsaid: 0 });
    const more = unsaid === 0 ? {} : { moreSinceLastLine: unsaid };
    log.warn({ address, reason, ...more }, `connection refused: ${WORDS[reason]}`);
  };
}

/** As the log says it, for the peer's log. */
export function refusalWords(reason: RefusalReason): string {
  return WORDS[reason];
}
