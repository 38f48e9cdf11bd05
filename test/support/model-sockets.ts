/**
 * The sockets of an Envoy's tunnels and the reports that result. Envoy counts sockets by tunnel name. A GOAWAY from the
 * initiator removes the socket, and the end of the socket, which follows, is ignored.
 */
import type { RequestFields, TunnelFields } from './wire.ts';

interface Socket {
  readonly name: string;
  /** False after a GOAWAY. */
  counts: boolean;
}

/** A tunnel that is up, with the time at which its first socket was opened. */
export interface UpTunnel {
  readonly name: string;
  readonly seconds: number;
}

export class TunnelSockets {
  readonly #sockets: Socket[] = [];
  readonly #up = new Map<string, UpTunnel>();
  #added: UpTunnel[] = [];
  #removed: string[] = [];
  #seconds = 1_790_000_000;

  /** The tunnels that are up. */
  get tunnels(): readonly UpTunnel[] {
    return [...this.#up.values()];
  }

  connect(name: string): void {
    this.#sockets.push({ name, counts: true });
    if (this.#up.has(name)) return;
    this.#seconds += 1;
    const tunnel = { name, seconds: this.#seconds };
    this.#up.set(name, tunnel);
    this.#added.push(tunnel);
  }

  /** The initiator of an open socket sends a GOAWAY. Does nothing if there is no such socket. */
  goAway(index: number): void {
    const socket = this.#at(index);
    if (socket !== undefined) this.#remove(socket);
  }

  /** An open socket ends. */
  close(index: number): void {
    const socket = this.#at(index);
    if (socket === undefined) return;
    this.#remove(socket);
    this.#sockets.splice(this.#sockets.indexOf(socket), 1);
  }

  /** Returns the next report of a stream: what changed since the previous one, or everything. */
  report(fullPush: boolean): RequestFields {
    const [added, removed] = fullPush ? [this.tunnels, []] : [this.#added, this.#removed];
    this.#added = [];
    this.#removed = [];
    return { full_push: fullPush, added_tunnels: added.map(tunnelFields), removed_tunnel_names: removed };
  }

  #at(index: number): Socket | undefined {
    return this.#sockets[index % Math.max(1, this.#sockets.length)];
  }

  #remove(socket: Socket): void {
    if (!socket.counts) return;
    socket.counts = false;
    if (this.#sockets.some(({ name, counts }) => name === socket.name && counts)) return;
    this.#up.delete(socket.name);
    this.#removed.push(socket.name);
  }
}

function tunnelFields({ name, seconds }: UpTunnel): TunnelFields {
  const identity = { tenant_id: 'acme', cluster_id: 'eu-1', node_id: name };
  return { name, identity, created_at: { seconds, nanos: 0 } };
}
