import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { abortConnection } from '../../../src/simulate/tcp-proxy.ts';

/**
 * A TCP relay on loopback that can simulate network failures. It is agnostic of the protocol, so it can be placed
 * in front of the API server (TLS passes through) and of the operator.
 */
export interface FaultProxy {
  /** The address for clients, as host:port. */
  readonly address: string;
  /** Sets the destination of new connections, as host:port; open connections stay. */
  setTarget(address: string): void;
  /** Resets every connection on both sides; new connections work. */
  reset(): void;
  /** Like `reset`, and resets new connections as well. */
  cut(): void;
  /**
   * Loses every packet: nothing passes in either direction, no connection ends, and new connections get no answer.
   */
  stall(): void;
  /** Resets one side of each connection; the other side stays open and is not notified. New connections work. */
  halfOpen(gone: 'clients' | 'targets'): void;
  /** Limits each connection to this rate per direction. */
  throttle(bytesPerSecond: number): void;
  /** Passes everything again; stalled connections resume. */
  restore(): void;
  /** Resets everything and closes all handles. */
  close(): Promise<void>;
}

type Mode =
  { readonly kind: 'pass' | 'cut' | 'stall' } | { readonly kind: 'slow'; readonly bytesPerMs: number };

interface Pair {
  readonly client: Socket;
  /** Undefined until the connection can pass. */
  upstream: Socket | undefined;
  /** True when one side is gone and the other was not notified. */
  halfOpen: boolean;
}

/** Starts a proxy on a free port of 127.0.0.1. */
export async function openFaultProxy(target: string): Promise<FaultProxy> {
  let targetAddress = target;
  let mode: Mode = { kind: 'pass' };
  const pairs = new Set<Pair>();

  function resumeReading(pair: Pair, from: Socket): void {
    if (mode.kind !== 'stall' && !pair.halfOpen) from.resume();
  }

  function forward(pair: Pair, from: Socket, destination: Socket): void {
    let resumeTimer: NodeJS.Timeout | undefined;
    from.on('data', (chunk) => {
      const hasRoom = destination.write(chunk);
      if (mode.kind === 'slow') {
        from.pause();
        resumeTimer = setTimeout(() => resumeReading(pair, from), chunk.length / mode.bytesPerMs);
      } else if (!hasRoom) {
        from.pause();
        destination.once('drain', () => resumeReading(pair, from));
      }
    });
    from.on('end', () => destination.end());
    from.on('close', () => {
      clearTimeout(resumeTimer);
      // Only if the two sides still belong together; a side that is being reset closes by itself.
      if (pair.halfOpen) {
        if (destination.destroyed) pairs.delete(pair);
      } else if (pairs.delete(pair)) destination.destroy();
    });
    if (mode.kind === 'stall') from.pause();
  }

  function connectUpstream(pair: Pair): void {
    const colon = targetAddress.lastIndexOf(':');
    const far = connect({
      host: targetAddress.slice(0, colon),
      port: Number(targetAddress.slice(colon + 1)),
      noDelay: true,
    });
    // An error is always followed by close, and the peers handle it.
    far.on('error', () => {});
    pair.upstream = far;
    forward(pair, pair.client, far);
    forward(pair, far, pair.client);
  }

  const server = createServer({ noDelay: true }, (near) => {
    near.on('error', () => {});
    if (mode.kind === 'cut') {
      abortConnection(near);
      return;
    }
    const pair: Pair = { client: near, upstream: undefined, halfOpen: false };
    pairs.add(pair);
    if (mode.kind === 'stall') near.on('close', () => pair.upstream ?? pairs.delete(pair));
    else connectUpstream(pair);
  });
  // A whole fleet may reconnect at once.
  await new Promise<void>((resolve) => {
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, resolve);
  });

  function reset(): void {
    const broken = [...pairs];
    pairs.clear();
    for (const { client, upstream } of broken) {
      abortConnection(client);
      if (upstream !== undefined) abortConnection(upstream);
    }
  }

  function resumeAll(): void {
    for (const pair of pairs) {
      if (pair.halfOpen) continue;
      if (pair.upstream === undefined) connectUpstream(pair);
      pair.client.resume();
      pair.upstream?.resume();
    }
  }

  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    setTarget(address) {
      targetAddress = address;
    },
    reset,
    cut() {
      mode = { kind: 'cut' };
      reset();
    },
    stall() {
      mode = { kind: 'stall' };
      for (const { client, upstream } of pairs) {
        client.pause();
        upstream?.pause();
      }
    },
    halfOpen(goneSide) {
      for (const pair of pairs) {
        if (pair.upstream === undefined || pair.halfOpen) continue;
        const [closedSide, openSide] =
          goneSide === 'clients' ? [pair.client, pair.upstream] : [pair.upstream, pair.client];
        pair.halfOpen = true;
        // Its remaining data is read and discarded; otherwise its end would never be noticed.
        openSide.removeAllListeners('data').resume();
        abortConnection(closedSide);
      }
    },
    throttle(bytesPerSecond) {
      mode = { kind: 'slow', bytesPerMs: bytesPerSecond / 1000 };
      resumeAll();
    },
    restore() {
      mode = { kind: 'pass' };
      resumeAll();
    },
    async close() {
      reset();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
