import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import { encodeTooManyConnections } from './http2-frame.ts';
import { readPreface, type Protocol } from './protocol-detection.ts';

/** Connections that get the reason at the same time; all others are closed without one. */
const MAX_PENDING = 100;
/** The same as a fraction of the limit, so that few file descriptors are used where few are available. */
const MAX_PENDING_FRACTION = 0.25;
/** A rejected peer has this long to send its first bytes, and to read the response. */
const LINGER_MS = 1000;
/** A fatal TLS alert `access_denied`: a handshake, which costs a millisecond, would defeat the limit. */
const TLS_ACCESS_DENIED = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x31]);

/**
 * Closes connections above a limit, and gives the reason in the protocol that the peer speaks: GOAWAY with the message
 * for HTTP/2, 503 for HTTP/1, an alert for TLS. What this costs is bounded, whatever the number of connections.
 */
export class OverLimitRejection {
  readonly #clock: Clock;
  readonly #maxPending: number;
  readonly #pending = new Map<Socket, () => void>();

  /** @param maxConnections limit of open connections */
  constructor(clock: Clock, maxConnections: number) {
    this.#clock = clock;
    this.#maxPending = Math.min(MAX_PENDING, Math.ceil(maxConnections * MAX_PENDING_FRACTION));
  }

  /** Closes a connection from which nothing has been read. */
  reject(socket: Socket, message: string): void {
    if (this.#pending.size >= this.#maxPending) {
      socket.destroy();
      return;
    }
    this.#pending.set(
      socket,
      this.#clock.setTimer(LINGER_MS, () => socket.destroy()),
    );
    socket.on('close', () => {
      this.#pending.get(socket)?.();
      this.#pending.delete(socket);
    });
    readPreface(socket, (protocol) => {
      const response = encodeResponse(protocol, message);
      if (response === undefined) {
        socket.destroy();
        return;
      }
      // What arrives until the peer closes its side is discarded: a reset would discard the response.
      socket.resume();
      socket.end(response);
    });
  }

  /** Closes the connections whose peers have not closed them. */
  close(): void {
    for (const socket of this.#pending.keys()) socket.destroy();
  }
}

function encodeResponse(protocol: Protocol, message: string): Buffer | undefined {
  switch (protocol) {
    case 'http2':
      return encodeTooManyConnections(message);
    case 'tls':
      return TLS_ACCESS_DENIED;
    case 'http1':
      return Buffer.from(
        `HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n${message}\n`,
      );
    default:
      return undefined;
  }
}
