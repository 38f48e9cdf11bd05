/** A helper process that is asked to do things: what loads the machine must not load the process that measures. */
import { fork } from 'node:child_process';
import { once } from 'node:events';

/** What a helper can be asked: each a function of one argument that can be sent as JSON. */
type Calls<C> = { [name in keyof C]: (argument: never) => Promise<unknown> };

interface Asked {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

interface Answered {
  readonly id: number;
  readonly value?: unknown;
  readonly failure?: string;
}

export interface Child<C extends Calls<C>> extends AsyncDisposable {
  /** Rejects with what the call threw there, or when the helper ends. */
  ask<N extends keyof C & string>(name: N, argument: Parameters<C[N]>[0]): ReturnType<C[N]>;
}

/** Starts a helper; it ends with this process, however that ends. */
export function startChild<C extends Calls<C>>(file: URL): Child<C> {
  const child = fork(file, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const open = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let asked = 0;
  child.on('message', (message) => {
    const { id, value, failure } = message as Answered;
    const waiting = open.get(id);
    open.delete(id);
    if (failure === undefined) waiting?.resolve(value);
    else waiting?.reject(new Error(failure));
  });
  child.once('exit', (code, signal) => {
    for (const call of open.values()) call.reject(new Error(`a helper process ended (${signal ?? code})`));
    open.clear();
  });
  return {
    ask(name, argument) {
      asked += 1;
      const id = asked;
      const answer = new Promise<unknown>((resolve, reject) => {
        open.set(id, { resolve, reject });
        child.send({ id, name, argument } satisfies Asked, (error) => {
          if (error !== null) reject(new Error('a helper process has ended', { cause: error }));
        });
      });
      return answer as ReturnType<C[typeof name]>;
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.disconnect();
      await once(child, 'exit');
    },
  };
}

/** In the helper: answers calls until the process that started it lets go or dies. */
export function serveParent<C extends Calls<C>>(calls: C): void {
  process.on('disconnect', () => process.exit(0));
  process.on('message', (message) => {
    const { id, name, argument } = message as Asked;
    const call = calls[name as keyof C] as unknown as (argument: unknown) => Promise<unknown>;
    call(argument).then(
      (value) => process.send?.({ id, value } satisfies Answered),
      (error: unknown) => process.send?.({ id, failure: String(error) } satisfies Answered),
    );
  });
}
