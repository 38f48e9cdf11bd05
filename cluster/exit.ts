/** How the commands of the cluster end. */
import { constants } from 'node:os';

export const EXIT_FAILURE = 1;
export const EXIT_USAGE = 2;

/** Returns the exit code with which a shell reports the end by a signal. */
export function signalExitCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

/** From now on, SIGINT and SIGTERM run `action` before this process exits. */
export function exitOnSignals(action: () => Promise<unknown>): void {
  const interrupt = (signal: NodeJS.Signals): void => {
    void action().finally(() => process.exit(signalExitCode(signal)));
  };
  process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
}
