import { startSteadyReporter } from '../../test/support/steady-reporter.ts';
import { CaseError, type Cases } from './decode.ts';
import { createCorpus, type Corpus } from './mutations.ts';
import type { CreateCaseDriver } from './drivers.ts';

/** A server in a separate process. */
export interface FuzzTarget extends AsyncDisposable {
  readonly address: string;
  /** Collects garbage, and resolves with the state of the server. Rejects if the server has exited. */
  state(): Promise<FuzzTargetState>;
  /** Removes the expected state of past reporters from the server. */
  readonly forgetReporters?: () => Promise<void>;
}

export interface FuzzTargetState {
  /** The size of the heap and of buffers. */
  readonly usedBytes: number;
  readonly residentBytes: number;
  /** The logged errors. */
  readonly errors: readonly string[];
}

export interface LiveFuzzOptions extends Cases {
  readonly createDriver: CreateCaseDriver;
  readonly startTarget: () => Promise<FuzzTarget>;
  /** Run one case of this many. */
  readonly stride: number;
  /** The number of cases of another seed that run first, to fill caches and to compile code. */
  readonly warmUp: number;
  readonly onProgress: (index: number) => void;
}

export interface LiveFuzzResult {
  readonly executed: number;
  /** The duration of all batches, including the ACKs between them. */
  readonly durationMs: number;
  /** The count of each response. */
  readonly responses: ReadonlyMap<string, number>;
  readonly before: FuzzTargetState;
  readonly loaded: FuzzTargetState;
  readonly after: FuzzTargetState;
  /** The number of ACKs of the steady reporter, and their maximum latency. */
  readonly acks: number;
  readonly maxAckMs: number;
}

/** Below the burst of new streams per connection (`stream_rate`). */
const BATCH_SIZE = 500;
const CONCURRENCY = 16;
/** V8 does not return all of the heap, and the operator keeps some state of each reporter. */
export const MAX_GROWTH_BYTES = 16 * 1024 * 1024;

/**
 * Runs cases against a server, 16 concurrently. After each batch of 500, the server must be alive and must not have logged
 * an error, and a steady reporter must get ACKs. At the end, memory must be released.
 *
 * @throws CaseError for the first failing case, which is found by repeating the cases of the batch one by one
 * @throws Error if the batch fails but none of its cases does individually
 */
export async function runCases(run: LiveFuzzOptions): Promise<LiveFuzzResult> {
  await using target = await run.startTarget();
  await using steady = await startSteadyReporter(target.address);
  const responses = new Map<string, number>();
  let executed = 0;

  async function runBatch(cases: Cases, corpus: Corpus): Promise<FuzzTargetState> {
    const driver = run.createDriver(target.address, corpus, cases.seed);
    let next = cases.from;
    const runNextUntilDone = async (): Promise<void> => {
      while (next < cases.to) {
        const index = next;
        next += run.stride;
        const outcomes = await driver.run(index).catch((error: unknown) => {
          throw new CaseError(cases.seed, index, error instanceof Error ? error.message : String(error));
        });
        for (const outcome of outcomes) responses.set(outcome, (responses.get(outcome) ?? 0) + 1);
        executed += 1;
      }
    };
    try {
      await Promise.all(Array.from({ length: CONCURRENCY }, runNextUntilDone));
    } finally {
      driver.close();
    }
    await steady.waitForAcks(3);
    const state = await target.state();
    if (state.errors.length > 0) throw new Error(`server logged ${state.errors.join('\n')}`);
    return state;
  }

  async function runBatches(cases: Cases): Promise<FuzzTargetState | undefined> {
    const corpus = createCorpus(cases.seed);
    let state: FuzzTargetState | undefined;
    for (const batch of batches(cases, run.stride)) {
      try {
        state = await runBatch(batch, corpus);
      } catch (error) {
        await findFailingCase(run, batch, corpus);
        const description = `cases ${batch.from} to ${batch.to - 1} of seed ${batch.seed}`;
        throw new Error(`${description} failed, but none individually: ${(error as Error).message}`, {
          cause: error,
        });
      }
      if (cases === run) run.onProgress(batch.to - run.from);
    }
    return state;
  }

  await runBatches({ seed: (run.seed ^ 0x5eed) >>> 0, from: 0, to: run.warmUp * run.stride });
  await target.forgetReporters?.();
  responses.clear();
  executed = 0;
  const before = await target.state();
  const acksBefore = steady.ackMs.length;
  const startedMs = performance.now();
  const loaded = (await runBatches(run)) ?? before;
  const tookMs = performance.now() - startedMs;
  await target.forgetReporters?.();
  return {
    ...{
      executed,
      durationMs: tookMs,
      responses,
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

/** Repeats the cases one by one against a new server. Throws for the first one that fails. */
async function findFailingCase(run: LiveFuzzOptions, cases: Cases, corpus: Corpus): Promise<void> {
  await using target = await run.startTarget();
  await using steady = await startSteadyReporter(target.address);
  for (let index = cases.from; index < cases.to; index += run.stride) {
    const driver = run.createDriver(target.address, corpus, cases.seed);
    try {
      await driver.run(index);
      await steady.waitForAcks(3);
      const { errors } = await target.state();
      if (errors.length > 0) throw new Error(`server logged ${errors.join('\n')}`);
    } catch (error) {
      throw new CaseError(cases.seed, index, (error as Error).message);
    } finally {
      driver.close();
    }
  }
}

/** Returns the state once memory has been released, or after 30 s: closed connections linger for at most 10 s. */
async function waitForMemoryRelease(target: FuzzTarget, before: FuzzTargetState): Promise<FuzzTargetState> {
  const untilMs = performance.now() + 30_000;
  for (;;) {
    const state = await target.state();
    if (state.usedBytes - before.usedBytes < MAX_GROWTH_BYTES || performance.now() > untilMs) return state;
  }
}
