import { MAX_REQUESTS } from './api-server.ts';
import type { Backup } from './api-store.ts';
import type { Schedule } from './schedule.ts';
import { FAULT_INJECTORS, recover } from './fault-injectors.ts';
import { checkConverged, findLeaks } from './convergence.ts';
import { formatFault } from './scheduled-fault.ts';
import { createSimHarness, type OpenApi, type SimHarness } from './harness.ts';

/** What became of one course. */
export interface Outcome {
  /** What was wrong on the way, and what was not right at the end; empty: all is well. */
  readonly violations: readonly string[];
  /** From the end of the faults until all was as it is to be, in fake time. */
  readonly convergedMs: number;
  readonly requests: number;
  /** Fake time that passed in all. */
  readonly passedMs: number;
}

const BACKUP_INTERVAL_MS = 15_000;
const POLL_INTERVAL_MS = 2500;
/** What began in the faults' last moment may still have its effect: a Lease that was not renewed is found to be so. */
const GRACE_MS = 25_000;
/** Owners may have died until the faults ended: each begins the time of a lost reporter anew. */
const CONVERGENCE_DEADLINE_MS = 1_500_000;
const QUIET_MS = 70_000;

/** How a course is played. */
export interface RunOptions {
  /** Takes every line of what happens. */
  readonly trace?: ((line: string) => void) | undefined;
  /** A real API server instead of the one in memory. */
  readonly openApi?: OpenApi | undefined;
}

/** Plays a course: its faults, their end, and the time that the world is given to come right. */
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
  for (const fault of schedule.faults) {
    lastMs = Math.max(lastMs, fault.atMs);
    time.after(fault.atMs, () => {
      harness.traceLine(() => `STEP ${formatFault(fault)}`);
      FAULT_INJECTORS[fault.kind]({ harness, fault, backups });
    });
  }
  await time.advance(lastMs + 20_000);
  // What still lasts ends now.
  harness.traceLine(() => 'from here on nothing goes wrong');
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
      ...(harness.server.requests > MAX_REQUESTS ? ['a storm of requests'] : []),
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

/** Two Envoys of one id become one; who is to come back comes back. */
async function endFaults(harness: SimHarness): Promise<void> {
  await recover(harness);
  const seen = new Set<string>();
  for (const envoy of harness.envoys) {
    if (envoy.isRunning && seen.has(envoy.key)) envoy.stop(true);
    if (envoy.isRunning) seen.add(envoy.key);
  }
  // Undoings that are still to come are of what has ended; the longest fault lasts so long.
  await harness.time.advance(1000);
  await recover(harness);
}

/** Once all is right, nobody writes. */
async function checkQuiescent(harness: SimHarness): Promise<string[]> {
  const hasConflicts = [...harness.store.objects('reversetunnelreporters')].some(({ status }) =>
    JSON.stringify(status).includes('IdentityConflict'),
  );
  harness.writes.clear();
  await harness.time.advance(QUIET_MS);
  const violations = checkConverged(harness).map((text) => `no longer: ${text}`);
  const tunnelWrites = harness.writes.get('reversetunnels') ?? 0;
  const reporterWrites = harness.writes.get('reversetunnelreporters') ?? 0;
  if (tunnelWrites > 0) violations.push(`${tunnelWrites} writes of rows once all was right`);
  if (reporterWrites > 0 && !hasConflicts)
    violations.push(`${reporterWrites} writes of reporters once all was right`);
  return [...violations, ...findLeaks(harness), ...harness.invariants.violations];
}
