import protobuf from 'protobufjs/minimal.js';
import type { ReportResponse } from './messages.ts';
import type { ReportMessage, ReportedTunnel } from './report-message.ts';

/**
 * Encoders for the two messages that are sent most, in protobuf's wire format.
 *
 * The generic encoder needs 4 times as long for a full push of 100,000 tunnels and leaves 200 MB of garbage: a load
 * generator that uses it would measure itself. For an ACK it copies the message twice and divides the nonce in
 * software, which is a tenth of the cost of a heartbeat. The tests decode the output with the .proto.
 */

// Field number << 3 | wire type (0 varint, 2 length-delimited), as in stream_reverse_tunnels.proto.
const REQUEST = { node: 0x0a, addedTunnels: 0x12, removedTunnelNames: 0x1a, fullPush: 0x20, nonce: 0x28 };
const NODE = { id: 0x0a, cluster: 0x12 };
const TUNNEL = { name: 0x0a, identity: 0x12, createdAt: 0x1a };
const IDENTITY = { tenantID: 0x0a, clusterID: 0x12, nodeID: 0x1a };
const TIMESTAMP = { seconds: 0x08, nanos: 0x10 };
const RESPONSE = { nodeID: 0x0a, reportInterval: 0x12, requestNonce: 0x18, errorDetail: 0x22 };
const DURATION = { seconds: 0x08, nanos: 0x10 };
const STATUS = { code: 0x08, message: 0x12 };

/** Room for everything that is not a list: node, full_push, nonce. The strings of the node are added to it. */
const FIXED_BYTES = 64;
/** An initial estimate, for IDs of 20 characters each; the buffer doubles when it is too small. */
const ESTIMATED_TUNNEL_BYTES = 128;
/** Two tags, the length of an ID of at most 256 code points, and a varint of 63 bits. */
const MAX_ACK_OVERHEAD_BYTES = 16;

/**
 * Encodes a StreamReverseTunnelsRequest. Timestamps before 1970 are not supported: a reporter does not create them.
 */
export function encodeReport(report: ReportMessage): Buffer {
  let bytes = Buffer.allocUnsafe(
    FIXED_BYTES + report.added.length * ESTIMATED_TUNNEL_BYTES + report.removedNames.length * 32,
  );
  let at = 0;

  /** Must be called before each write: a write beyond the end of a buffer is silently lost. */
  function ensureCapacity(needed: number): void {
    if (at + needed <= bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(bytes.length * 2, at + needed));
    bytes.copy(larger, 0, 0, at);
    bytes = larger;
  }

  function writeNumber(value: number): void {
    at = writeVarint(bytes, at, value);
  }

  /** `length` is the UTF-8 length of the text, which the caller has already computed. */
  function writeText(tag: number, value: string, length: number): void {
    bytes[at++] = tag;
    writeNumber(length);
    at += bytes.write(value, at, 'utf8');
  }

  /** Computes sizes first, because each message on the wire begins with its length. */
  function writeTunnel(value: ReportedTunnel): void {
    const name = Buffer.byteLength(value.name);
    const tenant = Buffer.byteLength(value.tenantID);
    const cluster = Buffer.byteLength(value.clusterID);
    const node = Buffer.byteLength(value.nodeID);
    const identity = fieldSize(tenant) + fieldSize(cluster) + fieldSize(node);
    const { createdAt } = value;
    const timestamp =
      createdAt === undefined ? 0 : 2 + varintSize(createdAt.seconds) + varintSize(createdAt.nanos);
    const size = fieldSize(name) + fieldSize(identity) + (createdAt === undefined ? 0 : fieldSize(timestamp));
    ensureCapacity(fieldSize(size));
    bytes[at++] = REQUEST.addedTunnels;
    writeNumber(size);
    writeText(TUNNEL.name, value.name, name);
    bytes[at++] = TUNNEL.identity;
    writeNumber(identity);
    writeText(IDENTITY.tenantID, value.tenantID, tenant);
    writeText(IDENTITY.clusterID, value.clusterID, cluster);
    writeText(IDENTITY.nodeID, value.nodeID, node);
    if (createdAt === undefined) return;
    bytes[at++] = TUNNEL.createdAt;
    writeNumber(timestamp);
    bytes[at++] = TIMESTAMP.seconds;
    writeNumber(createdAt.seconds);
    bytes[at++] = TIMESTAMP.nanos;
    writeNumber(createdAt.nanos);
  }

  if (report.node !== undefined) {
    const id = Buffer.byteLength(report.node.id);
    const cluster = Buffer.byteLength(report.node.cluster);
    const size = fieldSize(id) + fieldSize(cluster);
    ensureCapacity(fieldSize(size) + FIXED_BYTES);
    bytes[at++] = REQUEST.node;
    writeNumber(size);
    writeText(NODE.id, report.node.id, id);
    writeText(NODE.cluster, report.node.cluster, cluster);
  }
  for (const added of report.added) writeTunnel(added);
  for (const name of report.removedNames) {
    const length = Buffer.byteLength(name);
    ensureCapacity(fieldSize(length));
    writeText(REQUEST.removedTunnelNames, name, length);
  }
  ensureCapacity(FIXED_BYTES);
  bytes[at++] = REQUEST.fullPush;
  bytes[at++] = report.fullPush ? 1 : 0;
  bytes[at++] = REQUEST.nonce;
  for (let remaining = BigInt.asUintN(64, report.nonce); ; remaining >>= 7n) {
    // As a bigint: a nonce may use all 63 bits and must not lose any.
    bytes[at++] = remaining > 0x7fn ? Number(remaining & 0x7fn) | 0x80 : Number(remaining);
    if (remaining <= 0x7fn) break;
  }
  return bytes.subarray(0, at);
}

