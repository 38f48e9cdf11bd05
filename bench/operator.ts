/** The operator as users run it: compiled, as a separate process, with the token and permissions of a ServiceAccount. */
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { readShebang } from '../build/shebang.ts';
import { waitForExit, killGroup, spawnGuarded } from '../control-plane/process-supervisor.ts';
import { machineMs } from './machine.ts';
import type { Access } from './cluster.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const MAIN = 'dist/main.js';
const START_TIMEOUT_MS = 60_000;
/** The maximum error of the time of readiness. A poll costs the operator about 0.1 ms of CPU. */
const POLL_INTERVAL_MS = 10;

export interface OperatorOptions {
  readonly access: Access;
  /** Additional flags of the operator; they take precedence. */
  readonly flags?: readonly string[];
  /** Flags of Node, such as `--inspect=127.0.0.1:0`. */
  readonly nodeFlags?: readonly string[];
}

export interface Operator extends AsyncDisposable {
  readonly pid: number;
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** The URL of Node's inspector; undefined unless a flag enables it. */
  readonly inspectorUrl: string | undefined;
  /** The machine time at which the process was started. */
  readonly startedMs: number;
  /** Resolves with the machine time of the first successful request to /readyz. */
  ready(): Promise<number>;
  /** Returns the value of a series in /metrics, or 0 if there is no such series. */
  metric(series: string): Promise<number>;
  /** Sends SIGTERM and waits for the exit. */
  stop(): Promise<void>;
}

/** Starts the operator; it serves reporters when this resolves, but may not be ready yet. */
export async function startOperator({ access, flags, nodeFlags }: OperatorOptions): Promise<Operator> {
  const [program = '', ...args] = operatorCommand(nodeFlags);
  const startedMs = machineMs();
  const child = spawnGuarded(
    program,
    [
      ...args,
      ...['--auth', 'insecure', '--kubeconfig', access.kubeconfigPath, '--namespace', access.namespace],
      ...['--grpc-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0'],
      ...(flags ?? []),
    ],
    {
      cwd: ROOT,
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        ...Object.fromEntries(operatorVariables().map((variable) => variable.split('=', 2))),
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const { stdout, stderr, pid } = child;
  if (stdout === null || stderr === null || pid === undefined) throw new Error('start operator: no process');
  let stderrText = '';
  stderr.setEncoding('utf8').on('data', (text: string) => (stderrText += text));
  const serving = Promise.withResolvers<{ grpcAddress: string; httpAddress: string }>();
  createInterface({ input: stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return;
    const entry = JSON.parse(line) as { msg: string; grpcAddress: string; httpAddress: string };
    if (entry.msg === 'serving') serving.resolve(entry);
  });
  child.once('exit', (code) =>
    serving.reject(new Error(`operator exited (${code}) before it was serving: ${errorLine(stderrText)}`)),
  );
  const timeout = setTimeout(() => {
    killGroup(child);
    serving.reject(new Error(`operator not serving after ${START_TIMEOUT_MS / 1000} s`));
  }, START_TIMEOUT_MS);
  const { grpcAddress, httpAddress } = await serving.promise.finally(() => clearTimeout(timeout));

  async function stop(): Promise<void> {
    child.kill('SIGTERM');
    await waitForExit(child);
  }

  return {
    pid,
    grpcAddress,
    httpAddress,
    inspectorUrl: /ws:\/\/\S+/.exec(stderrText)?.[0],
    startedMs,
    async ready() {
      const untilMs = startedMs + START_TIMEOUT_MS;
      while (!(await fetch(`http://${httpAddress}/readyz`)).ok) {
        if (machineMs() > untilMs) throw new Error(`operator not ready after ${START_TIMEOUT_MS / 1000} s`);
        await delay(POLL_INTERVAL_MS);
      }
      return machineMs();
    },
    async metric(series) {
      const text = await (await fetch(`http://${httpAddress}/metrics`)).text();
      const line = text.split('\n').find((candidate) => candidate.startsWith(`${series} `));
      return line === undefined ? 0 : Number(line.slice(series.length + 1));
    },
    stop,
    async [Symbol.asyncDispose]() {
      // SIGKILL is sufficient, because the control plane is removed too.
      killGroup(child);
      await waitForExit(child);
    },
  };
}

/** Returns the line with the error message, also of a stack trace. */
function errorLine(text: string): string {
  const lines = text.trim().split('\n');
  return lines.find((line) => /^(reverse-tunnel-operator:|\w*Error\b)/.test(line)) ?? lines[0] ?? '';
}

/**
 * Returns the command that starts the compiled operator from any folder, without its flags.
 *
 * @throws Error if it has not been compiled
 */
export function operatorCommand(nodeFlags: readonly string[] = []): readonly string[] {
  if (!existsSync(`${ROOT}${MAIN}`)) throw new Error(`${MAIN} does not exist: run \`npm run build\` first`);
  return [process.execPath, ...readShebang(`${ROOT}${MAIN}`).nodeFlags, ...nodeFlags, `${ROOT}${MAIN}`];
}

/** Returns the environment variables that the operator is started with, in addition to those of the machine, as `NAME=value`. */
export function operatorVariables(): readonly string[] {
  return readShebang(`${ROOT}${MAIN}`).variables;
}
