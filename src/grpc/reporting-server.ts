import {
  logVerbosity,
  Server,
  ServerCredentials,
  setLogVerbosity,
  status,
  type ServerDuplexStream,
} from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import { reporterKey, type ReporterId } from '../core/tunnel.ts';
import { StreamAuthenticator } from './stream-authenticator.ts';
import { authenticateCalls, allowAnonymous, type AuthenticateCall } from './call-authentication.ts';
import { currentConnection, guardCalls, deliverOneByOne } from './call-guard.ts';
import { createStreamRejector } from './stream-rejections.ts';
import type { ConnectionGuard } from './connection-guard.ts';
import type { Credential } from './credential.ts';
import { DecodeScheduler } from './decode-scheduler.ts';
import { createDenialLog } from './denial-log.ts';
import { ackEncoder } from './encode-ack.ts';
import { addHealth } from './health.ts';
import { recordStatus } from './status-interceptor.ts';
import { Listener, type ConnectionLimits } from './listener.ts';
import { loadReportingService, type ReportResponse } from './proto.ts';
import { createConnectionRejector } from './connection-rejections.ts';
import { ALLOW_ALL, type ReportPolicy } from './report-policy.ts';
import { Session, type CloseReason, type SessionOptions } from './session.ts';
import { createLogThrottle } from '../log-throttle.ts';
import { streamDeadline } from './stream-deadline.ts';
import type { TlsAcceptor } from './tls-acceptor.ts';
import { TokenAuthenticator, type TokenReview } from './token-authenticator.ts';

// Every failure that it would print in its own format on stderr also comes as an error, and is logged from there.
setLogVerbosity(logVerbosity.NONE);

/** HTTP/2 pings find a peer that is gone without a FIN within 40 s. */
const KEEPALIVE_TIME_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** A reporter keeps its stream open; what has none, and opens none, is let go. */
const IDLE_MS = 300_000;
/**
 * A proxy that carries more reporters opens another connection. All streams of a connection end in one go with it, at
 * some 0.1 ms each.
 */
const STREAMS_PER_CONNECTION = 200;
/**
 * A reporter whose stream ended by its age is not said to be lost for so long: Envoy comes back after 5 s, and a status,
 * two events and a claim for each stream and hour would say nothing.
 */
const RECONNECT_GRACE_MS = 10_000;
/** Streams that are rechecked in one turn of the event loop: a millisecond, or some 25 ms where all of them end. */
const REAUTHORIZATIONS_PER_TICK = 256;
const MIB = 1024 * 1024;

/** With memory for messages of `maxMessageSizeBytes`: four of the greatest, or all full pushes of 2,000,000 tunnels. */
function defaultLimits(maxMessageSizeBytes: number): ConnectionLimits {
  return {
    connections: 10_000,
    connectionsPerAddress: 2000,
    handshakeTimeoutMs: 10_000,
    streams: 20_000,
    bufferedBytes: Math.max(256 * MIB, 4 * maxMessageSizeBytes),
    pendingAuthentications: 4000,
  };
}

/** Who may report. */
export type ServerAuth =
  /** Whoever reaches the port; in plaintext, and by TLS where there is something to show. */
  | { readonly mode: 'insecure'; readonly tls: TlsAcceptor | undefined }
  /** Who has a certificate; `tls` requires it. */
  | { readonly mode: 'mtls'; readonly tls: TlsAcceptor }
  /** Who has a ServiceAccount's token for the audience; or, with `mtls-or-token`, a certificate, for which `tls` asks. */
  | {
      readonly mode: 'token' | 'mtls-or-token';
      readonly tls: TlsAcceptor;
      readonly audience: string;
      /** Has the API server look at a token; rejects when it gives no answer, without a word of the token. */
      readonly reviewToken: (token: string) => Promise<TokenReview>;
    };

/**
 * How the service is served: what each session is held to, and where, by whom and for how long a stream may be opened.
 */
export interface ReportingServerOptions extends Omit<
  SessionOptions,
  'decodeNode' | 'onIdentified' | 'onClosed' | 'yieldTurn' | 'policy' | 'denials' | 'throttled'
> {
  /** Default: everybody may report everything. */
  readonly policy?: ReportPolicy;
  /** `host:port`; port 0 picks a free one. */
  readonly address: string;
  /** The greatest report, in bytes. A larger one ends its stream with RESOURCE_EXHAUSTED. */
  readonly maxMessageSizeBytes: number;
  /** Whether grpc.reflection.v1 tells what is served: for people with grpcurl, and so for everybody. Default: false. */
  readonly reflection?: boolean;
  readonly auth: ServerAuth;
  /** A stream ends when it is about so old, at least 1. */
  readonly maxStreamAgeMs: number;
  /** 0 to 1, for jitter. */
  readonly random: () => number;
  /** Default: what a fleet of 10,000 reporters needs. */
  readonly limits?: Partial<ConnectionLimits>;
}

