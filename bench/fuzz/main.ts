/** `npm run fuzz`: sends millions of mutated messages and frame sequences to the running operator; see `--help`. */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { startVictim } from '../../test/support/victim-process.ts';
import { CaseError, decodeCases, type Cases } from './decode.ts';
import { MAX_GROWTH_BYTES, runCases, type LiveFuzzResult, type LiveFuzzOptions } from './live.ts';
import { createCorpus } from './mutations.ts';
import { startOperatorTarget } from './operator-target.ts';
import { createMessageDriver, createSequenceDriver } from './drivers.ts';

const HELP = `Usage: npm run fuzz -- [flags]

  --messages N   number of mutated reports to decode; one in ten is also sent to the compiled
                 operator, which runs with a control plane (default 1000000)
  --frames N     number of mutated sequences of HTTP/2 frames, each sent on a new connection to a
                 server process (default 100000)
  --seed N       0 to 4294967295; the same seed sends the same bytes (default: random)
  --case KIND:N  run only the case that a finding names: message:N or frames:N
  --help         print this text

A crash, a hang, an accepted value that breaks a rule, growing memory, or a steady reporter that gets
no ACKs is a finding. Exit codes: 0 without findings, 1 with a finding, 2 on a usage error.
`;

const LIVE_STRIDE = 10;
const DECODE_BATCH_SIZE = 1000;
const PROGRESS_INTERVAL_MS = 2000;
const MIB = 1024 * 1024;
const EXIT_USAGE = 2;

interface Plan {
  readonly messages: Cases;
  readonly frames: Cases;
  /** Whether only one case runs, without a warm-up. */
  readonly isSingleCase: boolean;
}

process.exitCode = await main();

async function main(): Promise<number> {
  const plan = parsePlan();
  if (typeof plan === 'number') return plan;
  const { messages, frames, isSingleCase } = plan;
  console.log(`seed ${messages.seed}`);
  const warmUp = isSingleCase ? 0 : 10_000;
  const messageRun = {
    createDriver: createMessageDriver,
    startTarget: startOperatorTarget,
    stride: isSingleCase ? 1 : LIVE_STRIDE,
  };
  const frameRun = { createDriver: createSequenceDriver, startTarget: () => startVictim(), stride: 1 };
  const findings = [
    await runAndReport('message', messages, decodeAll),
    await runAndReport('message', messages, (cases) => runLive({ ...cases, ...messageRun, warmUp })),
    await runAndReport('frames', frames, (cases) => runLive({ ...cases, ...frameRun, warmUp })),
  ];
  return findings.includes(true) ? 1 : 0;
}

/** Runs `fuzz` and prints its result, with the flags that reproduce a finding. Returns true on a finding. */
async function runAndReport(
  kind: 'message' | 'frames',
  cases: Cases,
  fuzz: (cases: Cases) => Promise<string[]>,
): Promise<boolean> {
  if (cases.from === cases.to) return false;
  const startedMs = performance.now();
  try {
    for (const line of await fuzz(cases)) console.log(line);
    const seconds = (performance.now() - startedMs) / 1000;
    console.log(`  ${seconds.toFixed(1)} s in total`);
    return false;
  } catch (error) {
    const reproduceFlags =
      error instanceof CaseError ? `--seed ${error.seed} --case ${kind}:${error.index}:` : '';
    console.log(`FINDING ${reproduceFlags} ${error instanceof Error ? error.message : String(error)}`);
    return true;
  }
}

async function decodeAll(cases: Cases): Promise<string[]> {
  const corpus = createCorpus(cases.seed);
  const progress = startProgress('messages decoded', cases);
  const startedMs = performance.now();
  let [reports, malformed] = [0, 0];
  for (let { from } = cases; from < cases.to; from += DECODE_BATCH_SIZE) {
    const to = Math.min(cases.to, from + DECODE_BATCH_SIZE);
    const counts = decodeCases(corpus, { seed: cases.seed, from, to });
    reports += counts.reports;
    malformed += counts.malformed;
    progress(to);
  }
  const count = cases.to - cases.from;
  return [
    `${count} messages decoded, ${perSecond(count, startedMs)} per second`,
    `  ${reports} reports, ${malformed} malformed`,
  ];
}

