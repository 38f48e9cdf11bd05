/** Runs a program to its end, guarded, with all it says collected. */
import { once } from 'node:events';
import { killGroup, spawnGuarded } from './process-supervisor.ts';

/** The exit code of the shell that starts each program when there is no such program. */
export const COMMAND_NOT_FOUND = 127;

/** How a program ended. */
export interface RunResult {
  /** The exit code; COMMAND_NOT_FOUND when there is no such program; undefined when a signal ended it. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run it. */
export interface RunOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** What the program reads on stdin; nothing by default. */
  readonly input?: string;
  /** After so long the program is killed; no limit by default. */
  readonly timeoutMs?: number;
  /** Called with each whole line of stderr as it comes. */
  readonly onStderrLine?: (line: string) => void;
}

/** Runs `command` and gives its output and exit code. Rejects only when it ran into `timeoutMs`. */
export async function run(command: string, args: readonly string[], options: RunOptions): Promise<RunResult> {
  const child = spawnGuarded(command, args, {
    cwd: options.cwd,
    env: options.env,
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  let pending = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    const lines = (pending + text).split('\n');
    pending = lines.pop() ?? '';
    for (const line of lines) options.onStderrLine?.(line);
  });
  // A program that ends without reading all its input is judged by its exit code.
  child.stdin?.on('error', () => {});
  child.stdin?.end(options.input);
  let timedOut = false;
  const timer =
    options.timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          killGroup(child);
        }, options.timeoutMs);
  // Not `exit`: output may still be in the pipes then.
  await once(child, 'close');
  clearTimeout(timer);
  if (timedOut) {
    throw new Error(
      `${command} ${args.join(' ')} did not end within ${options.timeoutMs} ms: ${stderr.trim()}`,
    );
  }
  return { code: child.exitCode ?? undefined, stdout, stderr };
}

/** The last `count` lines of a program's output that are not blank, joined to one line. */
export function lastLines(text: string, count: number): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.slice(-count).join(' | ');
}
