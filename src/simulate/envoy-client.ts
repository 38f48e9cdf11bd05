import type { Clock } from '../clock.ts';
import type { ReporterId } from '../core/tunnel.ts';
import type {
  ReportMessage,
  ReportStream,
  ReportedTunnel,
  ResponseMessage,
  StreamHandlers,
  StreamStatus,
} from '../grpc/report-message.ts';

/**
 * Envoy's client of the reporting service, as a state machine without a network and without a clock of its own.
 * Modelled on Envoy 1.38 to 1.40, contrib/reverse_tunnel_reporter, clients/grpc_client.
 *
 *   state     | event                         | what happens                                          | next
 *   ----------|-------------------------------|-------------------------------------------------------|----------
 *   stopped   | start                         | open a stream (below)                                 | streaming
 *   streaming | opened                        | nonce epoch begins at 0; queue := everything; send     | streaming
 *             | send is due, unacked > max    | reset (max_retries_exceeded), arm retry                | waiting
 *             | send is due                   | send the queue, maybe empty, as nonce + 1; arm send    | streaming
 *             | ACK, acked < n <= current     | acked := n; interval := the one told, for later sends  | streaming
 *             | ACK, any other n              | counted as out of order; its interval is not taken     | streaming
 *             | NACK                          | reset (nack_received), arm retry                       | waiting
 *             | the server ends it, OK or not | (remote_close), arm retry                              | waiting
 *             | updates beyond the buffer     | drop them, reset (buffer_overflow), arm retry          | waiting
 *   waiting   | retry is due                  | open a stream; refused: (stream_creation_failed), arm  | streaming
 *             | updates                       | queued; the full push to come supersedes them          | waiting
 *   any       | stop                          | reset, no timers                                       | stopped
 *
 * The interval survives reconnects. A send that is already scheduled keeps its time when the interval changes.
 */
export interface EnvoyClient {
  /** Opens the first stream. Once only: an Envoy that restarts is a new client. */
  start(): void;
  /** Queues what changed, in the order of time. Ignored unless started: the first full push will have it. */
  receive(updates: TunnelUpdates): void;
  /** Ends the stream and all timers, for good. */
  stop(): void;
  /** True when the server has ACKed this stream's full push and everything that changed since. */
  settled(): boolean;
  /** True when the present stream has been ACKed at least once. */
  connected(): boolean;
}

/** What changed: two lists, as on the wire, which is where the order between them is lost. */
export interface TunnelUpdates {
  readonly connections: readonly ReportedTunnel[];
  readonly disconnections: readonly string[];
}

export interface EnvoyClientConfig {
  readonly node: ReporterId;
  /** `default_send_interval`, until the server says otherwise. Envoy's default is 5000. */
  readonly sendIntervalMs: number;
  /** `connect_retry_interval`, without jitter. Envoy's default is 5000. */
  readonly connectRetryIntervalMs: number;
  /** More unacknowledged reports than this when the next is due end the stream. Envoy's default is 5. */
  readonly maxRetries: number;
  /** Updates that may wait for the next send; full pushes have no limit. Envoy's default is 1,000,000. */
  readonly maxBufferCount: number;
  /** Leave `node` out after a stream's first report: Envoy never does, xDS clients may. */
  readonly nodeOnFirstOnly: boolean;
}

/** Why a stream ended, in Envoy's words (its `disconnect_reason` label). */
export type DisconnectReason =
  'buffer_overflow' | 'max_retries_exceeded' | 'nack_received' | 'remote_close' | 'stream_creation_failed';

/** What happened, told after the state has changed. */
export type ClientEvent =
  | { readonly type: 'connecting' }
  | { readonly type: 'sent'; readonly report: ReportMessage }
  | {
      readonly type: 'acked';
      /** True for the first ACK of a stream. */
      readonly first: boolean;
      /** From send to ACK, for each report that this ACK covers: several when it is cumulative. */
      readonly latenciesMs: readonly number[];
    }
  | { readonly type: 'outOfOrderAck'; readonly requestNonce: bigint }
  | { readonly type: 'queued' }
  | { readonly type: 'overflowed'; readonly droppedUpdates: number }
  | {
      readonly type: 'disconnected';
      readonly reason: DisconnectReason;
      /** What the server said, for `remote_close` and `nack_received`. */
      readonly status: StreamStatus | undefined;
      /** True when that stream had been ACKed. */
      readonly wasConnected: boolean;
    }
  | { readonly type: 'stopped'; readonly wasConnected: boolean };

export interface EnvoyClientDependencies {
  readonly clock: Clock;
  /** Undefined when no stream can be made at all. A connection that fails later ends the stream by `onEnd`. */
  openStream(handlers: StreamHandlers): ReportStream | undefined;
  /** Everything that is up now, for a full push, in a new array: the report keeps it. */
  allTunnels(): ReportedTunnel[];
  observe(event: ClientEvent): void;
}

