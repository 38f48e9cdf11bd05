import { createHistogram } from 'node:perf_hooks';
import type { ClientEvent, EnvoyDisconnectReason } from './envoy-client.ts';
import type { ReporterId } from '../core/tunnel.ts';

/** Counters of a fleet since it was created. */
export interface FleetStatistics {
  /** Number of reporters whose current stream has been ACKed. */
  readonly connected: number;
  /** Streams that were opened, including those that failed to connect. */
  readonly attempts: number;
  /** Streams that were ACKed at least once. */
  readonly connects: number;
  /** Reporters that had such a stream; `connects - everConnected` is the number of reconnects. */
  readonly everConnected: number;
  readonly disconnects: Readonly<Record<EnvoyDisconnectReason, number>>;
  /** The most recent disconnect, for messages. */
  readonly lastDisconnect: LastDisconnect | undefined;
  /** Reports that were sent. An empty report is a full push if it is marked as one, otherwise a heartbeat. */
  readonly reports: { readonly full: number; readonly delta: number; readonly heartbeat: number };
  /** Entries in the two lists of all reports; a full push counts all its tunnels again. */
  readonly tunnelsAdded: number;
  readonly tunnelsRemoved: number;
  /** Valid ACKs; a cumulative one counts once. */
  readonly acks: number;
  /** ACKs with an unexpected nonce, which is an error of the service. */
  readonly outOfOrderAcks: number;
  /** NACKs; each one ended its stream. */
  readonly nacks: number;
  /** Updates that were dropped because the buffer of a client was full. */
  readonly droppedUpdates: number;
  /** Latency from sending a report to its ACK, in ms with three significant digits; 0 if there was no ACK. */
  readonly ackMs: { readonly p50: number; readonly p99: number; readonly max: number };
}

interface LastDisconnect {
  readonly reporter: ReporterId;
  readonly reason: EnvoyDisconnectReason;
  /** The message of the service or of the network; empty if the reporter ended the stream. */
  readonly message: string;
}

/** Counts the events of all clients of a fleet. */
export interface FleetStatisticsCollector {
  /** Counts one event of the client of a reporter. */
  count(reporter: ReporterId, event: ClientEvent): void;
  /** Returns a copy of the counters. */
  snapshot(): FleetStatistics;
}

/** One hour in microseconds; a longer ACK latency counts as this one. */
const MAX_LATENCY_MICROS = 3_600_000_000;

/** Creates counters that start at 0. Their memory does not grow with the number of reports. */
export function createFleetStatistics(): FleetStatisticsCollector {
  const ackMicros = createHistogram({ lowest: 1, highest: MAX_LATENCY_MICROS, figures: 3 });
  const disconnects: Record<EnvoyDisconnectReason, number> = {
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
          // The histogram rejects values outside of its range.
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
