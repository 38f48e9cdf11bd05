import {
  logVerbosity,
  Server,
  ServerCredentials,
  setLogVerbosity,
  status,
  type ServerDuplexStream,
} from '@grpc/grpc-js';
import { errorMessage } from '../error-message.ts';
import { createLogThrottle } from '../log-throttle.ts';
import { currentConnection, guardCalls, openReportCall } from './call-guard.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import { DecodeScheduler } from './decode-scheduler.ts';
import { decodeNode } from './decode-node.ts';
import { Health } from './health.ts';
import { Listener, type ConnectionLimits } from './listener.ts';
import type { ReportResponse } from './messages.ts';
import { createConnectionRejector, createStreamRejector } from './rejections.ts';
import { REPORTING_SERVICE, REPORTING_SERVICE_NAME } from './reporting-service.ts';
import { ALLOW_ALL_REPORTS, type ReportPolicy } from './session-dependencies.ts';
import { Session, type SessionOptions } from './session.ts';
import { recordStatus } from './status-interceptor.ts';
import {
  allowAnonymous,
  authenticateCalls,
  StreamAuthenticator,
  type AuthenticateCall,
} from './stream-authenticator.ts';
import { StreamRegistry } from './stream-registry.ts';
import { streamDeadline } from './stream-timeouts.ts';
import type { TlsAcceptor } from './tls-acceptor.ts';
import { TokenAuthenticator, type TokenReview } from './token-authenticator.ts';

// grpc-js would write failures to stderr in its own format; each of them also arrives as an error and is logged.
setLogVerbosity(logVerbosity.NONE);

/** HTTP/2 pings detect a peer that disappeared without a FIN within 40 s. */
const KEEPALIVE_TIME_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** A reporter keeps its stream open; a connection without streams is closed after this time. */
const IDLE_MS = 300_000;
/**
 * A proxy with more reporters opens further connections. All streams of a connection end at once with it, at some
 * 0.1 ms each.
 */
const STREAMS_PER_CONNECTION = 200;
/** Streams that are reauthorized per tick of the event loop: 1 ms, or some 25 ms if all of them are closed. */
const REAUTHORIZATIONS_PER_TICK = 256;
const MIB = 1024 * 1024;

/** Default maximum number of open connections, of all addresses together. */
export const MAX_CONNECTIONS = 10_000;

/** `bufferedBytes` holds four messages of the maximum size, or the full pushes of 2,000,000 tunnels. */
function defaultLimits({
  maxMessageSizeBytes,
  maxConnectionsPerAddress,
}: ReportingServerOptions): ConnectionLimits {
  return {
    connections: Math.max(MAX_CONNECTIONS, maxConnectionsPerAddress),
    connectionsPerAddress: maxConnectionsPerAddress,
    handshakeTimeoutMs: 10_000,
    streams: 20_000,
    bufferedBytes: Math.max(256 * MIB, 4 * maxMessageSizeBytes),
    pendingAuthentications: 4000,
  };
}

/** How clients are authenticated. */
export type ServerAuth =
  /** Accepts any client, over plaintext and, if `tls` is given, over TLS on the same port. */
  | { readonly mode: 'insecure'; readonly tls: TlsAcceptor | undefined }
  /** Accepts clients with a certificate, which `tls` must require. */
  | { readonly mode: 'mtls'; readonly tls: TlsAcceptor }
  /**
   * Accepts clients with a ServiceAccount token for the audience; with `mtls-or-token`, also clients with a
   * certificate, which `tls` must request.
   */
  | {
      readonly mode: 'token' | 'mtls-or-token';
      readonly tls: TlsAcceptor;
      readonly audience: string;
      /** Sends a TokenReview; rejects if the API server does not answer, with an error that does not contain the token. */
      readonly reviewToken: (token: string) => Promise<TokenReview>;
    };

/** The limits of each session, and how and where the service is served. */
export interface ReportingServerOptions extends Omit<
  SessionOptions,
  'decodeNode' | 'onIdentified' | 'onClosed' | 'yieldTurn' | 'policy' | 'throttled' | 'throttledDenials'