/** One client, stopped. See `EnvoyClient`. */
export function createEnvoyClient(config: EnvoyClientConfig, deps: EnvoyClientDependencies): EnvoyClient {
  const { clock } = deps;
  let started = false;
  let sendIntervalMs = config.sendIntervalMs;
  let stream: ReportStream | undefined;
  // Streams tell apart what is theirs by it: an answer to a stream that was reset must not reach the next one.
  let epoch = 0;
  let nonceCurrent = 0n;
  let nonceAcked = 0n;
  let lastNonceWithContent = 0n;
  // When each report beyond nonceAcked was sent, oldest first: never more than maxRetries + 1 of them.
  let unackedSentAtMs: number[] = [];
  let connections: ReportedTunnel[] = [];
  let disconnections: string[] = [];
  let cancelSend: (() => void) | undefined;
  let cancelRetry: (() => void) | undefined;

  function connect(): void {
    const streamEpoch = ++epoch;
    deps.observe({ type: 'connecting' });
    stream = deps.openStream({
      onResponse: (response) => streamEpoch === epoch && onResponse(response),
      onEnd: (status) => streamEpoch === epoch && disconnect('remote_close', status),
    });
    if (stream === undefined) {
      disconnect('stream_creation_failed', undefined);
      return;
    }
    nonceCurrent = nonceAcked = lastNonceWithContent = 0n;
    unackedSentAtMs = [];
    // Whatever was queued is older than this snapshot.
    connections = deps.allTunnels();
    disconnections = [];
    send(true);
  }

  function send(fullPush: boolean): void {
    if (stream === undefined) return;
    if (nonceCurrent - nonceAcked > BigInt(config.maxRetries)) {
      disconnect('max_retries_exceeded', undefined);
      return;
    }
    nonceCurrent += 1n;
    const report: ReportMessage = {
      node: config.nodeOnFirstOnly && nonceCurrent > 1n ? undefined : config.node,
      added: connections,
      removedNames: disconnections,
      fullPush,
      nonce: nonceCurrent,
    };
    if (fullPush || connections.length + disconnections.length > 0) lastNonceWithContent = nonceCurrent;
    unackedSentAtMs.push(clock.monotonicMs());
    // The report owns the lists now: a transport under backpressure reads them later.
    connections = [];
    disconnections = [];
    deps.observe({ type: 'sent', report });
    const sentEpoch = epoch;
    stream.send(report);
    // The answer may have come within send() and ended this stream; a timer would then outlive it.
    if (sentEpoch === epoch) cancelSend = clock.setTimer(sendIntervalMs, () => send(false));
  }

  function onResponse(response: ResponseMessage): void {
    if (response.error !== undefined) {
      disconnect('nack_received', response.error);
      return;
    }
    const nonce = response.requestNonce;
    if (nonce <= nonceAcked || nonce > nonceCurrent) {
      deps.observe({ type: 'outOfOrderAck', requestNonce: nonce });
      return;
    }
    const nowMs = clock.monotonicMs();
    const covered = unackedSentAtMs.splice(0, Number(nonce - nonceAcked));
    const first = nonceAcked === 0n;
    nonceAcked = nonce;
    if (response.reportIntervalMs !== undefined) sendIntervalMs = response.reportIntervalMs;
    deps.observe({ type: 'acked', first, latenciesMs: covered.map((sentAtMs) => nowMs - sentAtMs) });
  }

  function disconnect(reason: DisconnectReason, status: StreamStatus | undefined): void {
    const wasConnected = connected();
    closeStream();
    cancelRetry = clock.setTimer(config.connectRetryIntervalMs, connect);
    deps.observe({ type: 'disconnected', reason, status, wasConnected });
  }

  function connected(): boolean {
    return stream !== undefined && nonceAcked > 0n;
  }

  function closeStream(): void {
    epoch += 1;
    stream?.reset();
    stream = undefined;
    cancelSend?.();
    cancelRetry?.();
  }

  return {
    start() {
      if (epoch > 0) throw new Error('an Envoy client is started once; make a new one');
      started = true;
      connect();
    },
    receive(updates) {
      if (!started) return;
      const incoming = updates.connections.length + updates.disconnections.length;
      if (incoming + connections.length + disconnections.length > config.maxBufferCount) {
        deps.observe({ type: 'overflowed', droppedUpdates: incoming });
        // While waiting, a second disconnect would only push the retry further away.
        if (stream !== undefined) disconnect('buffer_overflow', undefined);
        return;
      }
      for (const tunnel of updates.connections) connections.push(tunnel);
      for (const name of updates.disconnections) disconnections.push(name);
      deps.observe({ type: 'queued' });
    },
    stop() {
      if (!started) return;
      started = false;
      const wasConnected = connected();
      closeStream();
      deps.observe({ type: 'stopped', wasConnected });
    },
    settled: () =>
      connected() && nonceAcked >= lastNonceWithContent && connections.length + disconnections.length === 0,
    connected,
  };
}
