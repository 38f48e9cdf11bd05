/** `npm run fuzz`: mutated messages and frame sequences by the million against the running operator; see `--help`. */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { startVictim } from '../../test/support/attacks/victim-process.ts';
import { CaseError, decodeCases, type Cases } from './decode.ts';
import { MAX_GROWTH_BYTES, runCases, type LiveFuzzResult, type LiveFuzzOptions } from './live.ts';
import { createCorpus } from './mutations.ts';
import { startOperatorTarget } from './operator-target.ts';
import { createMessageDriver, createSequenceDriver } from './drivers.ts';

const HELP = `Usage: npm run fuzz -- [flags]

  --messages N   mutated reports to decode; one in ten also goes to the compiled operator, as a
                 gRPC stream, with a control plane behind it (default 1000000)
  --frames N     mutated sequences of HTTP/2 frames, each on a connection to a server process
                 (default 100000)
  --seed N       0 to 4294967295: the same seed sends the same bytes (default: a random one)
  --case KIND:N  only this one, as a finding names it: message:N or frames:N
  --help

Nothing may crash, hang, be let through against the rules, or stay in memory; a reporter that behaves
gets its ACKs all the while. Exit code: 0, 1 on a finding, 2 on wrong use.
`;

const LIVE_STRIDE = 10;
const DECODE_BATCH_SIZE = 1000;
const PROGRESS_INTERVAL_MS = 2000;
const MIB = 1024 * 1024;
const EXIT_USAGE = 2;

interface Plan {
  readonly messages: Cases;
  readonly frames: Cases;
  /** One case is played by itself, without a warm-up. */
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
    every: isSingleCase ? 1 : LIVE_STRIDE,
  };
  const frameRun = { createDriver: createSequenceDriver, startTarget: () => startVictim(), every: 1 };
  const findings = [
    await runAndReport('message', messages, decodeAll),
    await runAndReport('message', messages, (cases) => runLive({ ...cases, ...messageRun, warmUp })),
    await runAndReport('frames', frames, (cases) => runLive({ ...cases, ...frameRun, warmUp })),
  ];
  return findings.includes(true) ? 1 : 0;
}

/** Does it, and prints what it finds, with how to see it again; true on a finding. */
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
    console.log(`  ${seconds.toFixed(1)} s in all`);
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
    `${count} messages decoded, ${perSecond(count, startedMs)} a second`,
    `  ${reports} were reports, ${malformed} were refused as none`,
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
    `${result.executed} ${what}, ${Math.round((result.executed * 1000) / result.durationMs)} a second`,
    `  answers: ${formatAnswers(result)}`,
    `  the reporter that behaves: ${result.acks} ACKs, the slowest after ${Math.round(result.maxAckMs)} ms`,
    ...(['before', 'loaded', 'after'] as const).map((when) => `  memory ${formatMemory(when, result)}`),
  ];
  if (grownBytes > MAX_GROWTH_BYTES) throw new Error(`memory was not given back:\n${lines.join('\n')}`);
  return lines;
}

function formatAnswers({ answers }: LiveFuzzResult): string {
  const sorted = [...answers].toSorted(([, a], [, b]) => b - a);
  return sorted.map(([word, times]) => `${word} ${times}`).join(', ');
}

function formatMemory(when: 'before' | 'loaded' | 'after', result: LiveFuzzResult): string {
  const { usedBytes, residentBytes } = result[when];
  return `${when}: held ${(usedBytes / MIB).toFixed(1)} MiB, RSS ${(residentBytes / MIB).toFixed(1)} MiB`;
}

/** Tells on stderr how far it is, at most every 2 s. */
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

/** The exit code, where there is nothing to do. */
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
    process.stderr.write(`${(error as Error).message}\n${HELP}`);
    return EXIT_USAGE;
  }
}

function parseWholeNumber(name: string, value: string): number {
  if (/^\d{1,10}$/.test(value) && Number(value) < 2 ** 32) return Number(value);
  throw new Error(`--${name} ${value}: must be a whole number from 0 to ${2 ** 32 - 1}`);
}
