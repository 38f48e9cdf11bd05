import { OF_THE_STORE } from './api-faults.ts';
import type { Course } from './course.ts';
import { simulate, type Outcome } from './simulate.ts';
import type { OpenApi } from './world.ts';

/**
 * Plays a course against a real API server and against the one in memory. Beside what is wrong with the real one, it is wrong
 * when anything went otherwise than in memory: a write, a log line, a moment, the number of requests. Steps that change the
 * store itself are left out of both.
 */
export async function playOnBoth(
  course: Course,
  openApi: OpenApi,
  trace: ((line: string) => void) | undefined,
): Promise<Outcome> {
  const steps = course.steps.filter(({ do: what }) => !OF_THE_STORE.has(what));
  const real: string[] = [];
  const outcome = await simulate(
    { ...course, steps },
    {
      openApi,
      trace: (line) => {
        trace?.(line);
        real.push(comparable(line));
      },
    },
  );
  const memory: string[] = [];
  const { requests } = await simulate(
    { ...course, steps },
    { trace: (line) => memory.push(comparable(line)) },
  );
  const wrongs = [...outcome.wrongs];
  const at = Array.from({ length: Math.max(real.length, memory.length) }, (_, line) => line).find(
    (line) => real[line] !== memory[line],
  );
  if (at !== undefined) {
    wrongs.push(`line ${at}, real: ${real[at] ?? 'none'}`, `line ${at}, in memory: ${memory[at] ?? 'none'}`);
  }
  if (outcome.requests !== requests) wrongs.push(`${outcome.requests} requests, in memory ${requests}`);
  return { ...outcome, wrongs };
}

/** Without what cannot be alike: versions, and the namespace's name. */
function comparable(line: string): string {
  return line
    .replaceAll(/\bsim-[0-9a-f]{10}\b/g, 'sim')
    .replaceAll(/@\d+/g, '@')
    .replaceAll(/too old resource version: \d+ \(\d+\)/g, 'too old resource version');
}
