/** One program of the control plane: started until healthy, and stopped, killed or frozen at will. */
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { BinaryName } from './binaries.ts';
import { ControlPlaneError } from './errors.ts';
import { waitForExit, killGroup, spawnGuarded } from './process-supervisor.ts';
import { lastLines } from './run.ts';

/** From start to healthy. Two seconds are usual; a machine that compiles at the same time needs many more. */
const START_DEADLINE_MS = 60_000;
const HEALTH_POLL_MS = 50;
/** Lines of the program's log that a failed start repeats. */
const LOG_LINES = 5;

/** A running program of the control plane, for tests that hurt it. It comes back on the same ports and data. */
export interface ControlPlaneProcess {
  readonly name: BinaryName;
  /** All that the program has written to stdout and stderr, over all its starts. */
  readonly logFile: string;
  /** The program's own process id; undefined while it does not run. */
  readonly pid: number | undefined;
  /** Sends the signal and returns when the program has ended. SIGTERM may take a minute while watches are open. */
  kill(signal?: 'SIGKILL' | 'SIGTERM' | 'SIGINT'): Promise<void>;
  /** Starts it again, and returns when it is healthy. Does nothing while it runs. */
  start(): Promise<void>;
  /** Freezes it (SIGSTOP): connections stay open and nothing is answered. */
  pause(): void;
  /** Lets a frozen program go on (SIGCONT). */
  resume(): void;
}

/** What there is to know of a program to run it. */
export interface ProcessDefinition {
  readonly name: BinaryName;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly logFile: string;
  /** True once the program serves; false or a rejection: ask again. */
  readonly healthy: () => Promise<boolean>;
  /** Told when the program ends without `kill`. */
  readonly onUnexpectedExit: (error: ControlPlaneError) => void;
}

/** Makes the handle of a program that is not yet started. */
export function createManagedProcess(definition: ProcessDefinition): ControlPlaneProcess {
  const { name, logFile } = definition;
  let child: ChildProcess | undefined;
  let ready = false;

  /** Starts the program with its output appended to the log. */
  const launch = (): ChildProcess => {
    const log = openSync(logFile, 'a', 0o600);
    const started = spawnGuarded(definition.command, definition.args, {
      cwd: definition.cwd,
      // Nothing of the user's environment: proxies and KUBECONFIG are not for these.
      env: { PATH: process.env['PATH'], HOME: definition.cwd, TMPDIR: definition.cwd },
      stdio: ['ignore', log, log],
    });
    // The child has its own copy.
    closeSync(log);
    started.once('exit', (code, signal) => {
      // `kill` forgets the child first, so an end that was asked for is not reported.
      if (child !== started) return;
      child = undefined;
      // While it starts, `start` says so.
      if (!ready) return;
      void describe(`ended by itself (${signal ?? `code ${code}`})`).then(definition.onUnexpectedExit);
    });
    return started;
  };

  /** An error that names the program, what happened to it, and the last it said. */
  const describe = async (what: string): Promise<ControlPlaneError> => {
    const log = await readFile(logFile, 'utf8').catch(() => '');
    return new ControlPlaneError(`${name} ${what}. The end of its log: ${lastLines(log, LOG_LINES)}`);
  };

  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    const running = child;
    if (running === undefined) return;
    child = undefined;
    // The group's SIGKILL also ends a frozen program; a softer signal is for the program alone, not its watcher.
    if (signal === 'SIGKILL') killGroup(running);
    else running.kill(signal);
    await waitForExit(running);
  };

  const signal = (which: NodeJS.Signals): void => {
    if (child === undefined) throw new ControlPlaneError(`${name} does not run, so it gets no ${which}.`);
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
        if (child !== started) throw await describe('ended before it was ready');
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
