import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { abortConnection } from '../../src/simulate/tcp-proxy.ts';

/**
 * A TCP load balancer on loopback that behaves like a Service: a connection is assigned to one replica and stays
 * there.
 */
export interface LoadBalancer {
  /** The address for reporters, host:port. */
  readonly address: string;
  /** Sets the round-robin targets of new connections, host:port. Open connections stay. */
  setTargets(targets: readonly string[]): void;
  /** Closes everything. */
  close(): Promise<void>;
}

/**
 * Starts a load balancer on a free port. A target that does not accept a connection is skipped, like one that is not ready.
 */
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