> {
  /** Default: every peer may report everything. */
  readonly policy?: ReportPolicy;
  /** `host:port`; port 0 selects a free port. */
  readonly address: string;
  /** The maximum size of a report. A larger one ends its stream with RESOURCE_EXHAUSTED. */
  readonly maxMessageSizeBytes: number;
  /** The maximum number of open connections per IP address. */
  readonly maxConnectionsPerAddress: number;
  /** Whether to serve grpc.reflection.v1, for users of grpcurl; no authentication is required. Default: false. */
  readonly reflection?: boolean;
  readonly auth: ServerAuth;
  /** The maximum age of a stream, ±10 %; at least 1. */
  readonly maxStreamAgeMs: number;
  /** Returns a number from 0 to 1, for jitter. */
  readonly random: () => number;
  /** Default: enough for a fleet of 10,000 reporters. */
  readonly limits?: Partial<ConnectionLimits>;
}

/** The server cannot listen on the address; the message names the address and the cause. */
export class ListenError extends Error {
  override readonly name = 'ListenError';
}

/** Serves ReverseTunnelReportingService and grpc.health.v1. */
export class ReportingServer {
  readonly #options: ReportingServerOptions;
  readonly #server: Server;
  readonly #listener: Listener;
  readonly #health = new Health(['', REPORTING_SERVICE_NAME]);
  readonly #authenticator: StreamAuthenticator;
  readonly #registry: StreamRegistry;
  /** Open sessions, with the function that cancels the timer of their deadline. */
  readonly #sessions = new Map<Session, () => void>();
  /** Sessions that have not been reauthorized since the last policy change. */
  #reauthorizationQueue: Session[] = [];
  #streamsOpened = 0;

