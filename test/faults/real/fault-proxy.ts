import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { abortConnection } from '../../../src/simulate/tcp-proxy.ts';

/**
 * A TCP relay on loopback that can simulate network failures. It is agnostic of the protocol, so it can be placed
 * in front of the API server (TLS passes through) and of the operator. With several targets, it is a load balancer that
 * behaves like a Service: a connection is assigned to one of them and stays there.
 */
export type FaultProxy = Awaited<ReturnType<typeof openFaultProxy>>;

type Mode =
  { readonly kind: 'pass' | 'cut' | 'stall' } | { readonly kind: 'slow'; readonly bytesPerMs: number };

interface Pair {
  readonly client: Socket;
  /** Undefined until the connection can pass. */
  upstream: Socket | undefined;
  /** True when one side is gone and the other was not notified. */
  halfOpen: boolean;
}

/** Starts a proxy on a free port of 127.0.0.1. @param initialTargets as host:port */
export async function openFaultProxy(...initialTargets: readonly string[]) {
  let targets = initialTargets;
  let next = 0;
  let mode: Mode = { kind: 'pass' };
  let onData: ((chunk: Buffer) => void) | undefined;
  const pairs = new Set<Pair>();

  function resumeReading(pair: Pair, from: Socket): void {
    if (mode.kind !== 'stall' && !pair.halfOpen) from.resume();
  }

  function forward(pair: Pair, from: Socket, destination: Socket): void {
    let resumeTimer: NodeJS.Timeout | undefined;
    from.on('data', (chunk: Buffer) => {
      onData?.(chunk);
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

  /** A target that does not accept the connection is skipped. */
  function connectUpstream(pair: Pair, tries = Math.max(2, targets.length)): void {
    const target = targets[next++ % targets.length];
    if (target === undefined || tries === 0) {
      pairs.delete(pair);
      abortConnection(pair.client);
      return;
    }
    const { hostname: host, port } = new URL(`tcp://${target}`);
    const upstream = connect({ host, port: Number(port), noDelay: true });
    let isConnected = false;
    pair.upstream = upstream;
    // An error is always followed by close, and the peers handle it.
    upstream.on('error', () => {});
    upstream.once('connect', () => {
      isConnected = true;
      forward(pair, pair.client, upstream);
      forward(pair, upstream, pair.client);
      resumeReading(pair, pair.client);
    });
    upstream.once('close', () => {
      if (!isConnected && pairs.has(pair)) connectUpstream(pair, tries - 1);
    });
  }

  const server = createServer({ noDelay: true }, (client) => {
    client.on('error', () => {});
    if (mode.kind === 'cut') {
      abortConnection(client);
      return;
    }
    const pair: Pair = { client, upstream: undefined, halfOpen: false };
    pairs.add(pair);
    client.on('close', () => {
      if (!pair.halfOpen && pairs.delete(pair)) pair.upstream?.destroy();
    });
    if (mode.kind !== 'stall') connectUpstream(pair);
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
      else if (!pair.upstream.connecting) {
        pair.client.resume();
        pair.upstream.resume();
      }
    }
  }

  return {
    /** The address for clients, as host:port. */
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    /** Sets the destinations of new connections, as host:port; open connections stay. */
    setTargets(...addresses: readonly string[]): void {
      targets = addresses;
    },
    /** Calls `listener` with everything that passes from now on, in both directions. */
    eavesdrop(listener: (chunk: Buffer) => void): void {
      onData = listener;
    },
    /** Resets every connection on both sides; new connections work. */
    reset,
    /** Like `reset`, and resets new connections as well. */
    cut(): void {
      mode = { kind: 'cut' };
      reset();
    },
    /** Loses every packet: nothing passes in either direction, no connection ends, and new ones get no answer. */
    stall(): void {
      mode = { kind: 'stall' };
      for (const { client, upstream } of pairs) {
        client.pause();
        upstream?.pause();
      }
    },
    /** Resets one side of each connection; the other side stays open and is not notified. New connections work. */
    halfOpen(goneSide: 'clients' | 'targets'): void {
      for (const pair of pairs) {
        if (pair.upstream === undefined || pair.upstream.connecting || pair.halfOpen) continue;
        const [closedSide, openSide] =
          goneSide === 'clients' ? [pair.client, pair.upstream] : [pair.upstream, pair.client];
        pair.halfOpen = true;
        // Its remaining data is read and discarded; otherwise its end would never be noticed.
        openSide.removeAllListeners('data').resume();
        abortConnection(closedSide);
      }
    },
    /** Limits each connection to this rate per direction. */
    throttle(bytesPerSecond: number): void {
      mode = { kind: 'slow', bytesPerMs: bytesPerSecond / 1000 };
      resumeAll();
    },
    /** Passes everything again; stalled connections resume. */
    restore(): void {
      mode = { kind: 'pass' };
      resumeAll();
    },
    /** Resets everything and closes all handles. */
    async close(): Promise<void> {
      reset();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
