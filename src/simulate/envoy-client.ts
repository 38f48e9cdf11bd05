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
 * Envoy's client of the reporting service, as a state machine whose network and clock are injected. Modelled on Envoy 1.38
 * to 1.40, contrib/reverse_tunnel_reporter, clients/grpc_client.
 *
 *   state     | event                         | action                                                | next
 *   ----------|-------------------------------|-------------------------------------------------------|----------
 *   stopped   | start                         | open a stream (below)                                 | streaming
 *   streaming | opened                        | nonces restart at 0; queue := all tunnels; send       | streaming
 *             | send is due, unacked > max    | reset (max_retries_exceeded), arm retry               | waiting
 *             | send is due                   | send the queue, even if empty, as nonce + 1; arm send | streaming
 *             | ACK, acked < n <= current     | acked := n; use its interval for later sends          | streaming
 *             | ACK, any other n              | count as out of order; ignore its interval            | streaming
 *             | NACK                          | reset (nack_received), arm retry                      | waiting
 *             | server ends stream, OK or not | (remote_close), arm retry                             | waiting
 *             | updates beyond the buffer     | drop them, reset (buffer_overflow), arm retry         | waiting
 *   waiting   | retry is due                  | open a stream; failed: (stream_creation_failed), arm  | streaming
 *             | updates                       | queue them; the next full push supersedes them        | waiting
 *   any       | stop                          | reset, cancel all timers                              | stopped
 *
 * The interval is kept across reconnects. When it changes, a send that is already scheduled keeps its time.
 */
export interface EnvoyClient {
  /** Opens the first stream. Throws if called twice: an Envoy that restarts is a new client. */
  start(): void;
  /** Queues changes, in chronological order. They are ignored before the start, as the first full push includes them. */
  receive(updates: TunnelUpdates): void;
  /** Ends the stream and all timers permanently. */
  stop(): void;
  /** Reports whether the server has ACKed this stream's full push and all later changes. */
  settled(): boolean;
  /** Reports whether the current stream has been ACKed at least once. */
  connected(): boolean;
}

/** Changes as two lists, as on the wire; the order between the lists is lost. */
export interface TunnelUpdates {
  readonly connections: readonly ReportedTunnel[];
  readonly disconnections: readonly string[];
}

/** The configuration of an Envoy's client, with Envoy's field names in the comments. */
export interface EnvoyClientConfig {
  readonly node: ReporterId;
  /** `default_send_interval`, until the server sends another one. Envoy's default is 5000. */
  readonly sendIntervalMs: number;
  /** `connect_retry_interval`, without jitter. Envoy's default is 5000. */
  readonly connectRetryIntervalMs: number;
  /** `max_retries`: the stream is reset if more reports are unacknowledged when the next one is due. Envoy's default is 5. */
  readonly maxRetries: number;
  /** `max_buffer_count`: updates that can be queued for the next send; full pushes are unlimited. Envoy's default is 1,000,000. */
  readonly maxBufferCount: number;
  /** Whether `node` is omitted after the first report of a stream. Envoy never omits it; xDS clients may. */
  readonly nodeOnFirstOnly: boolean;
}

/** Why a stream ended: the values of Envoy's label `disconnect_reason`. */
export type EnvoyDisconnectReason =
  'buffer_overflow' | 'max_retries_exceeded' | 'nack_received' | 'remote_close' | 'stream_creation_failed';

/** An event of a client, emitted after its state has changed. */
export type ClientEvent =
  | { readonly type: 'connecting' }
  | { readonly type: 'sent'; readonly report: ReportMessage }
  | {
      readonly type: 'acked';
      /** True for the first ACK of a stream. */
      readonly first: boolean;
      /** Latency from send to ACK of each report that this ACK covers; a cumulative ACK covers several. */
      readonly latenciesMs: readonly number[];
    }
  | { readonly type: 'outOfOrderAck'; readonly requestNonce: bigint }
  | { readonly type: 'queued' }
  | { readonly type: 'overflowed'; readonly droppedUpdates: number }
  | {
      readonly type: 'disconnected';
      readonly reason: EnvoyDisconnectReason;
      /** The status from the server, for `remote_close` and `nack_received`. */
      readonly status: StreamStatus | undefined;
      /** Whether that stream had been ACKed. */
      readonly wasConnected: boolean;
    }
  | { readonly type: 'stopped'; readonly wasConnected: boolean };

/** What a client depends on. */
export interface EnvoyClientDependencies {
  readonly clock: Clock;
  /** Returns undefined if no stream can be created. A connection that fails later ends the stream with `onEnd`. */
  openStream(handlers: StreamHandlers): ReportStream | undefined;
  /** Returns the tunnels that are up, for a full push, in a new array, which the report keeps. */
  allTunnels(): ReportedTunnel[];
  /**
   * Whether `allTunnels` has every tunnel. If not, the first report of a stream is a delta, which deletes nothing that it
   * does not name. Default: always, as for Envoy.
   */
  isComplete?(): boolean;
  /** Called for each event. */
  observe(event: ClientEvent): void;
}

/** Creates a stopped client. */
export function createEnvoyClient(config: EnvoyClientConfig, deps: EnvoyClientDependencies): EnvoyClient {
  const { clock } = deps;
  let started = false;
  let sendIntervalMs = config.sendIntervalMs;
  let stream: ReportStream | undefined;
  // Identifies the current stream, so that a late response to a reset stream is not attributed to the next one.
  let epoch = 0;
  let nonceCurrent = 0n;
  let nonceAcked = 0n;
  let lastNonceWithContent = 0n;
  // Send times of the unacknowledged reports, oldest first: at most maxRetries + 1.
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
    // Queued changes are older than this snapshot.
    connections = deps.allTunnels();
    disconnections = [];
    send(deps.isComplete?.() ?? true);
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
    // The report now owns the lists, as a transport under backpressure reads them later.
    connections = [];
    disconnections = [];
    deps.observe({ type: 'sent', report });
    const sentEpoch = epoch;
    stream.send(report);
    // A response that arrived during send() may have ended this stream, and a timer would outlive it.
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

  function disconnect(reason: EnvoyDisconnectReason, status: StreamStatus | undefined): void {
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
      if (epoch > 0) throw new Error('start Envoy client: already started; create a new one');
      started = true;
      connect();
    },
    receive(updates) {
      if (!started) return;
      const incoming = updates.connections.length + updates.disconnections.length;
      if (incoming + connections.length + disconnections.length > config.maxBufferCount) {
        deps.observe({ type: 'overflowed', droppedUpdates: incoming });
        // While waiting for a retry, another disconnect would only postpone it.
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