  constructor(options: ReportingServerOptions) {
    this.#options = options;
    const { auth } = options;
    this.#registry = new StreamRegistry(options);
    this.#authenticator = new StreamAuthenticator({
      authenticate: createCallAuthenticator(options),
      reject: createStreamRejector(options),
      clock: options.clock,
    });
    this.#server = new Server({
      'grpc.max_receive_message_length': options.maxMessageSizeBytes,
      interceptors: [recordStatus, guardCalls],
      'grpc.keepalive_time_ms': KEEPALIVE_TIME_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.max_connection_idle_ms': IDLE_MS,
      'grpc.max_concurrent_streams': STREAMS_PER_CONNECTION,
      // Statistics per connection and call, which nothing reads.
      'grpc.enable_channelz': 0,
    });
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#listener = new Listener({
      limits: { ...defaultLimits(options), ...options.limits },
      maxMessageSizeBytes: options.maxMessageSizeBytes,
      tls: auth.tls,
      plaintext: auth.mode === 'insecure',
      inject: (connection) => injector.injectConnection(connection),
      reject: createConnectionRejector(options),
      clock: options.clock,
      log: options.log,
    });
    const scheduler = new DecodeScheduler();
    const sessionOptions: Omit<SessionOptions, 'yieldTurn'> = {
      ...options,
      policy: options.policy ?? ALLOW_ALL_REPORTS,
      throttled: createLogThrottle(options.clock),
      throttledDenials: createLogThrottle(options.clock),
      decodeNode,
      onIdentified: (session) => this.#registry.onIdentified(session),
      onClosed: (session, reason) => {
        this.#sessions.get(session)?.();
        this.#sessions.delete(session);
        this.#registry.onClosed(session, reason);
      },
    };
    this.#server.addService(REPORTING_SERVICE, {
      StreamReverseTunnels: (call: ServerDuplexStream<Buffer, ReportResponse>) => {
        this.#streamsOpened += 1;
        const number = this.#streamsOpened;
        const connection = currentConnection();
        const yieldTurn = (): Promise<void> => scheduler.wait(connection ?? call);
        this.#authenticator.authenticate(call, connection, (credential) => {
          const reports = openReportCall(call);
          const session = new Session(reports, number, credential.peer, { ...sessionOptions, yieldTurn });
          this.#sessions.set(session, this.#startDeadlineTimer(session, credential, connection));
          session.reauthorize();
          reports.resume();
        });
      },
    });
    this.#health.addToServer(this.#server);
  }

  /** The number of reporters with an identified stream. */
  get connectedReporters(): number {
    return this.#registry.size;
  }

  /** Sets the status that grpc.health.v1 returns for the whole server and for the service. */
  setServing(serving: boolean): void {
    this.#health.setServing(serving);
  }

  /**
   * Must be called when the answers of the policy change: closes the streams that it no longer allows, a limited number
   * per tick of the event loop. Streams that are opened meanwhile are authorized when they start.
   */
  reauthorize(): void {
    const isRunning = this.#reauthorizationQueue.length > 0;
    // Identified streams first: objects may be written for their reporters.
    this.#reauthorizationQueue = [...new Set([...this.#registry.sessions(), ...this.#sessions.keys()])];
    if (!isRunning) this.#reauthorizeNext();
  }

  /**
   * Starts listening.
   *
   * @returns the address with the bound port
   * @throws ListenError if the address is in use, not local, or invalid
   */
  async listen(): Promise<string> {
    const { address, reflection } = this.#options;
    if (reflection === true) (await import('./reflection.ts')).addReflection(this.#server);
    try {
      return await this.#listener.listen(address);
    } catch (error) {
      throw new ListenError(`cannot listen on ${address}: ${errorMessage(error)}`, { cause: error });
    }
  }

  /**
   * Stops accepting streams, and ends the open ones after their last ACK (GOAWAY, then UNAVAILABLE). Resolves when the
   * port is free and every connection is closed; connections that stay open longer than `graceMs` are destroyed.
   */
  async close(graceMs: number): Promise<void> {
    this.setServing(false);
    const closed = this.#listener.close();
    // Not awaited: grpc-js never calls back if a connection fails just before. It waits for Node's session to close, which
    // ignores that while it is being destroyed. The listener knows when each connection is closed.
    this.#server.tryShutdown(() => {});
    this.#authenticator.close();
    for (const session of this.#sessions.keys()) {
      session.close('shutdown', status.UNAVAILABLE, 'the operator is shutting down');
    }
    this.#registry.stop();
    const cancel = this.#options.clock.setTimer(graceMs, () => {
      this.#server.forceShutdown();
      this.#listener.destroy();
    });
    await closed;
    cancel();
  }

  /** Starts the timer that closes the session at its deadline; returns the function that cancels it. */
  #startDeadlineTimer(
    session: Session,
    { expiresMs }: Credential,
    connection: ConnectionGuard | undefined,
  ): () => void {
    const { clock, maxStreamAgeMs, random } = this.#options;
    // A token is sent with each stream, a certificate only once per connection, which a proxy may use for many streams.
    const credentialAgeMs = connection?.certificate === undefined ? 0 : connection.ageMs;
    const { ttlMs, reason, details } = streamDeadline(
      expiresMs,
      maxStreamAgeMs,
      credentialAgeMs,
      clock.wallMs(),
      random(),
    );
    return clock.setTimer(ttlMs, () => {
      // First, so that the peer opens its next stream on a new connection and presents its current certificate.
      connection?.drain();
      session.close(reason, status.UNAVAILABLE, details);
    });
  }

  #reauthorizeNext(): void {
    for (const session of this.#reauthorizationQueue.splice(0, REAUTHORIZATIONS_PER_TICK))
      session.reauthorize();
    if (this.#reauthorizationQueue.length > 0) this.#options.clock.setTimer(0, () => this.#reauthorizeNext());
  }
}

function createCallAuthenticator({
  auth,
  maxStreamAgeMs,
  clock,
  log,
}: ReportingServerOptions): AuthenticateCall {
  if (auth.mode === 'insecure') return allowAnonymous;
  if (auth.mode === 'mtls') return authenticateCalls(clock, maxStreamAgeMs, undefined);
  const { audience, reviewToken } = auth;
  const tokens = new TokenAuthenticator({ review: reviewToken, audience, clock, log });
  return authenticateCalls(clock, maxStreamAgeMs, tokens);
}
