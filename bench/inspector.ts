/** A client of Node's inspector in another process, so that the inspected process needs no additional code. */

export interface Inspector {
  /** Sends a command of the DevTools protocol, such as `Profiler.start`; resolves with its result. */
  post(method: string, params?: object): Promise<unknown>;
  close(): void;
}

/** @param url as printed by Node: `ws://127.0.0.1:<port>/<id>` */
export async function openInspector(url: string): Promise<Inspector> {
  const socket = new WebSocket(url);
  const pending = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  let lastId = 0;
  await new Promise<void>((resolve, reject) => {
    socket.addEventListener('open', () => resolve());
    socket.addEventListener('error', () => reject(new Error(`connect to inspector ${url}: failed`)));
  });
  socket.addEventListener('message', ({ data }) => {
    const { id, result, error } = JSON.parse(String(data)) as {
      id?: number;
      result?: unknown;
      error?: { message: string };
    };
    // A message without an ID is a notification, which is not used here.
    if (id === undefined) return;
    const command = pending.get(id);
    pending.delete(id);
    if (error === undefined) command?.resolve(result);
    else command?.reject(new Error(error.message));
  });
  socket.addEventListener('close', () => {
    for (const command of pending.values()) command.reject(new Error('inspector closed'));
    pending.clear();
  });
  return {
    post(method, params = {}) {
      lastId += 1;
      const id = lastId;
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve, reject });
        socket.send(JSON.stringify({ id, method, params }));
      });
    },
    close: () => socket.close(),
  };
}
