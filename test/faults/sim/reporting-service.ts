import { ANONYMOUS } from '../../../src/core/peer.ts';
import { reporterKey } from '../../../src/core/tunnel.ts';
import { decodeNode } from '../../../src/grpc/decode-node.ts';
import type { ReportSink } from '../../../src/grpc/session-dependencies.ts';
import { Session, type SessionOptions } from '../../../src/grpc/session.ts';
import type { SimStream } from './report-stream.ts';

const ABORTED = 10;
const UNAVAILABLE = 14;

/** The reporting service of a process. */
export interface ReportingService {
  accept(stream: SimStream): void;
  /** Ends all streams, as at shutdown. */
  close(): void;
  /** Number of open streams. */
  readonly openStreams: number;
}

/**
 * Creates the sessions of a process: those of `src/grpc/session.ts`, of which only the newest of each reporter
 * stays open, as in `src/grpc/stream-registry.ts`, which needs sockets.
 */
export function createReportingService(
  options: Omit<
    SessionOptions,
    'decodeNode' | 'onIdentified' | 'onClosed' | 'onLargeReport' | 'yieldTurn' | 'sink'
  > & {
    readonly sink: ReportSink;
  },
): ReportingService {
  const open = new Set<Session>();
  const byReporter = new Map<string, Session>();
  let lastNumber = 0;
  let closed = false;

  function supersede(older: Session): void {
    older.close('superseded', ABORTED, 'superseded by a newer stream of the same reporter');
  }

  function onIdentified(session: Session): void {
    const { reporter } = session;
    if (reporter === undefined) return;
    const key = reporterKey(reporter);
    const current = byReporter.get(key);
    if (current !== undefined && current.number > session.number) {
      supersede(session);
      return;
    }
    options.sink.reporterConnected(reporter, session.envoy, session.peer, false);
    byReporter.set(key, session);
    if (current !== undefined) supersede(current);
  }

  return {
    accept(stream) {
      lastNumber += 1;
      const session = new Session(stream.call.asCall, lastNumber, ANONYMOUS, {
        ...options,
        decodeNode,
        onIdentified,
        onClosed: (ended, reason) => {
          open.delete(ended);
          const { reporter } = ended;
          if (reporter === undefined) return;
          const key = reporterKey(reporter);
          if (byReporter.get(key) !== ended) return;
          byReporter.delete(key);
          options.sink.reporterDisconnected(
            reporter,
            reason === 'shutdown'
              ? reason
              : reason === 'heartbeat_timeout'
                ? 'HeartbeatTimeout'
                : 'StreamEnded',
          );
        },
        onLargeReport: () => undefined,
        yieldTurn: () => Promise.resolve(),
      });
      open.add(session);
      if (closed) session.close('shutdown', UNAVAILABLE, 'shutting down');
    },
    close() {
      closed = true;
      for (const session of open) session.close('shutdown', UNAVAILABLE, 'the operator is shutting down');
    },
    get openStreams() {
      return open.size;
    },
  };
}
