import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { breakOff } from '../../src/simulate/break-off.ts';

/** A TCP balancer on loopback, as a Service is: a connection goes to one of the replicas and stays there. */
export interface Balancer {
  /** Where reporters connect to, as host:port. */
  readonly address: string;
  /** Who gets new connections, in turns; host:port. Those that are open stay. */
  setTargets(targets: readonly string[]): void;
  /** Ends everything. */
  close(): Promise<void>;
}

/** Listens on a free port. A target that refuses a connection is passed over, as one that is not ready is. */
export async function startBalancer(): Promise<Balancer> {
  let targets: readonly string[] = [];
  let turn = 0;
  const open = new Set<Socket>();

  function relay(near: Socket, tries: number): void {
    const target = targets[turn++ % Math.max(1, targets.length)];
    if (target === undefined || tries === 0) {
      breakOff(near);
      return;
    }
    const colon = target.lastIndexOf(':');
    const far = connect({
      host: target.slice(0, colon),
      port: Number(target.slice(colon + 1)),
      noDelay: true,
    });
    open.add(far);
    let connected = false;
    far.on('connect', () => {
      connected = true;
      near.pipe(far);
      far.pipe(near);
    });
    far.on('error', () => {});
    far.on('close', () => {
      open.delete(far);
      if (connected || near.destroyed) near.destroy();
      else relay(near, tries - 1);
    });
    near.on('close', () => far.destroy());
  }

  const server = createServer({ noDelay: true }, (near) => {
    open.add(near);
    near.on('error', () => {});
    near.on('close', () => open.delete(near));
    relay(near, 5);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    setTargets(given) {
      targets = given;
    },
    async close() {
      for (const socket of open) socket.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
