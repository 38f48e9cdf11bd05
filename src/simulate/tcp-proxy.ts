import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

/**
 * A TCP proxy on loopback, between one reporter and the service, that injects network failures. A client cannot do so
 * itself, as it always closes its own connection in an orderly way.
 */
export interface TcpProxy {
  /** The address for the reporter, as host:port. */
  readonly address: string;
  /** Resets every connection on both sides. New connections work. */
  reset(): void;
  /**
   * Leaves the service with half-open connections: it no longer receives anything, neither a FIN nor a response to a ping,
   * and what it sends is not read. The reporter gets RST, as after a restart or a change of network. New connections work.
   */
  halfOpen(): void;
  /** Resets all connections, including half-open ones, and stops listening. No handle remains. */
  close(): Promise<void>;
}

/** Listens on a free port of 127.0.0.1 and forwards to `target`. Rejects if it cannot listen. */
export async function startTcpProxy(target: {
  readonly host: string;
  readonly port: number;
}): Promise<TcpProxy> {
  const pairs = new Map<Socket, Socket>();
  const halfOpened = new Set<Socket>();

  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ host: target.host, port: target.port, noDelay: true });
    pairs.set(near, far);
    near.pipe(far);
    far.pipe(near);
    // An error is always followed by close, and both ends report it themselves.
    near.on('error', () => {});
    far.on('error', () => {});
    near.on('close', () => {
      // A half-open pair is no longer in the map, so its far side stays open.
      if (pairs.delete(near)) far.destroy();
    });
    far.on('close', () => {
      halfOpened.delete(far);
      if (pairs.delete(near)) abortConnection(near);
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve());
  });
  const { port } = server.address() as AddressInfo;

  function reset(): void {
    for (const [near, far] of pairs) {
      abortConnection(near);
      abortConnection(far);
    }
    pairs.clear();
  }

  return {
    address: `127.0.0.1:${port}`,
    reset,
    halfOpen() {
      for (const [near, far] of pairs) {
        near.unpipe(far);
        far.unpipe(near);
        far.pause();
        halfOpened.add(far);
        abortConnection(near);
      }
      pairs.clear();
    },
    async close() {
      reset();
      for (const far of halfOpened) abortConnection(far);
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

/**
 * Closes a connection with RST if possible. A socket that has been ended, or is still connecting, is destroyed without a
 * reset: Node never closes the handle of a socket that is destroyed while its reset is pending and its FIN unsent, and the
 * process then never ends.
 */
export function abortConnection(socket: Socket): void {
  if (socket.destroyed) return;
  if (socket.connecting || socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
