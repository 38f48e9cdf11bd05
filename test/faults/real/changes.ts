import { setTimeout as delay } from 'node:timers/promises';
import type { FleetReporter } from '../../../src/simulate/reporter.ts';
import type { FaultFixture } from './fault-fixture.ts';

/** The object writes that a number of changes needs: a create, a patch and a delete each. */
export const WRITES_PER_CHANGE = 3;

/**
 * Replaces `count` tunnels by others and lets `count` tunnels flap, over reporters chosen at random. Returns the number
 * of changes of each kind, which is smaller in a small fleet.
 *
 * @param except the name of a tunnel that must not change
 */
export function applyChanges({ fleet, random }: FaultFixture, count: number, except = ''): number {
  const flapped = new Set<string>([except]);
  const choose = (): { readonly reporter: FleetReporter; readonly name: string } => {
    for (;;) {
      const reporter = fleet.reporters[random.below(fleet.reporters.length)];
      const names = [...(reporter?.expectedTunnels().keys() ?? [])];
      const name = names[random.below(Math.max(1, names.length))];
      // A flapped tunnel is not changed again, so that it costs exactly one write whatever has been reported so
      // far.
      if (reporter !== undefined && name !== undefined && !flapped.has(name)) return { reporter, name };
    }
  };
  // Not all of a few tunnels may change, because some must be left to choose from.
  const times = Math.min(count, Math.floor(fleet.tunnelCount() / 4));
  for (let i = 0; i < times; i += 1) {
    const { reporter, name } = choose();
    flapped.add(name);
    reporter.flap(name);
  }
  for (let i = 0; i < times; i += 1) {
    const { reporter, name } = choose();
    reporter.disconnectTunnel(name);
    reporter.connectTunnel(fleet.newInitiator());
  }
  return times;
}

/** Applies changes every 100 ms for `durationMs`. Returns the number of changes of each kind. */
export async function applyChangesOver(
  fixture: FaultFixture,
  count: number,
  durationMs: number,
): Promise<number> {
  const rounds = Math.max(1, Math.floor(durationMs / 100));
  const startedMs = performance.now();
  let done = 0;
  for (let round = 1; round <= rounds; round += 1) {
    const target = Math.round((count * round) / rounds);
    done += applyChanges(fixture, target - done);
    await delay(Math.max(0, startedMs + (durationMs * round) / rounds - performance.now()));
  }
  return done;
}

/** Waits until all changes are ACKed. Returns the time in ms. */
export async function waitForAcks({ fleet }: FaultFixture): Promise<number> {
  const startedMs = performance.now();
  await fleet.settled();
  return performance.now() - startedMs;
}
