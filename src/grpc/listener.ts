import { lookup } from 'node:dns/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { inConnection } from './call-guard.ts';
import type { Credential } from './credential.ts';
import { ConnectionGuard } from './connection-guard.ts';
import { FairBudget } from './fair-budget.ts';
import { protocolOf, type Protocol } from './first-bytes.ts';
import { PREFACE, turnAway } from './http2-frame.ts';
import { refusalWords, type RefusalReason, type Refuse } from './refusals.ts';
import type { TlsAcceptor } from './tls-acceptor.ts';

/** What peers may take of this process before anything is known of them, and all of them together. */
export interface ConnectionLimits {
  /** Connections that may be open. */
  readonly connections: number;
  /** Those of them that may be of one address: a proxy or NAT has many reporters behind it. */
  readonly addressConnections: number;
  /** How long a peer may take for the preface and SETTINGS, a TLS handshake included. */
  readonly greetingMs: number;
  /** Streams that may be open, on all connections together. */
  readonly streams: number;
  /** Bytes of reports that may wait to be whole or to be read, on all connections together. */
  readonly heldBytes: number;
  /** Calls whose token may wait to be reviewed, on all connections together. */
  readonly unprovenCalls: number;
}

/** What a connection is held to, and where it goes once it speaks HTTP/2. */
export interface ListenerParts {
  readonly limits: ConnectionLimits;
  readonly maxMessageSizeBytes: number;
  /** Takes connections that begin with a handshake; undefined: TLS is not spoken here. */
  readonly tls: TlsAcceptor | undefined;
  /** Whether connections without TLS are taken too. */
  readonly plaintext: boolean;
  /** Hands a connection to gRPC. */
  readonly inject: (connection: Duplex) => void;
  readonly refuse: Refuse;
  readonly clock: Clock;
  readonly log: Log;
}

/** Of connections that the kernel has accepted and this process has not; a fleet may come back at once. */
const BACKLOG = 1024;

const HTTP1_HEAD =
  'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port serves gRPC (HTTP/2)';

/** Accepts connections, guards them, and hands those that speak HTTP/2 to gRPC. */
export class Listener {
  readonly #parts: ListenerParts;
  readonly #servers: Server[] = [];
  readonly #open = new Set<Socket>();
  /** Those that have not begun to speak, with what ends their deadline. */
  readonly #greeting = new Map<Socket, () => void>();
  readonly #ofAddress = new Map<string, number>();
  readonly #heldBytes: FairBudget<ConnectionGuard>;
  readonly #heldStreams: FairBudget<ConnectionGuard>;
  readonly #unprovenCalls: FairBudget<ConnectionGuard>;

