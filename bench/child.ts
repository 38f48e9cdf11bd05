/** Child processes that execute calls, so that load is not generated in the measuring process. */
import { fork } from 'node:child_process';
import { once } from 'node:events';

/** The calls of a child process: functions with one argument that can be sent as JSON. */
type Calls<C> = { [name in keyof C]: (argument: never) => Promise<unknown> };

interface CallRequest {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

interface CallResponse {
  readonly id: number;
  readonly value?: unknown;
  readonly failure?: string;
}

export interface Child<C extends Calls<C>> extends AsyncDisposable {
  /** Executes a call in the child process. Rejects with its error, or if the child process exits. */
  ask<N extends keyof C & string>(name: N, argument: Parameters<C[N]>[0]): ReturnType<C[N]>;
}

/** Starts a child process, which ends with this process, however that ends. */
export function startChild<C extends Calls<C>>(file: URL): Child<C> {
  const child = fork(file, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const pendingCalls = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let lastId = 0;
  child.on('message', (message) => {
    const { id, value, failure } = message as CallResponse;
    const pending = pendingCalls.get(id);
    pendingCalls.delete(id);
    if (failure === undefined) pending?.resolve(value);
    else pending?.reject(new Error(failure));
  });
  child.once('exit', (code, signal) => {
    for (const call of pendingCalls.values())
      call.reject(new Error(`child process exited (${signal ?? code})`));
    pendingCalls.clear();
  });
  return {
    ask(name, argument) {
      lastId += 1;
      const id = lastId;
      const response = new Promise<unknown>((resolve, reject) => {
        pendingCalls.set(id, { resolve, reject });
        child.send({ id, name, argument } satisfies CallRequest, (error) => {
          if (error !== null) reject(new Error('child process has exited', { cause: error }));
        });
      });
      return response as ReturnType<C[typeof name]>;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.disconnect();
      await once(child, 'exit');
    },
  };
}

/** Executes calls of the parent process until it disconnects or exits. */
export function serveParent<C extends Calls<C>>(calls: C): void {
  process.on('disconnect', () => process.exit(0));
  process.on('message', (message) => {
    const { id, name, argument } = message as CallRequest;
    const call = calls[name as keyof C] as unknown as (argument: unknown) => Promise<unknown>;
    call(argument).then(
      (value) => process.send?.({ id, value } satisfies CallResponse),
      (error: unknown) => process.send?.({ id, failure: String(error) } satisfies CallResponse),
    );
  });
}
