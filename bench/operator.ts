/** The operator as users run it: compiled, a process of its own, with a ServiceAccount's token and rights. */
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { waitForExit, killGroup, spawnGuarded } from '../control-plane/process-supervisor.ts';
import { machineMs } from './machine.ts';
import type { Access } from './cluster.ts';

const ROOT = new URL('..', import.meta.url).pathname;
const MAIN = 'dist/main.js';
const START_TIMEOUT_MS = 60_000;
/** A poll costs the operator some 0.1 ms of CPU, and a ready operator is noticed this much late at most. */
const POLL_INTERVAL_MS = 10;

export interface OperatorOptions {
  readonly access: Access;
  /** More flags of the operator; they win. */
  readonly flags?: readonly string[];
  /** Flags of Node, as `--inspect=127.0.0.1:0`. */
  readonly nodeFlags?: readonly string[];
}

export interface Operator extends AsyncDisposable {
  readonly pid: number;
  readonly grpcAddress: string;
  readonly httpAddress: string;
  /** Where Node's inspector listens, when it was started with it. */
  readonly inspectorUrl: string | undefined;
  /** When the process was started, in the machine's time. */
  readonly startedMs: number;
  /** Resolves with the machine's time at which /readyz was first seen to say so. */
  ready(): Promise<number>;
  /** One series of /metrics, as `workqueue_depth`; 0 when it is not there. */
  metric(series: string): Promise<number>;
  /** SIGTERM, then waits for the end. */
  stop(): Promise<void>;
}

/** Starts the operator; it serves reporters when this resolves, and may not be ready yet. */
export async function startOperator({ access, flags, nodeFlags }: OperatorOptions): Promise<Operator> {
  if (!existsSync(`${ROOT}${MAIN}`)) throw new Error(`there is no ${MAIN}: run \`npm run build\` first`);
  const startedMs = machineMs();
  const child = spawnGuarded(
    process.execPath,
    [
      ...shebangNodeFlags(),
      ...(nodeFlags ?? []),
      MAIN,
      ...['--auth', 'insecure', '--kubeconfig', access.kubeconfigPath, '--namespace', access.namespace],
      ...['--grpc-address', '127.0.0.1:0', '--http-address', '127.0.0.1:0'],
      ...(flags ?? []),
    ],
    {
      cwd: ROOT,
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'] },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const { stdout, stderr, pid } = child;
  if (stdout === null || stderr === null || pid === undefined) throw new Error('the operator did not start');
  let stderrText = '';
  stderr.setEncoding('utf8').on('data', (text: string) => (stderrText += text));
  const serving = Promise.withResolvers<{ grpcAddress: string; httpAddress: string }>();
  createInterface({ input: stdout }).on('line', (line) => {
    if (!line.startsWith('{')) return;
    const entry = JSON.parse(line) as { msg: string; grpcAddress: string; httpAddress: string };
    if (entry.msg === 'serving') serving.resolve(entry);
  });
  child.once('exit', (code) =>
    serving.reject(new Error(`the operator ended (${code}) before it served: ${errorLine(stderrText)}`)),
  );
  const timeout = setTimeout(() => {
    killGroup(child);
    serving.reject(new Error(`the operator does not serve after ${START_TIMEOUT_MS / 1000} s`));
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
        if (machineMs() > untilMs)
          throw new Error(`the operator is not ready after ${START_TIMEOUT_MS / 1000} s`);
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
      // What is left of it writes into a control plane that goes, too.
      killGroup(child);
      await waitForExit(child);
    },
  };
}

/** The line that says what went wrong, also of a stack trace. */
function errorLine(text: string): string {
  const lines = text.trim().split('\n');
  return lines.find((line) => /^(reverse-tunnel-operator:|\w*Error\b)/.test(line)) ?? lines[0] ?? '';
}

/** The flags of Node that the operator's first line asks for: it has them when it is started by its name. */
function shebangNodeFlags(): string[] {
  const [first = ''] = readFileSync(`${ROOT}${MAIN}`, 'utf8').split('\n', 1);
  return first.split(' ').filter((word) => word.startsWith('--'));
}