/** Encodes a StreamReverseTunnelsResponse. Fields that are missing are omitted. */
export function encodeResponse(response: Partial<ReportResponse>): Buffer {
  const {
    node_id: nodeID,
    request_nonce: nonceText,
    report_interval: interval,
    error_detail: error,
  } = response;
  const nonce = Number(nonceText);
  // Nearly all responses are plain ACKs.
  const isPlain = nodeID !== undefined && interval === undefined && error === undefined;
  if (!isPlain || !Number.isSafeInteger(nonce) || nonce < 0) return encodeAnyResponse(response);
  const idBytes = Buffer.byteLength(nodeID);
  const bytes = Buffer.allocUnsafe(MAX_ACK_OVERHEAD_BYTES + idBytes);
  bytes[0] = RESPONSE.nodeID;
  let at = writeVarint(bytes, 1, idBytes);
  at += bytes.write(nodeID, at);
  bytes[at] = RESPONSE.requestNonce;
  at = writeVarint(bytes, at + 1, nonce);
  return bytes.subarray(0, at);
}

function encodeAnyResponse({
  node_id: nodeID,
  report_interval: interval,
  request_nonce: nonce,
  error_detail: error,
}: Partial<ReportResponse>): Buffer {
  const writer = protobuf.Writer.create();
  if (nodeID !== undefined) writer.uint32(RESPONSE.nodeID).string(nodeID);
  if (interval !== undefined) {
    writer.uint32(RESPONSE.reportInterval).fork();
    writer.uint32(DURATION.seconds).int64(interval.seconds);
    writer.uint32(DURATION.nanos).int32(interval.nanos).ldelim();
  }
  if (nonce !== undefined) writer.uint32(RESPONSE.requestNonce).int64(nonce);
  if (error !== undefined) {
    writer.uint32(RESPONSE.errorDetail).fork();
    writer.uint32(STATUS.code).int32(error.code);
    writer.uint32(STATUS.message).string(error.message).ldelim();
  }
  return Buffer.from(writer.finish());
}

/** Writes a varint and returns the index after it. Divides, because shifts keep only 32 bits. */
function writeVarint(bytes: Buffer, from: number, value: number): number {
  let at = from;
  let remaining = value;
  for (; remaining > 0x7f; remaining = Math.floor(remaining / 0x80)) bytes[at++] = (remaining % 0x80) | 0x80;
  bytes[at] = remaining;
  return at + 1;
}

/** The bytes of a length-delimited field: tag, length, content. Every field number here has a one-byte tag. */
function fieldSize(contentBytes: number): number {
  return 1 + varintSize(contentBytes) + contentBytes;
}

/** The bytes of a varint: one per 7 bits. */
function varintSize(value: number): number {
  let size = 1;
  for (let remaining = value; remaining > 0x7f; remaining = Math.floor(remaining / 0x80)) size += 1;
  return size;
}
