/** Runs a supervised program until it exits, and collects its output. */
import { once } from 'node:events';
import { ControlPlaneError } from './errors.ts';
import { killGroup, spawnGuarded } from './process-supervisor.ts';

/** The exit code of a shell if the program does not exist. */
export const COMMAND_NOT_FOUND = 127;

/** The result of a program. */
export interface RunResult {
  /** The exit code; COMMAND_NOT_FOUND if the program does not exist; undefined if a signal ended it. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

/** How to run a program. */
export interface RunOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Written to stdin. Default: nothing. */
  readonly input?: string;
  /** The program is killed after this time. Default: no limit. */
  readonly timeoutMs?: number;
  /** Called with each complete line of stderr. */
  readonly onStderrLine?: (line: string) => void;
}

/**
 * Runs `command` and returns its output and exit code.
 *
 * @throws ControlPlaneError after `timeoutMs`, with the last two lines of stderr
 */
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
  // A program may exit without reading all of its input; only its exit code matters.
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
  // Not `exit`, because output may still be in the pipes then.
  await once(child, 'close');
  clearTimeout(timer);
  if (timedOut) {
    throw new ControlPlaneError(
      `${command} ${args.join(' ')} did not exit within ${options.timeoutMs} ms: ${lastLines(stderr, 2)}`,
    );
  }
  return { code: child.exitCode ?? undefined, stdout, stderr };
}

/** Returns the last `count` lines of the output that are not blank, joined to one line. */
export function lastLines(text: string, count: number): string {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  return lines.slice(-count).join(' | ');
}
