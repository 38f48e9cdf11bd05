import { courseOf, type Course } from './course.ts';
import { playOnBoth } from './both.ts';
import { simulate, type Outcome, type Playing } from './simulate.ts';
import { stepText } from './step.ts';

/** A seed that came out wrong, cut down to the steps that it takes. */
export interface Failure {
  readonly course: Course;
  /** Which steps of the seed's course are left. */
  readonly kept: readonly number[];
  readonly outcome: Outcome;
}

/** What many seeds came to. */
export interface Summary {
  readonly seeds: number;
  readonly failures: readonly Failure[];
  readonly requests: number;
  /** Fake time, in all. */
  readonly passedMs: number;
  readonly slowestConvergedMs: number;
}

/** Runs of one failing course that shrinking may take. */
const MOST_TRIES = 80;

/** The seed's course with some of its steps. */
export function partOf(seed: number, kept: readonly number[] | undefined): Course {
  const course = courseOf(seed);
  if (kept === undefined) return course;
  return { ...course, steps: course.steps.filter((_, index) => kept.includes(index)) };
}

/** Plays the courses of `count` seeds from `first` on. @param mostFailures after so many it ends, as it is slow to shrink them */
export async function runSeeds(
  first: number,
  count: number,
  {
    mostFailures = 5,
    openApi,
    onSeed,
    onFailure,
  }: {
    mostFailures?: number;
    openApi?: Playing['openApi'];
    onSeed?: (seed: number) => void;
    /** Told of a seed before it is cut down, which takes a while. */
    onFailure?: (seed: number, wrongs: readonly string[]) => void;
  } = {},
): Promise<Summary> {
  const failures: Failure[] = [];
  let [seeds, requests, passedMs, slowestConvergedMs] = [0, 0, 0, 0];
  for (let seed = first; seed < first + count && failures.length < mostFailures; seed += 1) {
    const outcome = await playOnce(courseOf(seed), { openApi });
    seeds += 1;
    requests += outcome.requests;
    passedMs += outcome.passedMs;
    slowestConvergedMs = Math.max(slowestConvergedMs, outcome.convergedMs);
    if (outcome.wrongs.length > 0) {
      onFailure?.(seed, outcome.wrongs);
      failures.push(await shrink(seed, outcome, { openApi }));
    }
    onSeed?.(seed);
  }
  return { seeds, failures, requests, passedMs, slowestConvergedMs };
}

/** With a real API server, against both kinds. A fault of the simulator, or an error that nobody caught, is a wrong like any other: it has a seed. */
export async function playOnce(course: Course, playing: Playing = {}): Promise<Outcome> {
  const thrown: string[] = [];
  const onThrown = (error: unknown): void => {
    thrown.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  };
  process.on('unhandledRejection', onThrown);
  process.on('uncaughtException', onThrown);
  try {
    const { openApi, trace } = playing;
    const outcome =
      openApi === undefined ? await simulate(course, playing) : await playOnBoth(course, openApi, trace);
    return thrown.length === 0 ? outcome : { ...outcome, wrongs: [...thrown, ...outcome.wrongs] };
  } finally {
    process.off('unhandledRejection', onThrown);
    process.off('uncaughtException', onThrown);
  }
}

/** Leaves out steps, half of them at first, for as long as it still comes out wrong. */
async function shrink(seed: number, found: Outcome, playing: Playing): Promise<Failure> {
  let kept = courseOf(seed).steps.map((_, index) => index);
  let outcome = found;
  let tries = 0;
  for (let size = Math.ceil(kept.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = 0; from < kept.length && tries < MOST_TRIES;) {
      const fewer = [...kept.slice(0, from), ...kept.slice(from + size)];
      tries += 1;
      const again = await playOnce(partOf(seed, fewer), playing);
      if (again.wrongs.length > 0) [kept, outcome] = [fewer, again];
      else from += size;
    }
  }
  return { course: partOf(seed, kept), kept, outcome };
}

/** A failure, for a person: what happens, what comes of it, and the command that shows it again. */
export function failureText({ course, kept, outcome }: Failure, api: 'memory' | 'real' = 'memory'): string {
  const { seed, replicas, reporters, tunnels, steps } = course;
  return [
    `seed ${seed}: ${replicas} replicas, ${reporters} reporters of ${tunnels} tunnels`,
    ...steps.map((step) => `  ${stepText(step)}`),
    ...outcome.wrongs.slice(0, 8).map((wrong) => `  -> ${wrong}`),
    `again: npm run test:faults -- --seeds 1 --seed ${seed} --steps ${kept.length === 0 ? 'none' : kept.join(',')}${api === 'real' ? ' --api real' : ''} --trace`,
  ].join('\n');
}