  constructor(parts: ListenerParts) {
    this.#parts = parts;
    const { limits } = parts;
    this.#heldBytes = new FairBudget({
      limit: limits.heldBytes,
      overdrawn: (guard) => guard.cut('buffered_bytes'),
    });
    this.#heldStreams = new FairBudget({
      limit: limits.streams,
      overdrawn: (guard) => guard.cut('open_streams'),
    });
    this.#unprovenCalls = new FairBudget({
      limit: limits.unprovenCalls,
      overdrawn: (guard) => guard.cut('pending_authentication'),
    });
  }

  /**
   * Listens on every address that the host has; one of them is enough.
   *
   * @param address `host:port`, an IPv6 host in brackets; port 0 picks a free one
   * @returns the address with the port that was bound
   * @throws Error the system's, when none can be listened on
   */
  async listen(address: string): Promise<string> {
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    let port = Number(address.slice(colon + 1));
    let failure: unknown;
    for (const one of await lookup(host, { all: true })) {
      try {
        port = await this.#listenOn(one.address, port);
      } catch (error) {
        failure ??= error;
      }
    }
    if (this.#servers.length === 0) throw failure;
    return `${address.slice(0, colon)}:${port}`;
  }

  /** Accepts no more, and ends the connections that have not begun to speak. Resolves when all others are closed too. */
  async close(): Promise<void> {
    const closed = this.#servers.map((server) => new Promise((resolve) => server.close(resolve)));
    for (const socket of this.#greeting.keys()) {
      this.#greeted(socket);
      socket.destroy();
    }
    await Promise.all(closed);
  }

  /** Cuts every connection. */
  destroy(): void {
    for (const socket of this.#open) socket.destroy();
  }

  async #listenOn(host: string, port: number): Promise<number> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port, backlog: BACKLOG }, () => {
        server.removeListener('error', reject);
        resolve();
      });
    });
    // A connection that could not be accepted, as for want of descriptors; the next one may be.
    server.on('error', (error) =>
      this.#parts.log.error({ error: error.message }, 'failed to accept a connection'),
    );
    this.#servers.push(server);
    return (server.address() as AddressInfo).port;
  }

  #accept(socket: Socket): void {
    // What becomes of a connection is told by its end.
    socket.on('error', () => {});
    const address = socket.remoteAddress ?? 'unknown';
    const ofAddress = this.#ofAddress.get(address) ?? 0;
    const { limits, clock } = this.#parts;
    if (this.#open.size >= limits.connections) {
      this.#refuse('connections', socket, address);
      return;
    }
    if (ofAddress >= limits.addressConnections) {
      this.#refuse('address_connections', socket, address);
      return;
    }
    this.#open.add(socket);
    this.#ofAddress.set(address, ofAddress + 1);
    const cancel = clock.setTimer(limits.greetingMs, () => {
      this.#greeted(socket);
      this.#refuse('handshake_timeout', socket, address);
    });
    this.#greeting.set(socket, cancel);
    socket.on('close', () => {
      this.#greeted(socket);
      this.#open.delete(socket);
      const left = (this.#ofAddress.get(address) ?? 0) - 1;
      if (left > 0) this.#ofAddress.set(address, left);
      else this.#ofAddress.delete(address);
    });
    readFirst(socket, (protocol, first) => {
      const { tls, plaintext } = this.#parts;
      if (tls !== undefined && protocol === 'tls') this.#secure(tls, socket, first, address);
      else if (!plaintext) this.#refuse('plaintext', socket, address, protocol);
      else if (protocol === 'http2') this.#guard(socket, first, undefined, socket);
      else this.#refuse(protocol, socket, address, protocol);
    });
  }

  /** Has begun to speak, or will not any more. */
  #greeted(accepted: Socket): void {
    this.#greeting.get(accepted)?.();
    this.#greeting.delete(accepted);
  }

  #secure(tls: TlsAcceptor, accepted: Socket, first: Buffer, address: string): void {
    accepted.pause();
    accepted.unshift(first);
    tls.accept(accepted, (secured) => {
      // It was refused or closed in the middle of it.
      if (!this.#greeting.has(accepted) || accepted.destroyed) return;
      if ('refused' in secured) {
        const { refused, detail, socket } = secured;
        this.#parts.refuse(refused, address, detail);
        // TLS 1.3 lets the client believe it is in before its certificate has been looked at.
        socket?.write(turnAway(refusalWords(refused)));
        (socket ?? accepted).destroySoon();
        return;
      }
      const { socket, certificate } = secured;
      readFirst(socket, (protocol, inner) => {
        if (protocol === 'http2') this.#guard(socket, inner, certificate, accepted);
        else this.#refuse(protocol === 'tls' ? 'not_http2' : protocol, socket, address, protocol);
      });
    });
  }

  #guard(socket: Socket, first: Buffer, certificate: Credential | undefined, accepted: Socket): void {
    const { refuse, clock, maxMessageSizeBytes, inject } = this.#parts;
    const guard = new ConnectionGuard(socket, PREFACE, {
      certificate,
      maxMessageSizeBytes,
      heldBytes: this.#heldBytes,
      heldStreams: this.#heldStreams,
      unprovenCalls: this.#unprovenCalls,
      refuse,
      greeted: () => this.#greeted(accepted),
      clock,
    });
    inConnection(guard, () => inject(guard.duplex));
    guard.receiveFirst(first.subarray(PREFACE.length));
  }

  /** @param protocol what it speaks, as far as that is known: in which to answer */
  #refuse(reason: RefusalReason, socket: Socket, address: string, protocol?: Protocol): void {
    this.#parts.refuse(reason, address);
    if (protocol === 'http1') socket.write(`${HTTP1_HEAD}${reason === 'plaintext' ? ' over TLS' : ''}.\n`);
    if (protocol === 'http2') socket.write(turnAway(refusalWords(reason)));
    socket.destroySoon();
  }
}

/** Reads until it is clear what the peer speaks; `first` is all that was read. */
function readFirst(
  socket: Socket,
  decided: (protocol: Exclude<Protocol, 'undecided'>, first: Buffer) => void,
): void {
  let first = Buffer.alloc(0);
  const read = (chunk: Buffer): void => {
    first = Buffer.concat([first, chunk]);
    const protocol = protocolOf(first);
    if (protocol === 'undecided') return;
    socket.removeListener('data', read);
    decided(protocol, first);
  };
  socket.on('data', read);
}
