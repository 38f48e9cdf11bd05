import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { breakOff } from '../../../src/simulate/break-off.ts';

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
  slow(bytesPerSecond: number): void;
  /** As usual from now on; what was stalled goes on where it was. */
  pass(): void;
  /** Ends everything with RST; no handle is left. */
  close(): Promise<void>;
}

type Mode =
  { readonly way: 'pass' | 'cut' | 'stall' } | { readonly way: 'slow'; readonly bytesPerMs: number };

interface Pair {
  readonly near: Socket;
  /** Undefined until there is a way through. */
  far: Socket | undefined;
  /** One side is gone and the other does not know. */
  abandoned: boolean;
}

/** Listens on a free port of 127.0.0.1. */
export async function openFaultProxy(target: string): Promise<FaultProxy> {
  let to = target;
  let mode: Mode = { way: 'pass' };
  const pairs = new Set<Pair>();

  function readOn(pair: Pair, from: Socket): void {
    if (mode.way !== 'stall' && !pair.abandoned) from.resume();
  }

  function carry(pair: Pair, from: Socket, other: Socket): void {
    let rest: NodeJS.Timeout | undefined;
    from.on('data', (chunk) => {
      const room = other.write(chunk);
      if (mode.way === 'slow') {
        from.pause();
        rest = setTimeout(() => readOn(pair, from), chunk.length / mode.bytesPerMs);
      } else if (!room) {
        from.pause();
        other.once('drain', () => readOn(pair, from));
      }
    });
    from.on('end', () => other.end());
    from.on('close', () => {
      clearTimeout(rest);
      // Only what still belongs together: a side that is being reset gets done with it by itself.
      if (pair.abandoned) {
        if (other.destroyed) pairs.delete(pair);
      } else if (pairs.delete(pair)) other.destroy();
    });
    if (mode.way === 'stall') from.pause();
  }

  function join(pair: Pair): void {
    const colon = to.lastIndexOf(':');
    const far = connect({ host: to.slice(0, colon), port: Number(to.slice(colon + 1)), noDelay: true });
    // An error is always followed by close; what went wrong is for the two ends to say.
    far.on('error', () => {});
    pair.far = far;
    carry(pair, pair.near, far);
    carry(pair, far, pair.near);
  }

  const server = createServer({ noDelay: true }, (near) => {
    near.on('error', () => {});
    if (mode.way === 'cut') {
      breakOff(near);
      return;
    }
    const pair: Pair = { near, far: undefined, abandoned: false };
    pairs.add(pair);
    if (mode.way === 'stall') near.on('close', () => pair.far ?? pairs.delete(pair));
    else join(pair);
  });
  // A fleet may come back at once.
  await new Promise<void>((resolve) => {
    server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, resolve);
  });

  function reset(): void {
    const broken = [...pairs];
    pairs.clear();
    for (const { near, far } of broken) {
      breakOff(near);
      if (far !== undefined) breakOff(far);
    }
  }

  function readAllOn(): void {
    for (const pair of pairs) {
      if (pair.abandoned) continue;
      if (pair.far === undefined) join(pair);
      pair.near.resume();
      pair.far?.resume();
    }
  }

  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    setTarget(address) {
      to = address;
    },
    reset,
    cut() {
      mode = { way: 'cut' };
      reset();
    },
    stall() {
      mode = { way: 'stall' };
      for (const { near, far } of pairs) {
        near.pause();
        far?.pause();
      }
    },
    halfOpen(gone) {
      for (const pair of pairs) {
        if (pair.far === undefined || pair.abandoned) continue;
        const [lost, left] = gone === 'clients' ? [pair.near, pair.far] : [pair.far, pair.near];
        pair.abandoned = true;
        // What it still says is read and thrown away: else its end would never be seen.
        left.removeAllListeners('data').resume();
        breakOff(lost);
      }
    },
    slow(bytesPerSecond) {
      mode = { way: 'slow', bytesPerMs: bytesPerSecond / 1000 };
      readAllOn();
    },
    pass() {
      mode = { way: 'pass' };
      readAllOn();
    },
    async close() {
      reset();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
