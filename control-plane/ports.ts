/** Loopback ports that stay reserved while the processes that use them are restarted. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { ControlPlaneError } from './errors.ts';

/**
 * Below the ephemeral ports of Linux (from 32768) and macOS (from 49152). An ephemeral port could be assigned to an
 * outgoing connection while its server is down, even to a client that tries to reach that server.
 */
const MIN_PORT = 20_000;
const MAX_PORT_EXCLUSIVE = 32_768;
/** A marker and up to 63 ports: blocks of one size cannot overlap, whatever is reserved in them. */
const BLOCK_PORTS = 64;
const MAX_ATTEMPTS = 200;

/** Consecutive ports on 127.0.0.1 that were free when they were reserved. */
export interface ReservedPorts {
  readonly first: number;
  /** Releases the ports for others. */
  readonly release: () => Promise<void>;
}

/**
 * Reserves `count` consecutive ports, at most 63. The port before them stays open as a marker for others: the marker is
 * tried before the ports, so a port is never taken while its process is restarted.
 */
export async function reservePorts(count: number): Promise<ReservedPorts> {
  const blocks = Math.floor((MAX_PORT_EXCLUSIVE - MIN_PORT) / BLOCK_PORTS);
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    const markerPort = MIN_PORT + BLOCK_PORTS * randomInt(blocks);
    const marker = await listen(markerPort);
    if (marker === undefined) continue;
    if (await areAllFree(markerPort + 1, count))
      return { first: markerPort + 1, release: async () => close(marker) };
    await close(marker);
  }
  throw new ControlPlaneError(
    `cannot reserve ${count} consecutive ports on 127.0.0.1 between ${MIN_PORT} and ${MAX_PORT_EXCLUSIVE - 1}: none free in ${MAX_ATTEMPTS} attempts`,
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
