/** The operator as users run it: a process of its own, with the rights that it is documented to need and no more. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { waitForExit, killGroup, spawnGuarded } from '../../control-plane/process-supervisor.ts';

export { OPERATOR_RBAC_RULES, TOKEN_RBAC_RULES } from '../../src/k8s/rbac-rules.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** A start takes a second of CPU, of which a busy machine may give little. */
const START_DEADLINE_MS = 120_000;
const POLL_INTERVAL_MS = 25;

/** How an operator is started. */
export interface OperatorProcessOptions {
  readonly kubeconfigPath: string;
  readonly namespace: string;
  /** More flags; they win. Ports are free ones of loopback by default. */
  readonly flags?: readonly string[];
  /** What Node runs. Default: the source, so that a test needs no build. */
  readonly main?: 'src/main.ts' | 'dist/main.js';
  /** Flags of Node, as `--expose-gc`. */
  readonly nodeFlags?: readonly string[];
  /** How far its wall clock is ahead of the machine's. Default 0. */
  readonly clockAheadMs?: number;
}

/** A line of its log. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly level: string; readonly msg: string };

/** An operator that runs, as one sees it from outside. */
export interface OperatorProcess {
  /** The addresses that it bound. */
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** How it calls itself as an owner. */
  readonly replica: string;
  readonly pid: number;
  /** What it has logged so far. */
  readonly log: readonly LogLine[];
  /** What it has said on stderr so far: nothing, unless it crashes. */
  readonly stderr: string;
  /** Resolves when /readyz says so. */
  ready(): Promise<void>;
  /** The value of one series, as `reverse_tunnel_acks_total` or `x_total{kind="full"}`; 0 when it is not there. */
  metric(series: string): Promise<number>;
  /** Sends a signal; SIGSTOP and SIGCONT too. */
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM, then the exit code once it has ended. */
  stop(): Promise<number | null>;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<void>;
}

/** Starts the operator from source and resolves when it serves; it may not be ready by then. */
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
      throw new Error(`the operator ended (${child.exitCode}) before it served: ${run.stderr()}`);
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
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${series} `));
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

/** Runs the operator's command line to its end: for what it says to wrong flags. */
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

/** Flags of Node that set the process's wall clock ahead. */
function clockShiftFlags(aheadMs: number): string[] {
  if (aheadMs === 0) return [];
  const shift = `const now = Date.now; Date.now = () => now() + ${aheadMs};`;
  return ['--import', `data:text/javascript,${encodeURIComponent(shift)}`];
}

/** Asks until there is an answer, or throws at the deadline. */
export async function poll<T>(
  deadlineMs: number,
  ask: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const untilMs = performance.now() + deadlineMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > untilMs) throw new Error(`nothing within ${deadlineMs} ms`);
    await delay(POLL_INTERVAL_MS);
  }
}
