import { startSteadyReporter } from '../../test/support/attacks/steady-reporter.ts';
import { CaseError, type Cases } from './decode.ts';
import { createCorpus, type Corpus } from './mutations.ts';
import type { CreatePlayer } from './players.ts';

/** A server in a process of its own. */
export interface Target extends AsyncDisposable {
  readonly address: string;
  /** How it is, after a collection of garbage. Rejects when it has ended. */
  state(): Promise<TargetState>;
  /** Makes it forget what it should remember of the reporters that came by. */
  readonly forget?: () => Promise<void>;
}

export interface TargetState {
  /** Heap and buffers. */
  readonly heldBytes: number;
  readonly residentBytes: number;
  /** What it has logged as errors. */
  readonly errors: readonly string[];
}

export interface LiveRun extends Cases {
  readonly create: CreatePlayer;
  readonly start: () => Promise<Target>;
  /** One case in so many. */
  readonly every: number;
  /** Cases of another seed that are played first: caches fill, code is compiled. */
  readonly warmUp: number;
  readonly told: (index: number) => void;
}

export interface LiveResult {
  readonly played: number;
  /** All batches together, the waiting for ACKs between them included. */
  readonly tookMs: number;
  /** What came back, and how often. */
  readonly answers: ReadonlyMap<string, number>;
  readonly before: TargetState;
  readonly loaded: TargetState;
  readonly after: TargetState;
  /** ACKs of the reporter that behaves, and the slowest of them. */
  readonly acks: number;
  readonly slowestAckMs: number;
}

/** Below what a connection may open at once (`stream_rate`). */
const BATCH = 500;
const AT_ONCE = 16;
/** A heap keeps some room, and the operator remembers each reporter that it ever heard of. */
export const MOST_GROWTH_BYTES = 16 * 1024 * 1024;

/**
 * Plays cases against a server, 16 at once, and asks after each batch of 500: does it live, does it log no error, does
 * a reporter that behaves get ACKs? And at the end: is memory back to where it was?
 *
 * @throws CaseError naming the first case that did harm: of a batch that did, the cases are played again one by one
 * @throws Error when it was none of them by itself
 */
export async function playCases(run: LiveRun): Promise<LiveResult> {
  await using target = await run.start();
  await using steady = await startSteadyReporter(target.address);
  const answers = new Map<string, number>();
  let played = 0;

  async function play(cases: Cases, corpus: Corpus): Promise<TargetState> {
    const player = run.create(target.address, corpus, cases.seed);
    let next = cases.from;
    const oneAfterAnother = async (): Promise<void> => {
      while (next < cases.to) {
        const index = next;
        next += run.every;
        const words = await player.play(index).catch((error: unknown) => {
          throw new CaseError(cases.seed, index, error instanceof Error ? error.message : String(error));
        });
        for (const word of words) answers.set(word, (answers.get(word) ?? 0) + 1);
        played += 1;
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, oneAfterAnother));
    } finally {
      player.close();
    }
    await steady.acks(3);
    const state = await target.state();
    if (state.errors.length > 0) throw new Error(`it logged ${state.errors.join('\n')}`);
    return state;
  }

  async function playBatches(cases: Cases): Promise<TargetState | undefined> {
    const corpus = createCorpus(cases.seed);
    let state: TargetState | undefined;
    for (const batch of batches(cases, run.every)) {
      try {
        state = await play(batch, corpus);
      } catch (error) {
        await blame(run, batch, corpus);
        const which = `cases ${batch.from} to ${batch.to - 1} of seed ${batch.seed}`;
        throw new Error(`${which} did harm, none by itself: ${(error as Error).message}`, { cause: error });
      }
      if (cases === run) run.told(batch.to - run.from);
    }
    return state;
  }

  await playBatches({ seed: (run.seed ^ 0x5eed) >>> 0, from: 0, to: run.warmUp * run.every });
  await target.forget?.();
  answers.clear();
  played = 0;
  const before = await target.state();
  const acksBefore = steady.ackMs.length;
  const startedMs = performance.now();
  const loaded = (await playBatches(run)) ?? before;
  const tookMs = performance.now() - startedMs;
  await target.forget?.();
  return {
    ...{ played, tookMs, answers, before, loaded, after: await settled(target, before) },
    acks: steady.ackMs.length - acksBefore,
    slowestAckMs: steady.ackMs.slice(acksBefore).reduce((a, b) => Math.max(a, b), 0),
  };
}

function* batches({ seed, from, to }: Cases, every: number): Generator<Cases> {
  const step = BATCH * every;
  for (let at = from; at < to; at += step) yield { seed, from: at, to: Math.min(to, at + step) };
}

/** Plays the cases again, one by one, against a server of their own; throws with the first that does harm. */
async function blame(run: LiveRun, cases: Cases, corpus: Corpus): Promise<void> {
  await using target = await run.start();
  await using steady = await startSteadyReporter(target.address);
  for (let index = cases.from; index < cases.to; index += run.every) {
    const player = run.create(target.address, corpus, cases.seed);
    try {
      await player.play(index);
      await steady.acks(3);
      const { errors } = await target.state();
      if (errors.length > 0) throw new Error(`it logged ${errors.join('\n')}`);
    } catch (error) {
      throw new CaseError(cases.seed, index, (error as Error).message);
    } finally {
      player.close();
    }
  }
}

/** The state once what was held is let go, or after half a minute: closed connections linger for 10 s at most. */
async function settled(target: Target, before: TargetState): Promise<TargetState> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    const state = await target.state();
    if (state.heldBytes - before.heldBytes < MOST_GROWTH_BYTES || performance.now() > untilMs) return state;
  }
}
