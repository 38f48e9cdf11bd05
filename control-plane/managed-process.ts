/** One program of the control plane, which can be started, stopped, killed and paused. */
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { BinaryName } from './binaries.ts';
import { ControlPlaneError } from './errors.ts';
import { waitForExit, killGroup, spawnGuarded } from './process-supervisor.ts';
import { lastLines } from './run.ts';

/** From the start until healthy. Usually 2 s, but much longer on a machine that compiles at the same time. */
const START_DEADLINE_MS = 60_000;
const HEALTH_POLL_MS = 50;
/** Lines of the program's log that the error of a failed start contains. */
const LOG_LINES = 5;

/** A program of the control plane, with fault injection for tests. A restart keeps its ports and data. */
export interface ControlPlaneProcess {
  readonly name: BinaryName;
  /** The output of the program on stdout and stderr, of all its starts. */
  readonly logFile: string;
  /** The process ID of the program; undefined while it is not running. */
  readonly pid: number | undefined;
  /** Sends the signal and waits for the exit. SIGTERM may take a minute while watches are open. */
  kill(signal?: 'SIGKILL' | 'SIGTERM' | 'SIGINT'): Promise<void>;
  /** Starts the program and waits until it is healthy. Does nothing while it is running. */
  start(): Promise<void>;
  /** Pauses the program (SIGSTOP): connections stay open, and requests get no response. */
  pause(): void;
  /** Resumes a paused program (SIGCONT). */
  resume(): void;
}

/** How to run a program. */
export interface ProcessDefinition {
  readonly name: BinaryName;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly logFile: string;
  /** Resolves to true once the program serves; false or a rejection means not yet. */
  readonly healthy: () => Promise<boolean>;
  /** Called when the program exits without `kill`. */
  readonly onUnexpectedExit: (error: ControlPlaneError) => void;
}

/** Creates the handle of a program without starting it. */
export function createManagedProcess(definition: ProcessDefinition): ControlPlaneProcess {
  const { name, logFile } = definition;
  let child: ChildProcess | undefined;
  let ready = false;

  /** Starts the program with its output appended to the log. */
  const launch = (): ChildProcess => {
    const log = openSync(logFile, 'a', 0o600);
    const started = spawnGuarded(definition.command, definition.args, {
      cwd: definition.cwd,
      // The user's environment, with its proxies and KUBECONFIG, must not affect the program.
      env: { PATH: process.env['PATH'], HOME: definition.cwd, TMPDIR: definition.cwd },
      stdio: ['ignore', log, log],
    });
    // The child has its own file descriptor.
    closeSync(log);
    started.once('exit', (code, signal) => {
      // `kill` clears `child` first, so a requested exit is not reported.
      if (child !== started) return;
      child = undefined;
      // During the start, `start` throws instead.
      if (!ready) return;
      void describe(`exited unexpectedly (${signal ?? `code ${code}`})`).then(definition.onUnexpectedExit);
    });
    return started;
  };

  /** Returns an error with the name of the program, what happened to it, and the end of its log. */
  const describe = async (what: string): Promise<ControlPlaneError> => {
    const log = await readFile(logFile, 'utf8').catch(() => '');
    return new ControlPlaneError(`${name} ${what}; end of its log: ${lastLines(log, LOG_LINES)}`);
  };

  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    const running = child;
    if (running === undefined) return;
    child = undefined;
    // SIGKILL for the group also ends a paused program; any other signal is for the program, not for its watchdog.
    if (signal === 'SIGKILL') killGroup(running);
    else running.kill(signal);
    await waitForExit(running);
  };

  const signal = (which: NodeJS.Signals): void => {
    if (child === undefined) throw new ControlPlaneError(`cannot send ${which} to ${name}: not running`);
    child.kill(which);
  };

  return {
    name,
    logFile,
    get pid() {
      return child?.pid;
    },
    kill,
    async start() {
      if (child !== undefined) return;
      ready = false;
      const started = launch();
      child = started;
      const deadlineMs = performance.now() + START_DEADLINE_MS;
      while (!(await definition.healthy().catch(() => false))) {
        if (child !== started) throw await describe('exited before it was ready');
        if (performance.now() > deadlineMs) {
          await kill();
          throw await describe(`was not ready within ${START_DEADLINE_MS / 1000} s`);
        }
        await delay(HEALTH_POLL_MS);
      }
      ready = true;
    },
    pause: () => signal('SIGSTOP'),
    resume: () => signal('SIGCONT'),
  };
}
