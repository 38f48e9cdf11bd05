/** Starts the victim process and queries its state. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { VictimOptions, VictimState } from './victim.ts';

const FILE = new URL('victim.ts', import.meta.url).pathname;

/** The reporting service in a process of its own. */
export type Victim = Awaited<ReturnType<typeof startVictim>>;

/** Starts a victim. @param descriptors limit on open files and sockets */
export async function startVictim(options: VictimOptions = {}, descriptors?: number) {
  const limited = descriptors === undefined ? '' : `ulimit -n ${descriptors} && `;
  const command = `${limited}exec "$0" --expose-gc "$1" "$2"`;
  // The process ends with this one, however this one ends, because the channel to it closes.
  const child = spawn('/bin/sh', ['-c', command, process.execPath, FILE, JSON.stringify(options)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let endReason: string | undefined;
  child.once('exit', (code, signal) => {
    endReason = `the server's process has ended (${signal ?? code})`;
  });
  const nextState = async (): Promise<VictimState> => {
    const answered = new AbortController();
    const { signal } = answered;
    try {
      const response = Promise.race([once(child, 'message', { signal }), once(child, 'exit', { signal })]);
      const [message] = (await response) as [VictimState | number];
      if (endReason !== undefined || typeof message !== 'object')
        throw new Error(endReason ?? 'the process is ending');
      return message;
    } finally {
      answered.abort();
    }
  };
  const { address } = await nextState();
  return {
    address,
    pid: child.pid ?? 0,
    /** Returns the current state. Rejects when the process has ended. */
    async state(): Promise<VictimState> {
      if (endReason !== undefined) throw new Error(endReason);
      child.send('report your state');
      return nextState();
    },
    async [Symbol.asyncDispose]() {
      // A crashed process may have closed the channel before its exit is reported.
      if (child.connected) child.disconnect();
      if (endReason === undefined) await once(child, 'exit');
    },
  };
}
