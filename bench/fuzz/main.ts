/** `npm run fuzz`: mutated messages and frame sequences by the million against the running operator; see `--help`. */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { startVictim } from '../../test/support/attacks/victim-process.ts';
import { CaseError, decodeCases, type Cases } from './decode.ts';
import { MOST_GROWTH_BYTES, playCases, type LiveResult, type LiveRun } from './live.ts';
import { createCorpus } from './mutations.ts';
import { startOperatorTarget } from './operator-target.ts';
import { messagePlayer, sequencePlayer } from './players.ts';

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

const LIVE_EVERY = 10;
const DECODED_AT_ONCE = 1000;
const PROGRESS_MS = 2000;
const MIB = 1024 * 1024;
const WRONG_USE = 2;

interface Plan {
  readonly messages: Cases;
  readonly frames: Cases;
  /** One case is played by itself, without a warm-up. */
  readonly single: boolean;
}

process.exitCode = await main();

async function main(): Promise<number> {
  const plan = readPlan();
  if (typeof plan === 'number') return plan;
  const { messages, frames, single } = plan;
  console.log(`seed ${messages.seed}`);
  const warmUp = single ? 0 : 10_000;
  const ofMessages = { create: messagePlayer, start: startOperatorTarget, every: single ? 1 : LIVE_EVERY };
  const ofFrames = { create: sequencePlayer, start: () => startVictim(), every: 1 };
  const findings = [
    await found('message', messages, decodeAll),
    await found('message', messages, (cases) => playAll({ ...cases, ...ofMessages, warmUp })),
    await found('frames', frames, (cases) => playAll({ ...cases, ...ofFrames, warmUp })),
  ];
  return findings.includes(true) ? 1 : 0;
}

/** Does it, and prints what it finds, with how to see it again; true on a finding. */
async function found(
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
    const again = error instanceof CaseError ? `--seed ${error.seed} --case ${kind}:${error.index}:` : '';
    console.log(`FINDING ${again} ${error instanceof Error ? error.message : String(error)}`);
    return true;
  }
}

async function decodeAll(cases: Cases): Promise<string[]> {
  const corpus = createCorpus(cases.seed);
  const progress = startProgress('messages decoded', cases);
  const startedMs = performance.now();
  let [reports, malformed] = [0, 0];
  for (let { from } = cases; from < cases.to; from += DECODED_AT_ONCE) {
    const to = Math.min(cases.to, from + DECODED_AT_ONCE);
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

async function playAll(run: Omit<LiveRun, 'told'>): Promise<string[]> {
  const what = run.create === messagePlayer ? 'messages to the operator' : 'frame sequences to the server';
  const progress = startProgress(what, run);
  const result = await playCases({ ...run, told: progress });
  const { before, after } = result;
  const grownBytes = after.heldBytes - before.heldBytes;
  const lines = [
    `${result.played} ${what}, ${Math.round((result.played * 1000) / result.tookMs)} a second`,
    `  answers: ${answersLine(result)}`,
    `  the reporter that behaves: ${result.acks} ACKs, the slowest after ${Math.round(result.slowestAckMs)} ms`,
    ...(['before', 'loaded', 'after'] as const).map((when) => `  memory ${memoryLine(when, result)}`),
  ];
  if (grownBytes > MOST_GROWTH_BYTES) throw new Error(`memory was not given back:\n${lines.join('\n')}`);
  return lines;
}

function answersLine({ answers }: LiveResult): string {
  const sorted = [...answers].toSorted(([, a], [, b]) => b - a);
  return sorted.map(([word, times]) => `${word} ${times}`).join(', ');
}

function memoryLine(when: 'before' | 'loaded' | 'after', result: LiveResult): string {
  const { heldBytes, residentBytes } = result[when];
  return `${when}: held ${(heldBytes / MIB).toFixed(1)} MiB, RSS ${(residentBytes / MIB).toFixed(1)} MiB`;
}

/** Tells on stderr how far it is, at most every 2 s. */
function startProgress(what: string, { from, to }: Cases): (index: number) => void {
  const startedMs = performance.now();
  let toldMs = startedMs;
  return (index) => {
    if (performance.now() - toldMs < PROGRESS_MS) return;
    toldMs = performance.now();
    const seconds = Math.round((toldMs - startedMs) / 1000);
    console.error(`${what}: ${index - from} of ${to - from}, ${seconds} s`);
  };
}

function perSecond(count: number, startedMs: number): number {
  return Math.round((count * 1000) / (performance.now() - startedMs));
}

/** The exit code, where there is nothing to do. */
function readPlan(): Plan | number {
  const text = { type: 'string' } as const;
  try {
    const { values } = parseArgs({
      options: { messages: text, frames: text, seed: text, case: text, help: { type: 'boolean' } },
    });
    if (values.help === true) {
      process.stdout.write(HELP);
      return 0;
    }
    const seed = whole('seed', values.seed ?? String(randomInt(2 ** 32)));
    if (values.case !== undefined) {
      const [, kind, index] = /^(message|frames):(\d+)$/.exec(values.case) ?? [];
      if (index === undefined) throw new Error(`--case ${values.case}: must be message:N or frames:N`);
      const one = { seed, from: whole('case', index), to: Number(index) + 1 };
      const none = { seed, from: 0, to: 0 };
      return kind === 'message'
        ? { messages: one, frames: none, single: true }
        : { messages: none, frames: one, single: true };
    }
    const messages = { seed, from: 0, to: whole('messages', values.messages ?? '1000000') };
    const frames = { seed, from: 0, to: whole('frames', values.frames ?? '100000') };
    return { messages, frames, single: false };
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n${HELP}`);
    return WRONG_USE;
  }
}

function whole(name: string, value: string): number {
  if (/^\d{1,10}$/.test(value) && Number(value) < 2 ** 32) return Number(value);
  throw new Error(`--${name} ${value}: must be a whole number from 0 to ${2 ** 32 - 1}`);
}
