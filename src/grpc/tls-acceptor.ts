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
import { trustOptions } from '../tls-trust.ts';
import { certificateCredential, type Credential } from './credential.ts';
import type { ConnectionRejectionReason } from './rejections.ts';

/** The TLS material of the reporting port, as PEM. */
export interface TlsMaterial {
  /** The server's certificate, followed by its intermediate certificates. */
  readonly cert: string;
  readonly key: string;
  /** The CAs of client certificates; undefined if none are requested. */
  readonly clientCa: string | undefined;
}

/** Whether a client must present a certificate. A certificate that is presented must always be valid. */
export type ClientCertMode = 'required' | 'optional' | 'none';

/** The result of a TLS handshake. */
export type HandshakeResult =
  | {
      readonly socket: TLSSocket;
      /** Undefined if no certificate was requested, or if it was optional and not presented. */
      readonly certificate: Credential | undefined;
    }
  | {
      readonly rejected: ConnectionRejectionReason;
      /** An error code of OpenSSL or the system; never text from the peer. */
      readonly detail: string;
      /** For a response to the peer; undefined if the handshake was not completed. */
      readonly socket: TLSSocket | undefined;
    };

/** A key, certificate or CA cannot be used; the message is one line that names which of them, and the cause. */
export class TlsMaterialError extends Error {
  override readonly name = 'TlsMaterialError';
}

/** All of TLS 1.3, and those of TLS 1.2 that HTTP/2 does not prohibit (RFC 9113, section 9.2.2). */
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

/** Rejection reasons by OpenSSL's verification errors; any other error is `certificate_invalid`. */
const OPENSSL_REASONS: ReadonlyMap<string, ConnectionRejectionReason> = new Map([
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
 * Performs the TLS handshakes of accepted connections and verifies client certificates. Does not read any application
 * data.
 *
 * Sessions are never resumed: a ticket would stand for a certificate that may have expired in the meantime, or whose CA
 * is no longer trusted. Renegotiation is disabled.
 */
export class TlsAcceptor {
  readonly #server: Server;
  readonly #clientCertMode: ClientCertMode;
  /** The server's events do not identify the handshake; the async context in which it was started does. */
  readonly #handshakes = new AsyncLocalStorage<(result: HandshakeResult) => void>();

  /** @throws TlsMaterialError */
  constructor(material: TlsMaterial, clientCertMode: ClientCertMode) {
    this.#clientCertMode = clientCertMode;
    const options = contextOptions(material);
    this.#server = createServer({
      ...options,
      ALPNProtocols: ['h2'],
      requestCert: clientCertMode !== 'none',
      // Verified below, where it can be counted and reported to the peer: Node would close the connection silently.
      rejectUnauthorized: false,
    });
    useContext(this.#server, options);
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
   * Replaces the material for new connections; open connections are not affected.
   *
   * @throws TlsMaterialError and keeps the previous material
   */
  replace(material: TlsMaterial): void {
    useContext(this.#server, contextOptions(material));
  }

  /** Starts the handshake on a connection; everything that was read from it must have been unshifted. */
  accept(accepted: Socket, done: (result: HandshakeResult) => void): void {
    this.#handshakes.run(done, () => this.#server.emit('connection', accepted));
  }

  #verifyPeer(socket: TLSSocket): HandshakeResult {
    // An error after the handshake closes the connection, which is handled elsewhere.
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

/**
 * Makes a server use a context for new connections. `Server.setSecureContext` ignores `allowPartialTrustChain` (Node
 * 24.21), so the context that it creates is replaced by one that does not.
 */
function useContext(server: Server, options: SecureContextOptions): void {
  server.setSecureContext(options);
  Object.assign(server, { _sharedCreds: createSecureContext(options) });
}

/** Validates all of the material: Node accepts a CA file without a certificate, which would reject every client. */
function contextOptions({ cert, key, clientCa }: TlsMaterial): SecureContextOptions {
  if (clientCa !== undefined) checkAuthorities(clientCa);
  // Node treats an empty one as omitted; a file that is written in place is briefly empty.
  if (cert === '' || key === '') throw new TlsMaterialError('certificate and key: must not be empty');
  const options: SecureContextOptions = {
    cert,
    key,
    // Without a bundle, Node would trust every public CA.
    ...trustOptions(clientCa ?? []),
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
