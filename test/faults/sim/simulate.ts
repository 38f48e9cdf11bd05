import { MAX_REQUESTS } from './api-server.ts';
import type { Backup } from '../../../embedded-api-server/store.ts';
import { type Schedule, formatFault } from './schedule.ts';
import { FAULT_INJECTORS, recover } from './fault-injectors.ts';
import { checkConverged, findLeaks } from './convergence.ts';
import { createSimHarness, type OpenApi, type SimHarness } from './harness.ts';

/** The result of one run. */
export interface Outcome {
  /** Invariant violations and differences at the end; empty when the run passed. */
  readonly violations: readonly string[];
  /** Fake time from the end of the faults until convergence. */
  readonly convergedMs: number;
  readonly requests: number;
  /** Total fake time. */
  readonly passedMs: number;
}

const BACKUP_INTERVAL_MS = 15_000;
const POLL_INTERVAL_MS = 2500;
/** Faults at the very end may still have effects, such as the expiry of a Lease that was not renewed. */
const GRACE_MS = 25_000;
/** Owners may have died until the end of the faults, and each death restarts the grace timer. */
const CONVERGENCE_DEADLINE_MS = 1_500_000;
const QUIET_MS = 70_000;

/** Options of a run. */
export interface RunOptions {
  /** Receives a line for each event. */
  readonly trace?: ((line: string) => void) | undefined;
  /** Opens a real API server instead of the in-memory one. */
  readonly openApi?: OpenApi | undefined;
}

/** Runs a schedule: its faults, their end, and the time for convergence. */
export async function simulate(schedule: Schedule, options: RunOptions = {}): Promise<Outcome> {
  const harness = await createSimHarness(schedule, options);
  const { time, invariants } = harness;
  const backups: Backup[] = [];
  for (let atMs = BACKUP_INTERVAL_MS; atMs < 200_000; atMs += BACKUP_INTERVAL_MS) {
    time.after(atMs, () => {
      const { memory } = harness.store;
      if (memory !== undefined) backups.push(memory.backup(time.nowMs));
    });
  }
  let lastMs = 0;
  for (const { atMs, representation } of schedule.representations?.slice(1) ?? []) {
    lastMs = Math.max(lastMs, atMs + 30_000);
    time.after(atMs, () => harness.changeRepresentation(representation));
  }
  for (const fault of schedule.faults) {
    lastMs = Math.max(lastMs, fault.atMs);
    time.after(fault.atMs, () => {
      harness.traceLine(() => `FAULT ${formatFault(fault)}`);
      FAULT_INJECTORS[fault.kind]({ harness, fault, backups });
    });
  }
  await time.advance(lastMs + 20_000);
  // Faults that are still active end now.
  harness.traceLine(() => 'all faults have ended');
  await endFaults(harness);
  const recoveredMs = time.nowMs;
  await time.advance(GRACE_MS);
  let remaining = checkConverged(harness);
  while (
    remaining.length > 0 &&
    invariants.violations.length === 0 &&
    time.nowMs - recoveredMs < CONVERGENCE_DEADLINE_MS
  ) {
    await time.advance(POLL_INTERVAL_MS);
    remaining = checkConverged(harness);
  }
  const convergedMs = time.nowMs - recoveredMs;
  const notQuiescent =
    remaining.length > 0 || invariants.violations.length > 0 ? [] : await checkQuiescent(harness);
  const outcome = {
    violations: [
      ...invariants.violations,
      ...remaining.map((text) => `after ${Math.round(convergedMs / 1000)} s: ${text}`),
      ...notQuiescent,
      ...(harness.server.requests > MAX_REQUESTS ? ['too many requests: a client is in a loop'] : []),
    ],
    convergedMs,
    requests: harness.server.requests,
    passedMs: time.nowMs,
  };
  for (const slot of harness.slots) harness.killReplica(slot, 'reset');
  for (const envoy of harness.envoys) envoy.stop(true);
  await harness.store.close();
  return outcome;
}

/** Stops the duplicate Envoys and restarts the stopped ones. */
async function endFaults(harness: SimHarness): Promise<void> {
  await recover(harness);
  const seen = new Set<string>();
  for (const envoy of harness.envoys) {
    if (envoy.isRunning && seen.has(envoy.key)) envoy.stop(true);
    if (envoy.isRunning) seen.add(envoy.key);
  }
  // Callbacks that end earlier faults may still be pending.
  await harness.time.advance(1000);
  await recover(harness);
}

/** Checks that there are no writes after convergence. */
async function checkQuiescent(harness: SimHarness): Promise<string[]> {
  // These conditions end without an event.
  const hasConflicts = [...harness.store.objects('reversetunnelreporters')].some(({ status }) =>
    /IdentityConflict|Flapping/.test(JSON.stringify(status)),
  );
  harness.writes.clear();
  await harness.time.advance(QUIET_MS);
  const violations = checkConverged(harness).map((text) => `no longer converged: ${text}`);
  const tunnelWrites = harness.writes.get('reversetunnels') ?? 0;
  const reporterWrites = harness.writes.get('reversetunnelreporters') ?? 0;
  const sliceWrites = harness.writes.get('reversetunnelslices') ?? 0;
  if (sliceWrites > 0) violations.push(`${sliceWrites} slice writes after convergence`);
  if (tunnelWrites > 0) violations.push(`${tunnelWrites} object writes after convergence`);
  if (reporterWrites > 0 && !hasConflicts)
    violations.push(`${reporterWrites} reporter object writes after convergence`);
  return [...violations, ...findLeaks(harness), ...harness.invariants.violations];
}
