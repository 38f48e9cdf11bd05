import { MOST_REQUESTS } from './api-server.ts';
import type { Backup } from './api-store.ts';
import type { Course } from './course.ts';
import { FAULTS, heal } from './faults.ts';
import { differences, remembered } from './judge.ts';
import { stepText } from './step.ts';
import { createWorld, type OpenApi, type World } from './world.ts';

/** What became of one course. */
export interface Outcome {
  /** What was wrong on the way, and what was not right at the end; empty: all is well. */
  readonly wrongs: readonly string[];
  /** From the end of the faults until all was as it is to be, in fake time. */
  readonly convergedMs: number;
  readonly requests: number;
  /** Fake time that passed in all. */
  readonly passedMs: number;
}

const BACKUP_EVERY_MS = 15_000;
const LOOK_EVERY_MS = 2500;
/** What began in the faults' last moment may still have its effect: a Lease that was not renewed is found to be so. */
const AFTERMATH_MS = 25_000;
/** Owners may have died until the faults ended: each begins the time of a lost reporter anew. */
const CONVERGE_WITHIN_MS = 1_500_000;
const QUIET_MS = 70_000;

/** How a course is played. */
export interface Playing {
  /** Takes every line of what happens. */
  readonly trace?: ((line: string) => void) | undefined;
  /** A real API server instead of the one in memory. */
  readonly openApi?: OpenApi | undefined;
}

/** Plays a course: its faults, their end, and the time that the world is given to come right. */
export async function simulate(course: Course, playing: Playing = {}): Promise<Outcome> {
  const world = await createWorld(course, playing);
  const { time, watchdog } = world;
  const backups: Backup[] = [];
  for (let atMs = BACKUP_EVERY_MS; atMs < 200_000; atMs += BACKUP_EVERY_MS) {
    time.after(atMs, () => {
      const { memory } = world.store;
      if (memory !== undefined) backups.push(memory.backup(time.nowMs));
    });
  }
  let lastMs = 0;
  for (const step of course.steps) {
    lastMs = Math.max(lastMs, step.atMs);
    time.after(step.atMs, () => {
      world.tell(() => `STEP ${stepText(step)}`);
      FAULTS[step.do]({ world, step, backups });
    });
  }
  await time.pass(lastMs + 20_000);
  // What still lasts ends now.
  world.tell(() => 'from here on nothing goes wrong');
  await endFaults(world);
  const healedMs = time.nowMs;
  await time.pass(AFTERMATH_MS);
  let left = differences(world);
  while (left.length > 0 && watchdog.wrongs.length === 0 && time.nowMs - healedMs < CONVERGE_WITHIN_MS) {
    await time.pass(LOOK_EVERY_MS);
    left = differences(world);
  }
  const convergedMs = time.nowMs - healedMs;
  const unquiet = left.length > 0 || watchdog.wrongs.length > 0 ? [] : await quiet(world);
  const outcome = {
    wrongs: [
      ...watchdog.wrongs,
      ...left.map((text) => `after ${Math.round(convergedMs / 1000)} s: ${text}`),
      ...unquiet,
      ...(world.server.requests > MOST_REQUESTS ? ['a storm of requests'] : []),
    ],
    convergedMs,
    requests: world.server.requests,
    passedMs: time.nowMs,
  };
  for (const slot of world.slots) world.killReplica(slot, 'reset');
  for (const envoy of world.envoys) envoy.stop(true);
  await world.store.close();
  return outcome;
}

/** Two Envoys of one id become one; who is to come back comes back. */
async function endFaults(world: World): Promise<void> {
  await heal(world);
  const seen = new Set<string>();
  for (const envoy of world.envoys) {
    if (envoy.isUp && seen.has(envoy.key)) envoy.stop(true);
    if (envoy.isUp) seen.add(envoy.key);
  }
  // Undoings that are still to come are of what has ended; the longest fault lasts so long.
  await world.time.pass(1000);
  await heal(world);
}

/** Once all is right, nobody writes. */
async function quiet(world: World): Promise<string[]> {
  const quarrels = [...world.store.objects('reversetunnelreporters')].some(({ status }) =>
    JSON.stringify(status).includes('IdentityConflict'),
  );
  world.writes.clear();
  await world.time.pass(QUIET_MS);
  const found = differences(world).map((text) => `no longer: ${text}`);
  const rows = world.writes.get('reversetunnels') ?? 0;
  const reporters = world.writes.get('reversetunnelreporters') ?? 0;
  if (rows > 0) found.push(`${rows} writes of rows once all was right`);
  if (reporters > 0 && !quarrels) found.push(`${reporters} writes of reporters once all was right`);
  return [...found, ...remembered(world), ...world.watchdog.wrongs];
}
