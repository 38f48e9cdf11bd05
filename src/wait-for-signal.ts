import { EXIT_FAILURE } from './flags.ts';

/** Resolves at the first SIGTERM or SIGINT. A second signal ends the process immediately, with exit code 1. */
export function waitForSignal(): Promise<void> {
  return new Promise((resolve) => {
    let isStopRequested = false;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (isStopRequested) process.exit(EXIT_FAILURE);
        isStopRequested = true;
        resolve();
      });
    }
  });
}
