import { lookup } from 'node:dns/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { runInConnection } from './call-guard.ts';
import type { Credential } from './credential.ts';
import { ConnectionGuard } from './connection-guard.ts';
import { FairQuota } from './fair-quota.ts';
import { detectProtocol, type Protocol } from './protocol-detection.ts';
import { PREFACE, encodeInadequateSecurity } from './http2-frame.ts';
import { rejectionMessage, type RejectionReason, type RejectConnection } from './connection-rejections.ts';
import type { TlsAcceptor } from './tls-acceptor.ts';

/** What peers may take of this process before anything is known of them, and all of them together. */
export interface ConnectionLimits {
  /** Connections that may be open. */
  readonly connections: number;
  /** Those of them that may be of one address: a proxy or NAT has many reporters behind it. */
  readonly connectionsPerAddress: number;
  /** How long a peer may take for the preface and SETTINGS, a TLS handshake included. */
  readonly handshakeTimeoutMs: number;
  /** Streams that may be open, on all connections together. */
  readonly streams: number;
  /** Bytes of reports that may wait to be whole or to be read, on all connections together. */
  readonly bufferedBytes: number;
  /** Calls whose token may wait to be reviewed, on all connections together. */
  readonly pendingAuthentications: number;
}

/** What a connection is held to, and where it goes once it speaks HTTP/2. */
export interface ListenerOptions {
  readonly limits: ConnectionLimits;
  readonly maxMessageSizeBytes: number;
  /** Takes connections that begin with a handshake; undefined: TLS is not spoken here. */
  readonly tls: TlsAcceptor | undefined;
  /** Whether connections without TLS are taken too. */
  readonly plaintext: boolean;
  /** Hands a connection to gRPC. */
  readonly inject: (connection: Duplex) => void;
  readonly reject: RejectConnection;
  readonly clock: Clock;
  readonly log: Log;
}

/** Of connections that the kernel has accepted and this process has not; a fleet may come back at once. */
const BACKLOG = 1024;

const HTTP1_HEAD =
  'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port serves gRPC (HTTP/2)';

