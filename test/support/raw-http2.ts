/** HTTP/2 over a plain socket, so that a test can send what no library would send. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** The client's preface (RFC 9113, 3.4), repeated here so that an error in the server's copy is detected. */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

/** RFC 9113, 6. */
export const FRAME = {
  data: 0,
  headers: 1,
  priority: 2,
  rstStream: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;
/** Flag of DATA and HEADERS. */
export const END_STREAM = 0x1;
/** Flag of SETTINGS and PING. */
export const ACK = 0x1;
/** Flag of HEADERS and CONTINUATION. */
export const END_HEADERS = 0x4;
/** Flag of DATA and HEADERS: the payload starts with the padding length. */
export const PADDED = 0x8;

const HEADER_BYTES = 9;
/** RFC 9113, 6.9.2: the initial size of both windows. */
const DEFAULT_WINDOW_BYTES = 65_535;
const SETTINGS_INITIAL_WINDOW_SIZE = 4;

const METHOD_PATH =
  '/envoy.extensions.reverse_tunnel_reporters.v3alpha.clients.grpc_client.ReverseTunnelReportingService/StreamReverseTunnels';

/** The preface, SETTINGS, and maximum windows for the server's responses. */
const CONNECTION_START = Buffer.concat([
  PREFACE,
  frame(FRAME.settings, 0, 0, Buffer.from([0, SETTINGS_INITIAL_WINDOW_SIZE, 0x7f, 0xff, 0xff, 0xff])),
  frame(FRAME.windowUpdate, 0, 0, Buffer.from([0x7f, 0xff, 0, 0])),
]);

/** Encodes a frame. `lengthField` can differ from the payload's length. */
export function frame(
  type: number,
  flags: number,
  streamId: number,
  payload: Uint8Array = Buffer.alloc(0),
  lengthField = payload.length,
): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES + payload.length);
  bytes.writeUIntBE(lengthField, 0, 3);
  bytes.writeUInt8(type, 3);
  bytes.writeUInt8(flags, 4);
  bytes.writeUInt32BE(streamId, 5);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/**
 * Encodes a header block (RFC 7541, 6.2.2): every field is a literal without indexing, with a literal name. Lengths
 * up to 16 KiB.
 */
export function headerBlock(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(
    fields.flatMap(([name, value]) => [Buffer.from([0]), ...hpackString(name), ...hpackString(value)]),
  );
}

function hpackString(text: string): Buffer[] {
  const bytes = Buffer.from(text, 'latin1');
  if (bytes.length < 127) return [Buffer.from([bytes.length]), bytes];
  const remaining = bytes.length - 127;
  const length = remaining < 128 ? [127, remaining] : [127, (remaining & 0x7f) | 0x80, remaining >> 7];
  return [Buffer.from(length), bytes];
}

/** Returns the header fields that open a report stream; `overrides` replaces or adds fields. */
export function requestFields(overrides: Readonly<Record<string, string>> = {}): [string, string][] {
  return Object.entries({
    ':method': 'POST',
    ':scheme': 'http',
    ':path': METHOD_PATH,
    ':authority': 'reverse-tunnel-operator',
    'content-type': 'application/grpc',
    te: 'trailers',
    ...overrides,
  });
}

/** Encodes a HEADERS frame that opens a report stream. */
export function openingFrame(streamId: number, overrides: Readonly<Record<string, string>> = {}): Buffer {
  return frame(FRAME.headers, END_HEADERS, streamId, headerBlock(requestFields(overrides)));
}

/** Encodes a gRPC message: flag, length, bytes. `declared` can differ from the length. */
export function grpcMessage(bytes: Uint8Array, declared = bytes.length, flag = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt8(flag, 0);
  prefix.writeUInt32BE(declared, 1);
  return Buffer.concat([prefix, bytes]);
}

/** A peer that sends frames as instructed. */
export type RawPeer = ReturnType<typeof createRawPeer>;

/** Opens a connection. With `greet`, sends preface and SETTINGS and answers the server's SETTINGS and PING. */
export async function openRawPeer(address: string, greet = true): Promise<RawPeer> {
  const { hostname, port } = new URL(`tcp://${address}`);
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port), noDelay: true });
  // `closed` reports the end of the connection.
  socket.on('error', () => {});
  await once(socket, 'connect');
  const peer = createRawPeer(socket, greet);
  if (greet) await peer.write(CONNECTION_START);
  return peer;
}

