/** Starts the victim, and asks it how it is. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { VictimOptions, VictimState } from './victim.ts';

const FILE = new URL('victim.ts', import.meta.url).pathname;

/** The reporting service in a process of its own, to be attacked. */
export interface Victim extends AsyncDisposable {
  readonly address: string;
  readonly pid: number;
  /** How it is now. Rejects when it has ended. */
  state(): Promise<VictimState>;
}

/** @param descriptors how many files and sockets it may have open, where that is to be few */
export async function startVictim(options: VictimOptions = {}, descriptors?: number): Promise<Victim> {
  const limited = descriptors === undefined ? '' : `ulimit -n ${descriptors} && `;
  const command = `${limited}exec "$0" --expose-gc "$1" "$2"`;
  // It ends with this process, however that ends: the channel to it closes.
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
      if (endReason !== undefined || typeof message !== 'object') throw new Error(endReason ?? 'it ends');
      return message;
    } finally {
      answered.abort();
    }
  };
  const { address } = await nextState();
  return {
    address,
    pid: child.pid ?? 0,
    async state() {
      if (endReason !== undefined) throw new Error(endReason);
      child.send('how are you');
      return nextState();
    },
    async [Symbol.asyncDispose]() {
      // One that has crashed may have closed the channel, and its end not be told yet.
      if (child.connected) child.disconnect();
      if (endReason === undefined) await once(child, 'exit');
    },
  };
}
