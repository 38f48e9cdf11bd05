/** The operator as users run it: a separate process with exactly the documented permissions. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { waitForExit, killGroup, spawnGuarded } from '../../control-plane/process-supervisor.ts';
import { COMPILE_CACHE } from './compile-cache.ts';

export { OPERATOR_RBAC_RULES, TOKEN_RBAC_RULES } from '../../src/k8s/rbac-rules.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** A start takes a second of CPU, which a busy machine may not provide for a while. */
const START_DEADLINE_MS = 120_000;
/** Between two calls of what `poll` checks: most calls send a request, which costs 10 ms of CPU in several processes. */
const MIN_POLL_INTERVAL_MS = 25;
const MAX_POLL_INTERVAL_MS = 250;
/** The interval grows with the time that has passed, so that the result is late by a twentieth of it. */
const POLL_INTERVAL_GROWTH = 0.05;

/** How to start an operator. */
export interface OperatorProcessOptions {
  readonly kubeconfigPath: string;
  readonly namespace: string;
  /** Additional flags, which override the defaults. Default ports are free loopback ports. */
  readonly flags?: readonly string[];
  /** The program for Node. Default: the source, so that tests need no build. */
  readonly main?: 'src/main.ts' | 'dist/main.js';
  /** Node flags, for example `--expose-gc`. */
  readonly nodeFlags?: readonly string[];
  /** Offset of its wall clock from the machine's. Default 0. */
  readonly clockAheadMs?: number;
}

/** A log line. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly level: string; readonly msg: string };

/** A running operator, seen from outside. */
export type OperatorProcess = Awaited<ReturnType<typeof startOperatorProcess>>;

/** Starts the operator from source. Resolves when it serves, which may be before it is ready. */
export async function startOperatorProcess(options: OperatorProcessOptions) {
  const { nodeFlags = [], main = 'src/main.ts', clockAheadMs = 0 } = options;
  const operator = await startServing(
    [
      ...['--auth', 'insecure', '--kubeconfig', options.kubeconfigPath, '--namespace', options.namespace],
      ...['--grpc-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0'],
      ...(options.flags ?? []),
    ],
    [...nodeFlags, ...clockShiftFlags(clockAheadMs), main],
  );
  const { child, serving, httpAddress } = operator;
  return {
    /** The addresses that it listens on. */
    grpcAddress: String(serving['grpcAddress']),
    httpAddress,
    /** The name under which it owns reporters. */
    replica: String(serving['replica']),
    pid: child.pid ?? 0,
    /** Log lines so far. */
    log: operator.log,
    /** Output on stderr so far; empty unless it crashes. */
    get stderr() {
      return operator.stderr();
    },
    /** Resolves when /readyz succeeds. */
    async ready() {
      const isReady = async (): Promise<true | undefined> =>
        (await fetch(`http://${httpAddress}/readyz`)).ok || undefined;
      await poll(START_DEADLINE_MS, isReady);
    },
    /**
     * Returns the value of a series, for example `reverse_tunnel_acks_total` or `x_total{kind="full"}`; 0 when it
     * does not exist.
     */
    async metric(series: string): Promise<number> {
      const lines = (await operator.metrics()).split('\n');
      const line = lines.find((candidate) => candidate.startsWith(`${series} `));
      if (line === undefined && lines.some((candidate) => candidate.startsWith(`${series}{`)))
        throw new Error(`${series} has labels`);
      return line === undefined ? 0 : Number(line.slice(series.length + 1));
    },
    /** Sends a signal, including SIGSTOP and SIGCONT. */
    signal: (signal: NodeJS.Signals): void => void child.kill(signal),
    stop: operator.stop,
    kill: operator.kill,
  };
}

/**
 * Starts a server of the command line, and resolves when it logs the addresses on which it serves.
 *
 * @param program flags and program for Node
 */
export async function startServing(args: readonly string[], program: readonly string[]) {
  const run = runProgram(args, program);
  const { child, log } = run;
  const kill = async (): Promise<void> => {
    killGroup(child);
    await waitForExit(child);
  };
  const serving = await poll(START_DEADLINE_MS, () => {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`start ${program.at(-1)}: exit code ${child.exitCode}: ${run.stderr()}`);
    return log.find(({ msg }) => msg === 'serving');
  }).catch(async (error: unknown) => {
    await kill();
    throw error;
  });
  const httpAddress = String(serving['httpAddress']);
  return {
    ...run,
    serving,
    httpAddress,
    /** Returns the text of /metrics. */
    metrics: async (): Promise<string> => await (await fetch(`http://${httpAddress}/metrics`)).text(),
    /** Sends SIGTERM and returns the exit code. */
    stop: async (): Promise<number | null> => {
      child.kill('SIGTERM');
      await waitForExit(child);
      return child.exitCode;
    },
    /** Sends SIGKILL and waits for the exit. */
    kill,
  };
}

/** Runs the operator's command line to completion, for tests of invalid flags. */
export async function runOperatorToExit(args: readonly string[]): Promise<{
  readonly code: number | null;
  readonly stderr: string;
  readonly log: readonly LogLine[];
}> {
  const { child, log, stderr } = runProgram(args);
  await waitForExit(child);
  return { code: child.exitCode, stderr: stderr(), log };
}

/** Runs a program of Node with a clean environment. */
function runProgram(args: readonly string[], program: readonly string[] = ['src/main.ts']) {
  const child: ChildProcess = spawnGuarded(process.execPath, [...program, ...args], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...COMPILE_CACHE },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log: LogLine[] = [];
  let stderr = '';
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on('line', (line) => {
      log.push(line.startsWith('{') ? (JSON.parse(line) as LogLine) : { level: 'text', msg: line });
    });
  }
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return { child, log: log as readonly LogLine[], stderr: () => stderr };
}

/** Returns Node flags that shift the process's wall clock. */
function clockShiftFlags(aheadMs: number): string[] {
  if (aheadMs === 0) return [];
  const shift = `const now = Date.now; Date.now = () => now() + ${aheadMs};`;
  return ['--import', `data:text/javascript,${encodeURIComponent(shift)}`];
}

/** Calls `check` until it returns a value, at first every 25 ms; rejects at the deadline. */
export async function poll<T>(
  deadlineMs: number,
  check: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const startedMs = performance.now();
  for (;;) {
    const answer = await check();
    if (answer !== undefined) return answer;
    const passedMs = performance.now() - startedMs;
    if (passedMs > deadlineMs) throw new Error(`no result within ${deadlineMs} ms`);
    await delay(Math.min(MIN_POLL_INTERVAL_MS + POLL_INTERVAL_GROWTH * passedMs, MAX_POLL_INTERVAL_MS));
  }
}
