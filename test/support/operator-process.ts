/** The operator as users run it: a separate process with exactly the documented permissions. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { waitForExit, killGroup, spawnGuarded } from '../../control-plane/process-supervisor.ts';

export { OPERATOR_RBAC_RULES, TOKEN_RBAC_RULES } from '../../src/k8s/rbac-rules.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** A start takes a second of CPU, which a busy machine may not provide for a while. */
const START_DEADLINE_MS = 120_000;
const POLL_INTERVAL_MS = 25;

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
export interface OperatorProcess {
  /** The addresses that it listens on. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** The name under which it owns reporters. */
  readonly replica: string;
  readonly pid: number;
  /** Log lines so far. */
  readonly log: readonly LogLine[];
  /** Output on stderr so far; empty unless it crashes. */
  readonly stderr: string;
  /** Resolves when /readyz succeeds. */
  ready(): Promise<void>;
  /**
   * Returns the value of a series, for example `reverse_tunnel_acks_total` or `x_total{kind="full"}`; 0 when it
   * does not exist.
   */
  metric(series: string): Promise<number>;
  /** Sends a signal, including SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void;
  /** Sends SIGTERM and returns the exit code. */
  stop(): Promise<number | null>;
  /** Sends SIGKILL and waits for the exit. */
  kill(): Promise<void>;
}

/** Starts the operator from source. Resolves when it serves, which may be before it is ready. */
export async function startOperatorProcess(options: OperatorProcessOptions): Promise<OperatorProcess> {
  const { nodeFlags = [], main = 'src/main.ts', clockAheadMs = 0 } = options;
  const run = runOperator(
    [
      ...['--auth', 'insecure', '--kubeconfig', options.kubeconfigPath, '--namespace', options.namespace],
      ...['--grpc-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0'],
      ...(options.flags ?? []),
    ],
    [...nodeFlags, ...clockShiftFlags(clockAheadMs), main],
  );
  const { child, log } = run;
  const serving = await poll(START_DEADLINE_MS, () => {
    if (child.exitCode !== null || child.signalCode !== null) {
      throw new Error(`the operator exited with code ${child.exitCode} before it served: ${run.stderr()}`);
    }
    return log.find(({ msg }) => msg === 'serving');
  }).catch((error: unknown) => {
    killGroup(child);
    throw error;
  });
  const httpAddress = String(serving['httpAddress']);
  return {
    grpcAddress: String(serving['grpcAddress']),
    httpAddress,
    replica: String(serving['replica']),
    pid: child.pid ?? 0,
    log,
    get stderr() {
      return run.stderr();
    },
    async ready() {
      await poll(
        START_DEADLINE_MS,
        async () => (await fetch(`http://${httpAddress}/readyz`)).ok || undefined,
      );
    },
    async metric(series) {
      const text = await (await fetch(`http://${httpAddress}/metrics`)).text();
      const lines = text.split('\n');
      const line = lines.find((candidate) => candidate.startsWith(`${series} `));
      if (line === undefined && lines.some((candidate) => candidate.startsWith(`${series}{`)))
        throw new Error(`${series} has labels`);
      return line === undefined ? 0 : Number(line.slice(series.length + 1));
    },
    signal: (signal) => void child.kill(signal),
    async stop() {
      child.kill('SIGTERM');
      await waitForExit(child);
      return child.exitCode;
    },
    async kill() {
      killGroup(child);
      await waitForExit(child);
    },
  };
}

/** Runs the operator's command line to completion, for tests of invalid flags. */
export async function runOperatorToExit(args: readonly string[]): Promise<{
  readonly code: number | null;
  readonly stderr: string;
  readonly log: readonly LogLine[];
}> {
  const { child, log, stderr } = runOperator(args);
  await waitForExit(child);
  return { code: child.exitCode, stderr: stderr(), log };
}

function runOperator(
  args: readonly string[],
  program: readonly string[] = ['src/main.ts'],
): { child: ChildProcess; log: LogLine[]; stderr: () => string } {
  const child = spawnGuarded(process.execPath, [...program, ...args], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'] },
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
  return { child, log, stderr: () => stderr };
}

/** Returns Node flags that shift the process's wall clock. */
function clockShiftFlags(aheadMs: number): string[] {
  if (aheadMs === 0) return [];
  const shift = `const now = Date.now; Date.now = () => now() + ${aheadMs};`;
  return ['--import', `data:text/javascript,${encodeURIComponent(shift)}`];
}

/** Calls `check` until it returns a value; rejects at the deadline. */
export async function poll<T>(
  deadlineMs: number,
  check: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const untilMs = performance.now() + deadlineMs;
  for (;;) {
    const answer = await check();
    if (answer !== undefined) return answer;
    if (performance.now() > untilMs) throw new Error(`no result within ${deadlineMs} ms`);
    await delay(POLL_INTERVAL_MS);
  }
}
