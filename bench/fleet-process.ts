/** A fleet of reporters in a separate process, so that it is measured neither as the operator nor as the benchmark. */
import { dialReportingService, type ReportingConnection } from '../src/grpc/reporting-client.ts';
import { createFleet, type Fleet, type FleetOptions } from '../src/simulate/fleet.ts';
import type { FleetStatistics } from '../src/simulate/fleet-statistics.ts';
import { serveParent } from './child.ts';
import { machineMs } from './machine.ts';

/** How many tunnels of the fleet are added, are removed, and flap (reconnect with a new created_at). */
export interface Changes {
  readonly added: number;
  readonly removed: number;
  readonly flapped: number;
}

/** The calls of the fleet. Changes resolve when they are queued in the reporters, not when they are reported. */
export interface FleetCalls {
  start(options: Partial<FleetOptions> & Pick<FleetOptions, 'address'>): Promise<void>;
  /** Adds `tunnels` tunnels to each reporter. */
  grow(tunnels: number): Promise<void>;
  change(changes: Changes): Promise<void>;
  /** Removes every tunnel. */
  clear(nothing: null): Promise<void>;
  /** Resets the connection of every reporter, which reconnects after its retry interval. */
  reconnect(nothing: null): Promise<void>;
  /**
   * Resolves when everything is reported and ACKed, with the machine time at which the first report with content since
   * the last change was sent; undefined if there was none.
   */
  settled(nothing: null): Promise<number | undefined>;
  statistics(nothing: null): Promise<FleetStatistics>;
}

let fleet: Fleet | undefined;
let firstSentMs: number | undefined;

/** Dials the service, and records when the first report with content is sent. */
function dial(address: string): ReportingConnection {
  const connection = dialReportingService({ address });
  return {
    ...connection,
    openStream(handlers) {
      const stream = connection.openStream(handlers);
      return {
        ...stream,
        send(report) {
          if (report.fullPush || report.added.length + report.removedNames.length > 0)
            firstSentMs ??= machineMs();
          stream.send(report);
        },
      };
    },
  };
}

function requireFleet(): Fleet {
  if (fleet === undefined) throw new Error('fleet not started');
  return fleet;
}

/** Yields `count` tunnels of the fleet, spread evenly over the reporters. */
function* pickTunnels(count: number) {
  const { reporters } = requireFleet();
  const perReporter = Math.ceil(count / reporters.length);
  let remaining = count;
  for (const reporter of reporters) {
    for (const tunnel of [...reporter.expectedTunnels().values()].slice(
      0,
      Math.min(perReporter, remaining),
    )) {
      remaining -= 1;
      yield { reporter, tunnel };
    }
  }
}

const calls: FleetCalls = {
  async start(options) {
    firstSentMs = undefined;
    fleet = createFleet(options, { dial });
    await fleet.start();
  },
  async grow(tunnels) {
    firstSentMs = undefined;
    const grown = requireFleet();
    for (const reporter of grown.reporters) {
      for (let i = 0; i < tunnels; i += 1) reporter.connectTunnel(grown.newInitiator());
    }
  },
  async change({ added, removed, flapped }) {
    firstSentMs = undefined;
    const changed = requireFleet();
    const { reporters } = changed;
    const chosen = [...pickTunnels(removed + flapped)];
    for (const { reporter, tunnel } of chosen.slice(0, removed)) reporter.disconnectTunnel(tunnel.name);
    for (const { reporter, tunnel } of chosen.slice(removed)) reporter.flap(tunnel.name);
    for (let i = 0; i < added; i += 1) reporters[i % reporters.length]?.connectTunnel(changed.newInitiator());
  },
  async clear() {
    firstSentMs = undefined;
    for (const reporter of requireFleet().reporters) {
      for (const name of reporter.expectedTunnels().keys()) reporter.disconnectTunnel(name);
    }
  },
  async reconnect() {
    firstSentMs = undefined;
    for (const reporter of requireFleet().reporters) reporter.resetConnection();
  },
  async settled() {
    await requireFleet().settled();
    return firstSentMs;
  },
  async statistics() {
    return requireFleet().statistics();
  },
};

serveParent<FleetCalls>(calls);
