import { AsyncLocalStorage } from 'node:async_hooks';
import { constants, X509Certificate } from 'node:crypto';
import type { Socket } from 'node:net';
import {
  createSecureContext,
  createServer,
  type SecureContextOptions,
  type Server,
  type TLSSocket,
} from 'node:tls';
import { errorMessage } from '../error-message.ts';
import { certificateCredential } from './client-certificate.ts';
import type { Credential } from './credential.ts';
import type { RejectionReason } from './connection-rejections.ts';

/** What the reporting port shows of itself, and whom it believes; PEM. */
export interface TlsMaterial {
  /** The server's certificate, and those between it and its root. */
  readonly cert: string;
  readonly key: string;
  /** The authorities of peers' certificates; undefined where peers are asked for none. */
  readonly clientCa: string | undefined;
}

/** Whether a peer has to show a certificate. One that is shown must be valid in either case. */
export type ClientCertMode = 'required' | 'optional' | 'none';

/** How a handshake went. */
export type HandshakeResult =
  | {
      readonly socket: TLSSocket;
      /** Undefined where none was asked for, or none shown that was optional. */
      readonly certificate: Credential | undefined;
    }
  | {
      readonly rejected: RejectionReason;
      /** OpenSSL's or the system's word for it: a code, no text of the peer's. */
      readonly detail: string;
      /** Where the peer can be told; undefined when no handshake was completed. */
      readonly socket: TLSSocket | undefined;
    };

/** Key, certificate or CA that cannot be used; the message is one line that says what of it, and why. */
export class TlsMaterialError extends Error {
  override readonly name = 'TlsMaterialError';
}

/** Those of TLS 1.3, and of 1.2 those that HTTP/2 does not forbid (RFC 9113, 9.2.2). */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
].join(':');

/** What OpenSSL finds wrong with a certificate, as far as there are words of ours for it. */
const OPENSSL_REASONS: ReadonlyMap<string, RejectionReason> = new Map([
  ['CERT_HAS_EXPIRED', 'certificate_expired'],
  ['CERT_NOT_YET_VALID', 'certificate_not_yet_valid'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'certificate_untrusted'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'certificate_untrusted'],
  ['UNABLE_TO_GET_ISSUER_CERT', 'certificate_untrusted'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'certificate_untrusted'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'certificate_untrusted'],
  ['CERT_SIGNATURE_FAILURE', 'certificate_untrusted'],
]);

/**
 * Does the TLS handshakes of connections that somebody else has accepted, and judges the peers' certificates. Nothing
 * of what a peer says inside TLS is read here.
 *
 * A session is never resumed: a ticket would stand for a certificate that may have expired since, or whose authority is
 * no longer believed. Nothing is negotiated anew within a connection.
 */
export class TlsAcceptor {
  readonly #server: Server;
  readonly #clientCertMode: ClientCertMode;
  /** The server tells of a handshake by its end alone; the context in which it was begun says whose it is. */
  readonly #handshakes = new AsyncLocalStorage<(secured: HandshakeResult) => void>();

  /** @throws TlsMaterialError */
  constructor(material: TlsMaterial, clientCertMode: ClientCertMode) {
    this.#clientCertMode = clientCertMode;
    this.#server = createServer({
      ...contextOptions(material),
      ALPNProtocols: ['h2'],
      requestCert: clientCertMode !== 'none',
      // Judged here, where it can be counted and said to the peer: Node would drop it without a word.
      rejectUnauthorized: false,
    });
    this.#server.on('secureConnection', (socket) => this.#handshakes.getStore()?.(this.#verifyPeer(socket)));
    this.#server.on('tlsClientError', (error: NodeJS.ErrnoException) =>
      this.#handshakes.getStore()?.({
        rejected: 'tls_handshake',
        detail: error.code ?? 'unknown',
        socket: undefined,
      }),
    );
  }

  /**
   * New connections get this; those that are open keep what they have.
   *
   * @throws TlsMaterialError and keeps what was there
   */
  replace(material: TlsMaterial): void {
    this.#server.setSecureContext(contextOptions(material));
  }

  /** Begins a handshake on a connection of which nothing has been read, or what was read put back. */
  accept(accepted: Socket, done: (secured: HandshakeResult) => void): void {
    this.#handshakes.run(done, () => this.#server.emit('connection', accepted));
  }

  #verifyPeer(socket: TLSSocket): HandshakeResult {
    // An error after the handshake ends the connection, which tells what is to be told.
    socket.on('error', () => {});
    if (this.#clientCertMode === 'none') return { socket, certificate: undefined };
    const peerCertificate = socket.getPeerX509Certificate();
    if (peerCertificate === undefined) {
      return this.#clientCertMode === 'optional'
        ? { socket, certificate: undefined }
        : { rejected: 'no_certificate', detail: 'none', socket };
    }
    if (!socket.authorized) {
      const code = String(socket.authorizationError);
      return { rejected: OPENSSL_REASONS.get(code) ?? 'certificate_invalid', detail: code, socket };
    }
    const certificate = certificateCredential(peerCertificate);
    return certificate === undefined
      ? { rejected: 'certificate_invalid', detail: 'subjectAltName', socket }
      : { socket, certificate };
  }
}

/** Checks all of it: Node takes a CA without a certificate for one that nobody is of. */
function contextOptions({ cert, key, clientCa }: TlsMaterial): SecureContextOptions {
  if (clientCa !== undefined) checkAuthorities(clientCa);
  // Empty ones Node takes for left out: a file is so for a moment when it is written in place.
  if (cert === '' || key === '') throw new TlsMaterialError('certificate and key: must not be empty');
  const options: SecureContextOptions = {
    cert,
    key,
    // Without it Node would believe every public authority.
    ca: clientCa ?? [],
    minVersion: 'TLSv1.2',
    ciphers: CIPHERS,
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
  try {
    createSecureContext(options);
  } catch (error) {
    throw new TlsMaterialError(`certificate and key: ${errorMessage(error)}`, { cause: error });
  }
  return options;
}

function checkAuthorities(pem: string): void {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (blocks.length === 0) throw new TlsMaterialError('client CA: contains no PEM certificate');
  for (const [i, block] of blocks.entries()) {
    try {
      void new X509Certificate(block);
    } catch (error) {
      throw new TlsMaterialError(`client CA: certificate ${i + 1}: ${errorMessage(error)}`, { cause: error });
    }
  }
}
