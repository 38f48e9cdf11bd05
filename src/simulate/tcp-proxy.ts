import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { abortConnection } from './abort-connection.ts';

/**
 * A TCP relay on loopback, between one reporter and the service, that can fail as networks do.
 * It exists because a client that ends its own connection always ends it politely.
 */
export interface TcpProxy {
  /** Where the reporter connects to, as host:port. */
  readonly address: string;
  /** Breaks every connection with RST, on both sides. New ones work. */
  reset(): void;
  /**
   * Leaves the far side half-open: it hears nothing more, no FIN, no answer to a ping, and nobody reads what it
   * sends. The near side gets RST, as after a restart or a change of network. New connections work.
   */
  halfOpen(): void;
  /** Ends everything, also what was abandoned, with RST. No handle is left. */
  close(): Promise<void>;
}

/** Listens on a free port of 127.0.0.1 and relays to `target`. Rejects when it cannot listen. */
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
    // An error is always followed by close; what went wrong is for the two ends to say.
    near.on('error', () => {});
    far.on('error', () => {});
    near.on('close', () => {
      // False for a pair that was abandoned: its far side stays.
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
