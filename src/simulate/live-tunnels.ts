import type { ChurnTarget } from './churn.ts';
import type { Random } from './random.ts';
import type { FleetReporter } from './reporter.ts';
import type { TunnelIdentity } from './tunnel-registry.ts';

/** The tunnels of a whole fleet, to choose from at random in constant time. */
export interface LiveTunnels extends ChurnTarget {
  /** A tunnel of this initiator comes up at this reporter. */
  bringUp(reporter: FleetReporter, identity: TunnelIdentity): void;
}

/** None yet. `newInitiator` names who comes when another goes. */
export function createLiveTunnels(newInitiator: () => TunnelIdentity): LiveTunnels {
  // Tunnels that were disconnected in another way are still here, and left out when they are chosen.
  const live: { readonly reporter: FleetReporter; readonly identity: TunnelIdentity }[] = [];

  function bringUp(reporter: FleetReporter, identity: TunnelIdentity): void {
    reporter.connectTunnel(identity);
    live.push({ reporter, identity });
  }

  /** Disconnects one of the tunnels that are up, each as likely as any other. */
  function takeDown(random: Random): (typeof live)[number] | undefined {
    while (live.length > 0) {
      const index = random.below(live.length);
      const chosen = live[index];
      const last = live.pop();
      if (last !== undefined && index < live.length) live[index] = last;
      if (chosen?.reporter.disconnectTunnel(chosen.identity.nodeID)) return chosen;
    }
    return undefined;
  }

  return {
    bringUp,
    replaceOne(random) {
      const removed = takeDown(random);
      if (removed !== undefined) bringUp(removed.reporter, newInitiator());
    },
    dropOne(random) {
      const removed = takeDown(random);
      return removed && (() => bringUp(removed.reporter, removed.identity));
    },
  };
}
