/** The agent as users run it: a process of its own. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { killGroup, spawnGuarded, waitForExit } from '../../control-plane/process-supervisor.ts';
import { eventually } from './eventually.ts';
import type { LogLine } from './operator-process.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
/** A start takes a fraction of a second of CPU, of which a busy machine may give little. */
const START_DEADLINE_MS = 60_000;

/** A running agent. */
export interface AgentProcess extends AsyncDisposable {
  readonly log: readonly LogLine[];
  readonly pid: number;
  /** Returns the body of /readyz without its line break. */
  readiness(): Promise<string>;
  /** Returns the text of /metrics. */
  metrics(): Promise<string>;
  /** Sends SIGTERM and returns the exit code. */
  stop(): Promise<number | null>;
}

/**
 * Starts an agent. Resolves when it serves; it may not be ready by then.
 *
 * @param program flags and program for Node; by default, the source, so that tests need no build
 */
export async function startAgent(
  flags: readonly string[],
  program: readonly string[] = ['src/main.ts'],
): Promise<AgentProcess> {
  const child: ChildProcess = spawnGuarded(
    process.execPath,
    [...program, 'agent', '--http-address', '127.0.0.1:0', ...flags],
    {
      cwd: ROOT,
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'] },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const log: LogLine[] = [];
  let stderr = '';
  if (child.stdout !== null) {
    createInterface({ input: child.stdout }).on('line', (line) => log.push(JSON.parse(line) as LogLine));
  }
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const dispose = async (): Promise<void> => {
    killGroup(child);
    await waitForExit(child);
  };
  let httpAddress = '';
  try {
    await eventually(
      'the agent serves',
      () => {
        if (child.exitCode !== null)
          throw new Error(`the agent ended with code ${child.exitCode}: ${stderr}`);
        const serving = log.find(({ msg }) => msg === 'serving')?.['httpAddress'];
        if (typeof serving === 'string') httpAddress = serving;
        return httpAddress !== '';
      },
      START_DEADLINE_MS,
    );
  } catch (error) {
    await dispose();
    throw error;
  }
  return {
    log,
    pid: child.pid ?? 0,
    readiness: async () => (await (await fetch(`http://${httpAddress}/readyz`)).text()).trim(),
    metrics: async () => await (await fetch(`http://${httpAddress}/metrics`)).text(),
    async stop() {
      child.kill('SIGTERM');
      await waitForExit(child);
      return child.exitCode;
    },
    [Symbol.asyncDispose]: dispose,
  };
}