/** The address cannot be listened on; the message says which and why. */
export class ListenError extends Error {
  override readonly name = 'ListenError';
}

/**
 * Serves ReverseTunnelReportingService and grpc.health.v1. Of the streams of one reporter the newest is served: a
 * reporter that comes back is not kept waiting until its old connection is found dead.
 */
export class ReportingServer {
  readonly #options: ReportingServerOptions;
  readonly #server: Server;
  readonly #listener: Listener;
  readonly #health = new HealthImplementation();
  readonly #serviceName: string;
  readonly #authenticator: StreamAuthenticator;
  /** With what ends the wait for the end of its life. */
  readonly #sessions = new Map<Session, () => void>();
  /** Those that are still to be asked for since the policy changed. */
  #reauthorizationQueue: Session[] = [];
  /** Streams opened so far. */
  #streamsOpened = 0;
  readonly #byReporter = new Map<string, Session>();
  /** Reporters that are to come back, with what ends the wait for them. */
  readonly #reconnecting = new Map<string, () => void>();

  constructor(options: ReportingServerOptions) {
    this.#options = options;
    const { auth } = options;
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
      // Books on every connection and call, which nobody reads.
      'grpc.enable_channelz': 0,
    });
    const injector = this.#server.createConnectionInjector(ServerCredentials.createInsecure());
    this.#listener = new Listener({
      limits: { ...defaultLimits(options.maxMessageSizeBytes), ...options.limits },
      maxMessageSizeBytes: options.maxMessageSizeBytes,
      tls: auth.tls,
      plaintext: auth.mode === 'insecure',
      inject: (connection) => injector.injectConnection(connection),
      reject: createConnectionRejector(options),
      clock: options.clock,
      log: options.log,
    });
    const { service, name, definitions, decodeNode } = loadReportingService();
    this.#serviceName = name;
    const scheduler = new DecodeScheduler();
    const sessionOptions: Omit<SessionOptions, 'yieldTurn'> = {
      ...options,
      policy: options.policy ?? ALLOW_ALL,
      denials: createDenialLog(options.clock, options.log),
      throttled: createLogThrottle(options.clock),
      decodeNode,
      onIdentified: (session) => this.#onIdentified(session),
      onClosed: (session, reason) => this.#onClosed(session, reason),
    };
    const method = service.StreamReverseTunnels;
    const acked = { ...method, responseSerialize: ackEncoder(method.responseSerialize) };
    this.#server.addService(
      { StreamReverseTunnels: acked },
      {
        StreamReverseTunnels: (call: ServerDuplexStream<Buffer, ReportResponse>) => {
          this.#streamsOpened += 1;
          const number = this.#streamsOpened;
          deliverOneByOne(call);
          const connection = currentConnection();
          const yieldTurn = (): Promise<void> => scheduler.wait(connection ?? call);
          this.#authenticator.authenticate(call, connection, (credential) => {
            const session = new Session(call, number, credential.peer, { ...sessionOptions, yieldTurn });
            this.#sessions.set(session, this.#startDeadlineTimer(session, credential, connection));
            session.reauthorize();
          });
        },
      },
    );
    addHealth(this.#server, this.#health, ['', name]);
    if (options.reflection === true) {
      new ReflectionService(definitions, { services: [name] }).addToServer(this.#server);
    }
    this.setServing(false);
  }

  /** Reporters with an open stream that has said whose it is. */
  get connectedReporters(): number {
    return this.#byReporter.size;
  }

  /** Sets what grpc.health.v1 answers, for the whole server and for the service. */
  setServing(serving: boolean): void {
    this.#health.setStatus('', serving ? 'SERVING' : 'NOT_SERVING');
    this.#health.setStatus(this.#serviceName, serving ? 'SERVING' : 'NOT_SERVING');
  }

  /**
   * The policy may answer otherwise than before: ends the streams that it does not let in any more, some in each turn
   * of the event loop. Those that are opened meanwhile are asked for anyway.
   */
  reauthorize(): void {
    const isRunning = this.#reauthorizationQueue.length > 0;
    // Named ones first: they have reporters for which something may be written.
    this.#reauthorizationQueue = [...new Set([...this.#byReporter.values(), ...this.#sessions.keys()])];
    if (!isRunning) this.#reauthorizeNext();
  }

  /**
   * Listens.
   *
   * @returns the address with the port that was bound
   * @throws ListenError when the address is taken, not this machine's, or not an address
   */
  async listen(): Promise<string> {
    const { address } = this.#options;
    try {
      return await this.#listener.listen(address);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new ListenError(`cannot listen on ${address}: ${why}`, { cause: error });
    }
  }

  /**
   * Stops taking streams, ends those that are open once their last ACK is out (GOAWAY, then UNAVAILABLE), and resolves
   * when the port is free and every connection closed; connections that do not close within `graceMs` are cut.
   */
  async close(graceMs: number): Promise<void> {
    this.setServing(false);
    const closed = Promise.all([
      this.#listener.close(),
      new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve())),
    ]);
    this.#authenticator.close();
    for (const session of this.#sessions.keys()) {
      session.close('shutdown', status.UNAVAILABLE, 'the operator is shutting down');
    }
    for (const cancelGracePeriod of this.#reconnecting.values()) cancelGracePeriod();
    this.#reconnecting.clear();
    const cancel = this.#options.clock.setTimer(graceMs, () => {
      this.#server.forceShutdown();
      this.#listener.destroy();
    });
    await closed;
    cancel();
  }

  /** Ends the stream at its age or with its peer's credential. The answer ends the wait for that. */
  #startDeadlineTimer(
    session: Session,
    { expiresMs }: Credential,
    connection: ConnectionGuard | undefined,
  ): () => void {
    const { clock, maxStreamAgeMs, random } = this.#options;
    // A token comes with each stream, and a proxy may carry many streams on one connection; a certificate is shown once.
    const credentialAgeMs = connection?.certificate === undefined ? 0 : connection.ageMs;
    const { ttlMs, reason, details } = streamDeadline(
      expiresMs,
      maxStreamAgeMs,
      credentialAgeMs,
      clock.wallMs(),
      random(),
    );
    return clock.setTimer(ttlMs, () => {
      // First, so that the peer does not open its next stream on it, by the certificate of then.
      connection?.drain();
      session.close(reason, status.UNAVAILABLE, details);
    });
  }

  #reauthorizeNext(): void {
    for (const session of this.#reauthorizationQueue.splice(0, REAUTHORIZATIONS_PER_TICK))
      session.reauthorize();
    if (this.#reauthorizationQueue.length > 0) this.#options.clock.setTimer(0, () => this.#reauthorizeNext());
  }

  #onIdentified(session: Session): void {
    const { reporter } = session;
    if (reporter === undefined) return;
    const key = reporterKey(reporter);
    this.#reconnecting.get(key)?.();
    const isReconnect = this.#reconnecting.delete(key);
    const existing = this.#byReporter.get(key);
    if (existing === undefined) {
      this.#options.log.info({ reporter }, 'reporter connected');
      this.#options.sink.reporterConnected(reporter, session.envoy, session.peer, isReconnect);
      this.#byReporter.set(key, session);
    } else if (existing.number < session.number) {
      this.#options.sink.reporterConnected(reporter, session.envoy, session.peer, isReconnect);
      this.#byReporter.set(key, session);
      this.#supersede(existing, reporter);
    } else {
      // By the order in which they were opened: the first report of an older stream may be large and come late.
      this.#supersede(session, reporter);
    }
    this.#options.metrics.reportersConnected.set(this.#byReporter.size);
  }

  #supersede(older: Session, reporter: ReporterId): void {
    this.#options.log.info({ reporter }, 'newer stream of this reporter supersedes the older one');
    older.close('superseded', status.ABORTED, 'superseded by a newer stream of the same reporter');
  }

  #onClosed(session: Session, reason: CloseReason): void {
    this.#sessions.get(session)?.();
    this.#sessions.delete(session);
    const { reporter } = session;
    if (reporter === undefined) return;
    const key = reporterKey(reporter);
    // Superseded: the place belongs to the newer stream.
    if (this.#byReporter.get(key) !== session) return;
    this.#byReporter.delete(key);
    const { clock, log, metrics, sink } = this.#options;
    metrics.reportersConnected.set(this.#byReporter.size);
    if (reason === 'max_age' || reason === 'credential_expired') {
      const cancelGracePeriod = clock.setTimer(RECONNECT_GRACE_MS, () => {
        this.#reconnecting.delete(key);
        log.info({ reporter }, 'reporter disconnected; it did not reconnect in time');
        sink.reporterDisconnected(reporter, 'StreamEnded');
      });
      this.#reconnecting.set(key, cancelGracePeriod);
      return;
    }
    log.info({ reporter }, 'reporter disconnected');
    sink.reporterDisconnected(reporter, disconnectReason(reason));
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

/** As the sink is told of a stream's end. */
function disconnectReason(
  reason: CloseReason,
): 'StreamEnded' | 'HeartbeatTimeout' | 'PolicyDenied' | 'shutdown' {
  if (reason === 'shutdown') return reason;
  if (reason === 'policy') return 'PolicyDenied';
  return reason === 'heartbeat_timeout' ? 'HeartbeatTimeout' : 'StreamEnded';
}