function createRawPeer(socket: Socket, answers: boolean) {
  const counts = new Map<number, number>();
  const resets = new Map<number, number>();
  const windows = new Map<number, number>();
  let initialWindow = DEFAULT_WINDOW_BYTES;
  let goawayCode: number | undefined;
  let firstBytes = Buffer.alloc(0);
  let isClosed = false;
  let changed = Promise.withResolvers<void>();
  const change = (): void => {
    changed.resolve();
    changed = Promise.withResolvers<void>();
  };
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      isClosed = true;
      change();
      resolve();
    });
  });

  const windowOf = (streamId: number): number =>
    windows.get(streamId) ?? (streamId === 0 ? DEFAULT_WINDOW_BYTES : initialWindow);
  const grow = (streamId: number, bytes: number): void =>
    void windows.set(streamId, windowOf(streamId) + bytes);

  const consumeWindow = (streamId: number, bytes: number): void => {
    grow(streamId, -bytes);
    grow(0, -bytes);
  };

  function handleFrame(type: number, flags: number, streamId: number, payload: Buffer): void {
    counts.set(type, (counts.get(type) ?? 0) + 1);
    if (type === FRAME.settings && (flags & ACK) === 0) {
      for (let at = 0; at + 6 <= payload.length; at += 6) {
        if (payload.readUInt16BE(at) !== SETTINGS_INITIAL_WINDOW_SIZE) continue;
        const next = payload.readUInt32BE(at + 2);
        for (const id of windows.keys()) if (id !== 0) grow(id, next - initialWindow);
        initialWindow = next;
      }
      if (answers) socket.write(frame(FRAME.settings, ACK, 0));
    } else if (type === FRAME.ping && (flags & ACK) === 0) {
      if (answers) socket.write(frame(FRAME.ping, ACK, 0, payload));
    } else if (type === FRAME.windowUpdate) {
      grow(streamId, payload.readUInt32BE(0));
    } else if (type === FRAME.rstStream) {
      resets.set(streamId, payload.readUInt32BE(0));
    } else if (type === FRAME.goaway) {
      goawayCode = payload.readUInt32BE(4);
    }
    change();
  }

  let pending: Buffer = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    if (firstBytes.length < 65_536) firstBytes = Buffer.concat([firstBytes, chunk]);
    pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk]);
    while (pending.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + pending.readUIntBE(0, 3);
      if (pending.length < end) break;
      const streamId = pending.readUInt32BE(5) & 0x7fffffff;
      handleFrame(pending.readUInt8(3), pending.readUInt8(4), streamId, pending.subarray(HEADER_BYTES, end));
      pending = pending.subarray(end);
    }
  });

  async function write(bytes: Uint8Array): Promise<boolean> {
    if (isClosed) return false;
    if (!socket.write(bytes)) await Promise.race([once(socket, 'drain').catch(() => {}), closed]);
    return !isClosed;
  }

  return {
    socket,
    /** Writes and waits until the socket accepts more; false when the connection is closed. */
    write,
    /**
     * Sends DATA as fast as the server's windows allow, with `frameBytes` of payload per frame (at most 16,384).
     * Returns false when the connection or the stream was closed before everything was sent.
     */
    async sendData(streamId: number, payload: Buffer, frameBytes = 16_384): Promise<boolean> {
      for (let at = 0; at < payload.length;) {
        if (isClosed || resets.has(streamId)) return false;
        const room = Math.min(windowOf(streamId), windowOf(0), payload.length - at);
        if (room <= 0) {
          await changed.promise;
          continue;
        }
        consumeWindow(streamId, room);
        if (!(await write(dataFrames(streamId, payload.subarray(at, at + room), frameBytes)))) return false;
        at += room;
      }
      return true;
    },
    /** Returns the current send window of a stream. */
    window: (streamId: number): number => Math.min(windowOf(streamId), windowOf(0)),
    /** Subtracts bytes from the windows, for DATA that was written directly. */
    consumeWindow,
    /** Waits until the condition holds or the connection is closed. It is checked after each received frame. */
    async waitUntil(holds: () => boolean): Promise<void> {
      for (;;) {
        if (isClosed || holds()) return;
        await changed.promise;
      }
    },
    /** Returns the number of received frames of a type. */
    received: (type: number): number => counts.get(type) ?? 0,
    /** The code of the stream's RST_STREAM, once received. */
    resetCode: (streamId: number): number | undefined => resets.get(streamId),
    /** The code of the server's GOAWAY, once received. */
    get goawayCode() {
      return goawayCode;
    },
    /** Received bytes, up to the first 64 KiB. */
    get firstBytes(): Buffer {
      return firstBytes;
    },
    get isClosed() {
      return isClosed;
    },
    /** Resolves when the connection is closed by either side. */
    closed,
    destroy: (): void => void socket.destroy(),
  };
}

/** Encodes a payload as DATA frames of `frameBytes` each, in one buffer. */
export function dataFrames(streamId: number, payload: Buffer, frameBytes: number): Buffer {
  const frames = Math.ceil(payload.length / frameBytes);
  const bytes = Buffer.allocUnsafe(frames * HEADER_BYTES + payload.length);
  let to = 0;
  for (let at = 0; at < payload.length; at += frameBytes) {
    const length = Math.min(frameBytes, payload.length - at);
    bytes.writeUIntBE(length, to, 3);
    bytes.writeUInt16BE(0, to + 3);
    bytes.writeUInt32BE(streamId, to + 5);
    payload.copy(bytes, to + HEADER_BYTES, at, at + length);
    to += HEADER_BYTES + length;
  }
  return bytes;
}
