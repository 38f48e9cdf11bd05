import { startSteadyReporter } from '../../test/support/attacks/steady-reporter.ts';
import { CaseError, type Cases } from './decode.ts';
import { createCorpus, type Corpus } from './mutations.ts';
import type { CreateCaseDriver } from './drivers.ts';

/** A server in a process of its own. */
export interface FuzzTarget extends AsyncDisposable {
  readonly address: string;
  /** How it is, after a collection of garbage. Rejects when it has ended. */
  state(): Promise<FuzzTargetState>;
  /** Makes it forget what it should remember of the reporters that came by. */
  readonly forgetReporters?: () => Promise<void>;
}

export interface FuzzTargetState {
  /** Heap and buffers. */
  readonly usedBytes: number;
  readonly residentBytes: number;
  /** What it has logged as errors. */
  readonly errors: readonly string[];
}

export interface LiveFuzzOptions extends Cases {
  readonly createDriver: CreateCaseDriver;
  readonly startTarget: () => Promise<FuzzTarget>;
  /** One case in so many. */
  readonly every: number;
  /** Cases of another seed that are played first: caches fill, code is compiled. */
  readonly warmUp: number;
  readonly onProgress: (index: number) => void;
}

export interface LiveFuzzResult {
  readonly executed: number;
  /** All batches together, the waiting for ACKs between them included. */
  readonly durationMs: number;
  /** What came back, and how often. */
  readonly answers: ReadonlyMap<string, number>;
  readonly before: FuzzTargetState;
  readonly loaded: FuzzTargetState;
  readonly after: FuzzTargetState;
  /** ACKs of the reporter that behaves, and the slowest of them. */
  readonly acks: number;
  readonly maxAckMs: number;
}

/** Below what a connection may open at once (`stream_rate`). */
const BATCH_SIZE = 500;
const CONCURRENCY = 16;
/** A heap keeps some room, and the operator remembers each reporter that it ever heard of. */
export const MAX_GROWTH_BYTES = 16 * 1024 * 1024;

/**
 * Plays cases against a server, 16 at once, and asks after each batch of 500: does it live, does it log no error, does
 * a reporter that behaves get ACKs? And at the end: is memory back to where it was?
 *
 * @throws CaseError naming the first case that did harm: of a batch that did, the cases are played again one by one
 * @throws Error when it was none of them by itself
 */
export async function runCases(run: LiveFuzzOptions): Promise<LiveFuzzResult> {
  await using target = await run.startTarget();
  await using steady = await startSteadyReporter(target.address);
  const answers = new Map<string, number>();
  let played = 0;

  async function runBatch(cases: Cases, corpus: Corpus): Promise<FuzzTargetState> {
    const driver = run.createDriver(target.address, corpus, cases.seed);
    let next = cases.from;
    const runNextUntilDone = async (): Promise<void> => {
      while (next < cases.to) {
        const index = next;
        next += run.every;
        const outcomes = await driver.run(index).catch((error: unknown) => {
          throw new CaseError(cases.seed, index, error instanceof Error ? error.message : String(error));
        });
        for (const outcome of outcomes) answers.set(outcome, (answers.get(outcome) ?? 0) + 1);
        played += 1;
      }
    };
    try {
      await Promise.all(Array.from({ length: CONCURRENCY }, runNextUntilDone));
    } finally {
      driver.close();
    }
    await steady.waitForAcks(3);
    const state = await target.state();
    if (state.errors.length > 0) throw new Error(`it logged ${state.errors.join('\n')}`);
    return state;
  }

  async function runBatches(cases: Cases): Promise<FuzzTargetState | undefined> {
    const corpus = createCorpus(cases.seed);
    let state: FuzzTargetState | undefined;
    for (const batch of batches(cases, run.every)) {
      try {
        state = await runBatch(batch, corpus);
      } catch (error) {
        await findFailingCase(run, batch, corpus);
        const description = `cases ${batch.from} to ${batch.to - 1} of seed ${batch.seed}`;
        throw new Error(`${description} did harm, none by itself: ${(error as Error).message}`, {
          cause: error,
        });
      }
      if (cases === run) run.onProgress(batch.to - run.from);
    }
    return state;
  }

  await runBatches({ seed: (run.seed ^ 0x5eed) >>> 0, from: 0, to: run.warmUp * run.every });
  await target.forgetReporters?.();
  answers.clear();
  played = 0;
  const before = await target.state();
  const acksBefore = steady.ackMs.length;
  const startedMs = performance.now();
  const loaded = (await runBatches(run)) ?? before;
  const tookMs = performance.now() - startedMs;
  await target.forgetReporters?.();
  return {
    ...{
      executed: played,
      durationMs: tookMs,
      answers,
      before,
      loaded,
      after: await waitForMemoryRelease(target, before),
    },
    acks: steady.ackMs.length - acksBefore,
    maxAckMs: steady.ackMs.slice(acksBefore).reduce((a, b) => Math.max(a, b), 0),
  };
}

function* batches({ seed, from, to }: Cases, stride: number): Generator<Cases> {
  const step = BATCH_SIZE * stride;
  for (let at = from; at < to; at += step) yield { seed, from: at, to: Math.min(to, at + step) };
}

/** Plays the cases again, one by one, against a server of their own; throws with the first that does harm. */
async function findFailingCase(run: LiveFuzzOptions, cases: Cases, corpus: Corpus): Promise<void> {
  await using target = await run.startTarget();
  await using steady = await startSteadyReporter(target.address);
  for (let index = cases.from; index < cases.to; index += run.every) {
    const driver = run.createDriver(target.address, corpus, cases.seed);
    try {
      await driver.run(index);
      await steady.waitForAcks(3);
      const { errors } = await target.state();
      if (errors.length > 0) throw new Error(`it logged ${errors.join('\n')}`);
    } catch (error) {
      throw new CaseError(cases.seed, index, (error as Error).message);
    } finally {
      driver.close();
    }
  }
}

/** The state once what was held is let go, or after half a minute: closed connections linger for 10 s at most. */
async function waitForMemoryRelease(target: FuzzTarget, before: FuzzTargetState): Promise<FuzzTargetState> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    const state = await target.state();
    if (state.usedBytes - before.usedBytes < MAX_GROWTH_BYTES || performance.now() > untilMs) return state;
  }
}
