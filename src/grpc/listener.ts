import { lookup } from 'node:dns/promises';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { runInConnection } from './call-guard.ts';
import { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import { FairQuota } from './fair-quota.ts';
import { PREFACE, encodeInadequateSecurity } from './http2-frame.ts';
import { OverLimitRejection } from './over-limit-rejection.ts';
import { describePeer, readPreface, type Protocol } from './protocol-detection.ts';
import {
  connectionRejectionMessage,
  type ConnectionRejectionReason,
  type RejectConnection,
} from './rejections.ts';
import type { TlsAcceptor } from './tls-acceptor.ts';

/** Limits on unauthenticated peers, and on all peers together. */
export interface ConnectionLimits {
  /** Maximum number of open connections. */
  readonly connections: number;
  /** Maximum number of open connections per IP address: many reporters may share a proxy or NAT. */
  readonly connectionsPerAddress: number;
  /** Deadline for the preface and SETTINGS, including the TLS handshake. */
  readonly handshakeTimeoutMs: number;
  /** Maximum number of open streams on all connections together. */
  readonly streams: number;
  /** Maximum bytes of reports that are incomplete or not read yet, on all connections together. */
  readonly bufferedBytes: number;
  /** Maximum number of calls with a pending token review, on all connections together. */
  readonly pendingAuthentications: number;
}

/** The limits of connections, and where they go once they speak HTTP/2. */
export interface ListenerOptions {
  readonly limits: ConnectionLimits;
  readonly maxMessageSizeBytes: number;
  /** Accepts connections that begin with a TLS handshake; undefined: TLS is not supported. */
  readonly tls: TlsAcceptor | undefined;
  /** Whether connections without TLS are accepted too. */
  readonly plaintext: boolean;
  /** Passes a connection to grpc-js. */
  readonly inject: (connection: Duplex) => void;
  readonly reject: RejectConnection;
  readonly clock: Clock;
  readonly log: Log;
}

/** The length of the kernel's accept queue: a whole fleet may reconnect at once. */
const BACKLOG = 1024;

const HTTP1_HEAD =
  'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nThis port serves gRPC (HTTP/2)';

/** Accepts connections, guards them, and passes those that speak HTTP/2 to grpc-js. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #servers: Server[] = [];
  readonly #sockets = new Set<Socket>();
  /** Connections whose handshake is not complete, with the function that cancels their deadline. */
  readonly #handshaking = new Map<Socket, () => void>();
  readonly #connectionsByAddress = new Map<string, number>();
  readonly #overLimit: OverLimitRejection;
  readonly #bufferedBytes: FairQuota<ConnectionGuard>;
  readonly #openStreams: FairQuota<ConnectionGuard>;
  readonly #pendingAuthentications: FairQuota<ConnectionGuard>;

  constructor(options: ListenerOptions) {
    this.#options = options;
    const { limits } = options;
    this.#overLimit = new OverLimitRejection(options.clock, limits.connections);
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
   * Listens on every address of the host; succeeds if at least one can be bound.
   *
   * @param address `host:port`, an IPv6 host in brackets; port 0 selects a free port
   * @returns the address with the bound port
   * @throws Error the system's error, if no address can be bound
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

  /**
   * Stops accepting connections and destroys those whose handshake is not complete. Resolves when all others are closed
   * too.
   */
  async close(): Promise<void> {
    this.#overLimit.close();
    const closed = this.#servers.map((server) => new Promise((resolve) => server.close(resolve)));
    for (const socket of this.#handshaking.keys()) {
      this.#handshakeDone(socket);
      socket.destroy();
    }
    await Promise.all(closed);
  }

  /** Destroys every connection. */
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
    // One connection could not be accepted, for example for lack of file descriptors; the next one may succeed.
    server.on('error', (error) =>
      this.#options.log.error({ error: error.message }, 'failed to accept a connection'),
    );
    this.#servers.push(server);
    return (server.address() as AddressInfo).port;
  }

  #accept(socket: Socket): void {
    // The close event follows; nothing else needs to be done.
    socket.on('error', () => {});
    const address = socket.remoteAddress ?? 'unknown';
    const addressCount = this.#connectionsByAddress.get(address) ?? 0;
    const { limits, clock } = this.#options;
    const exceeded = this.#exceededLimit(addressCount);
    if (exceeded !== undefined) {
      this.#options.reject(exceeded, address);
      this.#overLimit.reject(socket, connectionRejectionMessage(exceeded));
      return;
    }
    this.#sockets.add(socket);
    this.#connectionsByAddress.set(address, addressCount + 1);
    let undecided: Buffer | undefined;
    const cancel = clock.setTimer(limits.handshakeTimeoutMs, () => {
      this.#handshakeDone(socket);
      this.#options.reject('handshake_timeout', address, undecided && describePeer(undecided));
      socket.destroySoon();
    });
    this.#handshaking.set(socket, cancel);
    socket.on('close', () => {
      this.#handshakeDone(socket);
      this.#sockets.delete(socket);
      const remaining = (this.#connectionsByAddress.get(address) ?? 0) - 1;
      if (remaining > 0) this.#connectionsByAddress.set(address, remaining);
      else this.#connectionsByAddress.delete(address);
    });
    readPreface(
      socket,
      (protocol, first) => {
        undecided = undefined;
        const { tls, plaintext } = this.#options;
        if (tls !== undefined && protocol === 'tls') this.#startTls(tls, socket, first, address);
        else if (protocol === 'http2' && plaintext) this.#guard(socket, first, undefined, socket);
        else if (protocol === 'http2' || (protocol === 'http1' && !plaintext))
          this.#reject('plaintext', socket, address, protocol, first);
        else this.#reject(protocol, socket, address, protocol, first);
      },
      (first) => {
        undecided = first;
      },
    );
  }

  #exceededLimit(addressCount: number): 'connections' | 'address_connections' | undefined {
    const { connections, connectionsPerAddress } = this.#options.limits;
    if (this.#sockets.size >= connections) return 'connections';
    return addressCount >= connectionsPerAddress ? 'address_connections' : undefined;
  }

  /** Cancels the handshake deadline of a connection that has completed its handshake or is closed. */
  #handshakeDone(accepted: Socket): void {
    this.#handshaking.get(accepted)?.();
    this.#handshaking.delete(accepted);
  }

  #startTls(tls: TlsAcceptor, accepted: Socket, first: Buffer, address: string): void {
    accepted.pause();
    accepted.unshift(first);
    tls.accept(accepted, (result) => {
      // The connection was rejected or closed during the handshake.
      if (!this.#handshaking.has(accepted) || accepted.destroyed) return;
      if ('rejected' in result) {
        const { rejected, detail, socket } = result;
        this.#options.reject(rejected, address, detail);
        // With TLS 1.3, the client considers the handshake complete before its certificate has been verified.
        socket?.write(encodeInadequateSecurity(connectionRejectionMessage(rejected)));
        (socket ?? accepted).destroySoon();
        return;
      }
      const { socket, certificate } = result;
      readPreface(socket, (protocol, inner) => {
        if (protocol === 'http2') this.#guard(socket, inner, certificate, accepted);
        else this.#reject(protocol === 'tls' ? 'not_http2' : protocol, socket, address, protocol, inner);
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

  /**
   * @param protocol the protocol of the response to the peer; undefined: no response
   * @param first what the peer sent instead of HTTP/2
   */
  #reject(
    reason: ConnectionRejectionReason,
    socket: Socket,
    address: string,
    protocol?: Protocol,
    first?: Buffer,
  ): void {
    this.#options.reject(reason, address, first && describePeer(first));
    if (protocol === 'http1') socket.write(`${HTTP1_HEAD}${reason === 'plaintext' ? ' over TLS' : ''}.\n`);
    if (protocol === 'http2') socket.write(encodeInadequateSecurity(connectionRejectionMessage(reason)));
    socket.destroySoon();
  }
}
