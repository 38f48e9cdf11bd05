/** Loopback ports that stay ours while processes are stopped and started again on them. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { ControlPlaneError } from './errors.ts';

/**
 * Below the ports that Linux (from 32768) and macOS (from 49152) give to outgoing connections. A port from there
 * could be taken while its server is down, even by a client that tries to reach that very server.
 */
const MIN_PORT = 20_000;
const MAX_PORT_EXCLUSIVE = 32_768;
const MAX_ATTEMPTS = 200;

/** Neighbouring ports on 127.0.0.1, free when reserved. */
export interface ReservedPorts {
  readonly first: number;
  /** Lets others have them. */
  readonly release: () => Promise<void>;
}

/**
 * Reserves `count` neighbouring ports. The port before them is held open as the sign for other control planes that
 * the block is taken: they try the sign before they look at the rest, so two never get one block.
 */
export async function reservePorts(count: number): Promise<ReservedPorts> {
  const block = count + 1;
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    const markerPort = MIN_PORT + block * randomInt(Math.floor((MAX_PORT_EXCLUSIVE - MIN_PORT) / block));
    const marker = await listen(markerPort);
    if (marker === undefined) continue;
    if (await areAllFree(markerPort + 1, count))
      return { first: markerPort + 1, release: async () => close(marker) };
    await close(marker);
  }
  throw new ControlPlaneError(
    `no ${block} free neighbouring ports on 127.0.0.1 between ${MIN_PORT} and ${MAX_PORT_EXCLUSIVE - 1} in ${MAX_ATTEMPTS} tries`,
  );
}

async function areAllFree(first: number, count: number): Promise<boolean> {
  for (let port = first; port < first + count; port += 1) {
    const server = await listen(port);
    if (server === undefined) return false;
    await close(server);
  }
  return true;
}

async function listen(port: number): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  server.listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
    return server;
  } catch {
    return undefined;
  }
}

async function close(server: Server): Promise<void> {
  server.close();
  await once(server, 'close');
}
