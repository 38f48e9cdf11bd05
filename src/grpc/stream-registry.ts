import { status } from '@grpc/grpc-js';
import type { Clock } from '../clock.ts';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics.ts';
import type { CloseReason, Session } from './session.ts';
import type { LocalDisconnectReason, ReportSink } from './session-dependencies.ts';

/**
 * How long a reporter whose stream ended because of its age may take to reconnect before it is reported as
 * disconnected. Envoy reconnects after 5 s; a status write, two events and a claim per stream and hour would carry no
 * information.
 */
const RECONNECT_GRACE_MS = 10_000;

/** What the registry reports to. */
export interface StreamRegistryOptions {
  readonly sink: Pick<ReportSink, 'reporterConnected' | 'reporterDisconnected'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
}

/**
 * The identified streams by reporter. Only the newest stream of a reporter is served, so a reporter that reconnects
 * does not have to wait until its old connection is found dead.
 */
export class StreamRegistry {
  readonly #options: StreamRegistryOptions;
  readonly #byReporter = new Map<string, Session>();
  /** Reporters that are expected to reconnect, with the function that cancels their grace period. */
  readonly #reconnecting = new Map<string, () => void>();

  constructor(options: StreamRegistryOptions) {
    this.#options = options;
  }

  /** The number of reporters with an identified stream. */
  get size(): number {
    return this.#byReporter.size;
  }

  /** The stream of each reporter. */
  sessions(): Iterable<Session> {
    return this.#byReporter.values();
  }

  /** Registers a session whose reporter has just been identified, and closes the older one of two. */
  onIdentified(session: Session): void {
    const { reporter } = session;
    if (reporter === undefined) return;
    const { log, metrics, sink } = this.#options;
    const key = reporterKey(reporter);
    this.#reconnecting.get(key)?.();
    const isReconnect = this.#reconnecting.delete(key);
    const existing = this.#byReporter.get(key);
    if (existing === undefined) {
      log.info({ reporter }, 'reporter connected');
      sink.reporterConnected(reporter, session.envoy, session.peer, isReconnect);
      this.#byReporter.set(key, session);
    } else if (existing.number < session.number) {
      sink.reporterConnected(reporter, session.envoy, session.peer, isReconnect);
      this.#byReporter.set(key, session);
      this.#supersede(existing, reporter);
    } else {
      // In the order in which they were opened: the first report of an older stream may be large and arrive late.
      this.#supersede(session, reporter);
    }
    metrics.reportersConnected.set(this.#byReporter.size);
  }

  /** Unregisters a closed session and reports its reporter as disconnected, unless a newer stream has taken over. */
  onClosed(session: Session, reason: CloseReason): void {
    const { reporter } = session;
    if (reporter === undefined) return;
    const key = reporterKey(reporter);
    if (this.#byReporter.get(key) !== session) return;
    this.#byReporter.delete(key);
    const { clock, log, metrics, sink } = this.#options;
    metrics.reportersConnected.set(this.#byReporter.size);
    if (reason === 'max_age' || reason === 'credential_expired') {
      const cancelGracePeriod = clock.setTimer(RECONNECT_GRACE_MS, () => {
        this.#reconnecting.delete(key);
        log.info({ reporter }, 'reporter disconnected; it did not reconnect in time');
        sink.reporterDisconnected(reporter, 'StreamEnded');
      });
      this.#reconnecting.set(key, cancelGracePeriod);
      return;
    }
    log.info({ reporter }, 'reporter disconnected');
    sink.reporterDisconnected(reporter, disconnectReason(reason));
  }

  /** Cancels all grace periods. */
  stop(): void {
    for (const cancelGracePeriod of this.#reconnecting.values()) cancelGracePeriod();
    this.#reconnecting.clear();
  }

  #supersede(older: Session, reporter: ReporterId): void {
    this.#options.log.info({ reporter }, 'newer stream of this reporter supersedes the older one');
    older.close('superseded', status.ABORTED, 'superseded by a newer stream of the same reporter');
  }
}

function disconnectReason(reason: CloseReason): LocalDisconnectReason {
  if (reason === 'shutdown') return reason;
  if (reason === 'policy') return 'PolicyDenied';
  return reason === 'heartbeat_timeout' ? 'HeartbeatTimeout' : 'StreamEnded';
}