async function runLive(run: Omit<LiveFuzzOptions, 'onProgress'>): Promise<string[]> {
  const what =
    run.createDriver === createMessageDriver ? 'messages to the operator' : 'frame sequences to the server';
  const progress = startProgress(what, run);
  const result = await runCases({ ...run, onProgress: progress });
  const { before, after } = result;
  const grownBytes = after.usedBytes - before.usedBytes;
  const lines = [
    `${result.executed} ${what}, ${Math.round((result.executed * 1000) / result.durationMs)} per second`,
    `  responses: ${formatResponses(result)}`,
    `  steady reporter: ${result.acks} ACKs, maximum latency ${Math.round(result.maxAckMs)} ms`,
    ...(['before', 'loaded', 'after'] as const).map((when) => `  memory ${formatMemory(when, result)}`),
  ];
  if (grownBytes > MAX_GROWTH_BYTES) throw new Error(`memory not released:\n${lines.join('\n')}`);
  return lines;
}

function formatResponses({ responses }: LiveFuzzResult): string {
  const sorted = [...responses].toSorted(([, a], [, b]) => b - a);
  return sorted.map(([word, times]) => `${word} ${times}`).join(', ');
}

function formatMemory(when: 'before' | 'loaded' | 'after', result: LiveFuzzResult): string {
  const { usedBytes, residentBytes } = result[when];
  return `${when}: used ${(usedBytes / MIB).toFixed(1)} MiB, RSS ${(residentBytes / MIB).toFixed(1)} MiB`;
}

/** Returns a function that prints the progress on stderr, at most every 2 s. */
function startProgress(what: string, { from, to }: Cases): (index: number) => void {
  const startedMs = performance.now();
  let reportedMs = startedMs;
  return (index) => {
    if (performance.now() - reportedMs < PROGRESS_INTERVAL_MS) return;
    reportedMs = performance.now();
    const seconds = Math.round((reportedMs - startedMs) / 1000);
    console.error(`${what}: ${index - from} of ${to - from}, ${seconds} s`);
  };
}

function perSecond(count: number, startedMs: number): number {
  return Math.round((count * 1000) / (performance.now() - startedMs));
}

/** Returns the plan, or an exit code if there is nothing to run. */
function parsePlan(): Plan | number {
  const text = { type: 'string' } as const;
  try {
    const { values } = parseArgs({
      options: { messages: text, frames: text, seed: text, case: text, help: { type: 'boolean' } },
    });
    if (values.help === true) {
      process.stdout.write(HELP);
      return 0;
    }
    const seed = parseWholeNumber('seed', values.seed ?? String(randomInt(2 ** 32)));
    if (values.case !== undefined) {
      const [, kind, index] = /^(message|frames):(\d+)$/.exec(values.case) ?? [];
      if (index === undefined) throw new Error(`--case ${values.case}: must be message:N or frames:N`);
      const singleCase = { seed, from: parseWholeNumber('case', index), to: Number(index) + 1 };
      const noCases = { seed, from: 0, to: 0 };
      return kind === 'message'
        ? { messages: singleCase, frames: noCases, isSingleCase: true }
        : { messages: noCases, frames: singleCase, isSingleCase: true };
    }
    const messages = { seed, from: 0, to: parseWholeNumber('messages', values.messages ?? '1000000') };
    const frames = { seed, from: 0, to: parseWholeNumber('frames', values.frames ?? '100000') };
    return { messages, frames, isSingleCase: false };
  } catch (error) {
    process.stderr.write(`fuzz: ${(error as Error).message.split('. ')[0]}; see --help for all flags\n`);
    return EXIT_USAGE;
  }
}

function parseWholeNumber(name: string, value: string): number {
  if (/^\d{1,10}$/.test(value) && Number(value) < 2 ** 32) return Number(value);
  throw new Error(`--${name} ${value}: must be a whole number from 0 to ${2 ** 32 - 1}`);
}
