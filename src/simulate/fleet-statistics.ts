import { createHistogram } from 'node:perf_hooks';
import type { ClientEvent, DisconnectReason } from './envoy-client.ts';
import type { ReporterId } from '../core/tunnel.ts';

/** What a fleet has done since it was made. */
export interface FleetStatistics {
  /** Reporters whose present stream has been ACKed. */
  readonly connected: number;
  /** Streams begun, also those that never connected. */
  readonly attempts: number;
  /** Streams that were ACKed at least once. */
  readonly connects: number;
  /** Reporters that had such a stream; `connects` beyond it are reconnects. */
  readonly everConnected: number;
  readonly disconnects: Readonly<Record<DisconnectReason, number>>;
  /** The latest disconnect, for people. */
  readonly lastDisconnect: LastDisconnect | undefined;
  /** Sent, ACKed or not. A full push is one, however little it holds; a heartbeat changes nothing. */
  readonly reports: { readonly full: number; readonly delta: number; readonly heartbeat: number };
  /** Entries in the two lists of all reports: a full push counts everything again. */
  readonly tunnelsAdded: number;
  readonly tunnelsRemoved: number;
  /** Answers that were valid ACKs; a cumulative one counts once. */
  readonly acks: number;
  /** Answers with a nonce that was not waited for: a fault of the server. */
  readonly outOfOrderAcks: number;
  /** Answers that refused a report; each has ended its stream. */
  readonly nacks: number;
  /** Updates lost because a client's buffer was full. */
  readonly droppedUpdates: number;
  /** From send to ACK for each report ACKed, in ms with three digits; 0 when there was none. */
  readonly ackMs: { readonly p50: number; readonly p99: number; readonly max: number };
}

interface LastDisconnect {
  readonly reporter: ReporterId;
  readonly reason: DisconnectReason;
  /** The server's words, or the network's; empty when this side ended the stream. */
  readonly message: string;
}

export interface FleetStatisticsCollector {
  /** Takes one event of one reporter's client. */
  count(reporter: ReporterId, event: ClientEvent): void;
  /** The figures as they are now, in an object that does not change. */
  snapshot(): FleetStatistics;
}

/** An hour in microseconds: the longest ACK latency told apart. */
const MAX_LATENCY_MICROS = 3_600_000_000;

/** Everything at 0. Takes constant memory, however many reports are counted. */
export function createFleetStatistics(): FleetStatisticsCollector {
  const ackMicros = createHistogram({ lowest: 1, highest: MAX_LATENCY_MICROS, figures: 3 });
  const disconnects: Record<DisconnectReason, number> = {
    buffer_overflow: 0,
    max_retries_exceeded: 0,
    nack_received: 0,
    remote_close: 0,
    stream_creation_failed: 0,
  };
  const everConnected = new Set<ReporterId>();
  const reports = { full: 0, delta: 0, heartbeat: 0 };
  const total = {
    connected: 0,
    attempts: 0,
    connects: 0,
    tunnelsAdded: 0,
    tunnelsRemoved: 0,
    acks: 0,
    outOfOrderAcks: 0,
    droppedUpdates: 0,
  };
  let lastDisconnect: LastDisconnect | undefined;

  return {
    count(reporter, event) {
      switch (event.type) {
        case 'connecting':
          total.attempts += 1;
          break;
        case 'sent': {
          const { fullPush, added, removedNames } = event.report;
          const changes = added.length + removedNames.length;
          reports[fullPush ? 'full' : changes > 0 ? 'delta' : 'heartbeat'] += 1;
          total.tunnelsAdded += added.length;
          total.tunnelsRemoved += removedNames.length;
          break;
        }
        case 'acked':
          total.acks += 1;
          if (event.first) {
            total.connects += 1;
            total.connected += 1;
            everConnected.add(reporter);
          }
          // The histogram refuses 0 and what is beyond its end.
          for (const ms of event.latenciesMs) {
            ackMicros.record(Math.min(MAX_LATENCY_MICROS, Math.max(1, Math.round(ms * 1000))));
          }
          break;
        case 'outOfOrderAck':
          total.outOfOrderAcks += 1;
          break;
        case 'overflowed':
          total.droppedUpdates += event.droppedUpdates;
          break;
        case 'disconnected':
          disconnects[event.reason] += 1;
          if (event.wasConnected) total.connected -= 1;
          lastDisconnect = { reporter, reason: event.reason, message: event.status?.message ?? '' };
          break;
        case 'stopped':
          if (event.wasConnected) total.connected -= 1;
          break;
        case 'queued':
          break;
      }
    },
    snapshot() {
      const hasSamples = ackMicros.count > 0;
      const ms = (micros: number): number => (hasSamples ? micros / 1000 : 0);
      return {
        ...total,
        everConnected: everConnected.size,
        disconnects: { ...disconnects },
        lastDisconnect,
        reports: { ...reports },
        nacks: disconnects.nack_received,
        ackMs: {
          p50: ms(ackMicros.percentile(50)),
          p99: ms(ackMicros.percentile(99)),
          max: ms(ackMicros.max),
        },
      };
    },
  };
}
