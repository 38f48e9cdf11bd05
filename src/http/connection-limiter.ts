import type { Socket } from 'node:net';

/** The connections of one address, oldest first. */
type Connections = Set<Socket>;

/**
 * Limits the open connections by closing old ones, never by rejecting new ones: a probe is always accepted, and needs its
 * connection only for milliseconds. The oldest connection of the address with most connections is closed, so a client that
 * opens many closes its own ones.
 */
export class ConnectionLimiter {
  readonly #maxConnections: number;
  readonly #byAddress = new Map<string, Connections>();
  #count = 0;

  /** @param maxConnections at least 1 */
  constructor(maxConnections: number) {
    this.#maxConnections = maxConnections;
  }

  /** Counts a new connection until it is closed, and closes another one if there are too many. */
  add(socket: Socket): void {
    if (this.#count === this.#maxConnections) this.#closeOne();
    // Undefined for a socket that the peer has already closed.
    const address = socket.remoteAddress ?? '';
    const connections = this.#byAddress.get(address) ?? new Set();
    this.#byAddress.set(address, connections.add(socket));
    this.#count += 1;
    socket.once('close', () => this.#remove(address, socket));
  }

  #closeOne(): void {
    let largest: readonly [string, Connections] | undefined;
    for (const entry of this.#byAddress) if (entry[1].size > (largest?.[1].size ?? 0)) largest = entry;
    const [oldest] = largest?.[1] ?? [];
    if (largest === undefined || oldest === undefined) return;
    // Not when it is closed, a tick later: until then, further connections would close it again.
    this.#remove(largest[0], oldest);
    oldest.destroy();
  }

  #remove(address: string, socket: Socket): void {
    const connections = this.#byAddress.get(address);
    if (connections?.delete(socket) !== true) return;
    this.#count -= 1;
    if (connections.size === 0) this.#byAddress.delete(address);
  }
}
