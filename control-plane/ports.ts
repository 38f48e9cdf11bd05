/** Loopback ports that stay ours while processes are stopped and started again on them. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { ControlPlaneError } from './errors.ts';

/**
 * Below the ports that Linux (from 32768) and macOS (from 49152) give to outgoing connections. A port from there
 * could be taken while its server is down, even by a client that tries to reach that very server.
 */
const FIRST_PORT = 20_000;
const PORT_LIMIT = 32_768;
const ATTEMPTS = 200;

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
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const sign = FIRST_PORT + block * randomInt(Math.floor((PORT_LIMIT - FIRST_PORT) / block));
    const holder = await listen(sign);
    if (holder === undefined) continue;
    if (await allFree(sign + 1, count)) return { first: sign + 1, release: async () => close(holder) };
    await close(holder);
  }
  throw new ControlPlaneError(
    `no ${block} free neighbouring ports on 127.0.0.1 between ${FIRST_PORT} and ${PORT_LIMIT - 1} in ${ATTEMPTS} tries`,
  );
}

async function allFree(first: number, count: number): Promise<boolean> {
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
