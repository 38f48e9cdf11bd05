import { readFileSync } from 'node:fs';
import { EXIT_FAILURE } from './flags.ts';

/**
 * Resolves at the first SIGTERM, SIGINT or SIGHUP (a terminal that is closed). A second signal ends the process
 * immediately, with exit code 1. Under nohup, SIGHUP is ignored.
 */
export function waitForSignal(): Promise<void> {
  const signals: NodeJS.Signals[] = ['SIGTERM', 'SIGINT', ...(isHangupIgnored() ? [] : ['SIGHUP' as const])];
  return new Promise((resolve) => {
    let isStopRequested = false;
    for (const signal of signals) {
      process.on(signal, () => {
        if (isStopRequested) process.exit(EXIT_FAILURE);
        isStopRequested = true;
        resolve();
      });
    }
  });
}

/** Reads the mask of ignored signals, in which SIGHUP is the first bit. False outside of Linux. */
function isHangupIgnored(): boolean {
  try {
    const [, mask = '0'] = /^SigIgn:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
    return (BigInt(`0x${mask}`) & 1n) === 1n;
  } catch {
    return false;
  }
}
