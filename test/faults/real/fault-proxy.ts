import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { abortConnection } from '../../../src/simulate/abort-connection.ts';

/**
 * A TCP relay on loopback with every way in which a network fails. It knows nothing of what it carries, so it stands
 * before the API server (TLS goes through) as well as before the operator.
 */
export interface FaultProxy {
  /** Where clients connect to, as host:port. */
  readonly address: string;
  /** Where new connections go, as host:port; those that are open stay. */
  setTarget(address: string): void;
  /** Breaks every connection with RST, on both sides; new ones work. */
  reset(): void;
  /** As `reset`, and new ones are reset too. */
  cut(): void;
  /** A network that loses every packet: nothing passes either way, nothing ends, new connections get no answer. */
  stall(): void;
  /** One side of each connection is gone, by RST; the other stays open and hears nothing more. New ones work. */
  halfOpen(gone: 'clients' | 'targets'): void;
  /** Each connection passes so many bytes a second each way. */
  throttle(bytesPerSecond: number): void;
  /** As usual from now on; what was stalled goes on where it was. */
  restore(): void;
  /** Ends everything with RST; no handle is left. */
  close(): Promise<void>;
}

type Mode =
  { readonly kind: 'pass' | 'cut' | 'stall' } | { readonly kind: 'slow'; readonly bytesPerMs: number };

interface Pair {
  readonly client: Socket;
  /** Undefined until there is a way through. */
  upstream: Socket | undefined;
  /** One side is gone and the other does not know. */
  halfOpen: boolean;
}

/** Listens on a free port of 127.0.0.1. */
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
      // Only what still belongs together: a side that is being reset gets done with it by itself.
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
    // An error is always followed by close; what went wrong is for the two ends to say.
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
  // A fleet may come back at once.
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
        // What it still says is read and thrown away: else its end would never be seen.
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