/** Accepts connections, guards them, and hands those that speak HTTP/2 to gRPC. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  /** Those that have not begun to speak, with what ends their deadline. */
  readonly #handshaking = new Map<Socket, () => void>();
  readonly #connectionsByAddress = new Map<string, number>();
  readonly #bufferedBytes: FairQuota<ConnectionGuard>;
  readonly #openStreams: FairQuota<ConnectionGuard>;
  readonly #pendingAuthentications: FairQuota<ConnectionGuard>;

  constructor(options: ListenerOptions) {
    this.#options = options;
    const { limits } = options;
    this.#bufferedBytes = new FairQuota({
      limit: limits.bufferedBytes,
      onExceeded: (guard) => guard.terminate('buffered_bytes'),
    });
    this.#openStreams = new FairQuota({
      limit: limits.streams,
      onExceeded: (guard) => guard.terminate('open_streams'),
    });
    this.#pendingAuthentications = new FairQuota({
      limit: limits.pendingAuthentications,
      onExceeded: (guard) => guard.terminate('pending_authentication'),
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
    for (const resolved of await lookup(host, { all: true })) {
      try {
        port = await this.#listenOn(resolved.address, port);
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
    for (const socket of this.#handshaking.keys()) {
      this.#handshakeDone(socket);
      socket.destroy();
    }
    await Promise.all(closed);
  }

  /** Cuts every connection. */
  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
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
      this.#options.log.error({ error: error.message }, 'failed to accept a connection'),
    );
    this.#servers.push(server);
    return (server.address() as AddressInfo).port;
  }

  #accept(socket: Socket): void {
    // What becomes of a connection is told by its end.
    socket.on('error', () => {});
    const address = socket.remoteAddress ?? 'unknown';
    const addressCount = this.#connectionsByAddress.get(address) ?? 0;
    const { limits, clock } = this.#options;
    if (this.#sockets.size >= limits.connections) {
      this.#reject('connections', socket, address);
      return;
    }
    if (addressCount >= limits.connectionsPerAddress) {
      this.#reject('address_connections', socket, address);
      return;
    }
    this.#sockets.add(socket);
    this.#connectionsByAddress.set(address, addressCount + 1);
    const cancel = clock.setTimer(limits.handshakeTimeoutMs, () => {
      this.#handshakeDone(socket);
      this.#reject('handshake_timeout', socket, address);
    });
    this.#handshaking.set(socket, cancel);
    socket.on('close', () => {
      this.#handshakeDone(socket);
      this.#sockets.delete(socket);
      const remaining = (this.#connectionsByAddress.get(address) ?? 0) - 1;
      if (remaining > 0) this.#connectionsByAddress.set(address, remaining);
      else this.#connectionsByAddress.delete(address);
    });
    readPreface(socket, (protocol, first) => {
      const { tls, plaintext } = this.#options;
      if (tls !== undefined && protocol === 'tls') this.#startTls(tls, socket, first, address);
      else if (!plaintext) this.#reject('plaintext', socket, address, protocol);
      else if (protocol === 'http2') this.#guard(socket, first, undefined, socket);
      else this.#reject(protocol, socket, address, protocol);
    });
  }

  /** Has begun to speak, or will not any more. */
  #handshakeDone(accepted: Socket): void {
    this.#handshaking.get(accepted)?.();
    this.#handshaking.delete(accepted);
  }

  #startTls(tls: TlsAcceptor, accepted: Socket, first: Buffer, address: string): void {
    accepted.pause();
    accepted.unshift(first);
    tls.accept(accepted, (result) => {
      // It was refused or closed in the middle of it.
      if (!this.#handshaking.has(accepted) || accepted.destroyed) return;
      if ('rejected' in result) {
        const { rejected, detail, socket } = result;
        this.#options.reject(rejected, address, detail);
        // TLS 1.3 lets the client believe it is in before its certificate has been looked at.
        socket?.write(encodeInadequateSecurity(rejectionMessage(rejected)));
        (socket ?? accepted).destroySoon();
        return;
      }
      const { socket, certificate } = result;
      readPreface(socket, (protocol, inner) => {
        if (protocol === 'http2') this.#guard(socket, inner, certificate, accepted);
        else this.#reject(protocol === 'tls' ? 'not_http2' : protocol, socket, address, protocol);
      });
    });
  }

  #guard(socket: Socket, first: Buffer, certificate: Credential | undefined, accepted: Socket): void {
    const { reject, clock, maxMessageSizeBytes, inject } = this.#options;
    const guard = new ConnectionGuard(socket, PREFACE, {
      certificate,
      maxMessageSizeBytes,
      bufferedBytes: this.#bufferedBytes,
      openStreams: this.#openStreams,
      pendingAuthentications: this.#pendingAuthentications,
      reject,
      handshakeDone: () => this.#handshakeDone(accepted),
      clock,
    });
    runInConnection(guard, () => inject(guard.duplex));
    guard.receiveInitial(first.subarray(PREFACE.length));
  }

  /** @param protocol what it speaks, as far as that is known: in which to answer */
  #reject(reason: RejectionReason, socket: Socket, address: string, protocol?: Protocol): void {
    this.#options.reject(reason, address);
    if (protocol === 'http1') socket.write(`${HTTP1_HEAD}${reason === 'plaintext' ? ' over TLS' : ''}.\n`);
    if (protocol === 'http2') socket.write(encodeInadequateSecurity(rejectionMessage(reason)));
    socket.destroySoon();
  }
}

/** Reads until it is clear what the peer speaks; `first` is all that was read. */
function readPreface(
  socket: Socket,
  onDetected: (protocol: Exclude<Protocol, 'undecided'>, first: Buffer) => void,
): void {
  let first = Buffer.alloc(0);
  const read = (chunk: Buffer): void => {
    first = Buffer.concat([first, chunk]);
    const protocol = detectProtocol(first);
    if (protocol === 'undecided') return;
    socket.removeListener('data', read);
    onDetected(protocol, first);
  };
  socket.on('data', read);
}
