import { setTimeout as delay } from 'node:timers/promises';
import type { FleetReporter } from '../../../src/simulate/reporter.ts';
import type { FaultFixture } from './fault-fixture.ts';

/** The writes that changes of tunnels must cost, and no more. */
export interface Changes {
  readonly create: number;
  readonly patch: number;
  readonly delete: number;
}

/**
 * Replaces `count` tunnels by others and lets `count` tunnels flap, over reporters chosen at random.
 *
 * @param except the name of a tunnel that must not change
 */
export function applyChanges({ fleet, random }: FaultFixture, count: number, except = ''): Changes {
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
  return { create: times, patch: times, delete: times };
}

/**
 * Applies changes every 100 ms for `durationMs`, then waits until all are ACKed. Returns how long the ACKs took
 * after the last change.
 */
export async function applyChangesOver(
  fixture: FaultFixture,
  count: number,
  durationMs: number,
): Promise<{ readonly changes: Changes; readonly ackedMs: number }> {
  const rounds = Math.max(1, Math.floor(durationMs / 100));
  const startedMs = performance.now();
  let done = 0;
  for (let round = 1; round <= rounds; round += 1) {
    const target = Math.round((count * round) / rounds);
    done += applyChanges(fixture, target - done).create;
    await delay(Math.max(0, startedMs + (durationMs * round) / rounds - performance.now()));
  }
  const changedMs = performance.now();
  await fixture.fleet.settled();
  return {
    changes: { create: done, patch: done, delete: done },
    ackedMs: performance.now() - changedMs,
  };
}
