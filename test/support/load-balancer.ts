import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { abortConnection } from '../../src/simulate/abort-connection.ts';

/** A TCP balancer on loopback, as a Service is: a connection goes to one of the replicas and stays there. */
export interface LoadBalancer {
  /** Where reporters connect to, as host:port. */
  readonly address: string;
  /** Who gets new connections, in turns; host:port. Those that are open stay. */
  setTargets(targets: readonly string[]): void;
  /** Ends everything. */
  close(): Promise<void>;
}

/** Listens on a free port. A target that refuses a connection is passed over, as one that is not ready is. */
export async function startLoadBalancer(): Promise<LoadBalancer> {
  let targets: readonly string[] = [];
  let next = 0;
  const openSockets = new Set<Socket>();

  function relay(client: Socket, tries: number): void {
    const target = targets[next++ % Math.max(1, targets.length)];
    if (target === undefined || tries === 0) {
      abortConnection(client);
      return;
    }
    const colon = target.lastIndexOf(':');
    const backend = connect({
      host: target.slice(0, colon),
      port: Number(target.slice(colon + 1)),
      noDelay: true,
    });
    openSockets.add(backend);
    let connected = false;
    backend.on('connect', () => {
      connected = true;
      client.pipe(backend);
      backend.pipe(client);
    });
    backend.on('error', () => {});
    backend.on('close', () => {
      openSockets.delete(backend);
      if (connected || client.destroyed) client.destroy();
      else relay(client, tries - 1);
    });
    client.on('close', () => backend.destroy());
  }

  const server = createServer({ noDelay: true }, (client) => {
    openSockets.add(client);
    client.on('error', () => {});
    client.on('close', () => openSockets.delete(client));
    relay(client, 5);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    setTargets(newTargets) {
      targets = newTargets;
    },
    async close() {
      for (const socket of openSockets) socket.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}
