import type { ReportResponse } from './proto.ts';

// Field number << 3 | wire type, as in stream_reverse_tunnels.proto.
const NODE_ID = 0x0a;
const REQUEST_NONCE = 0x18;
/** Two tags, the length of an id of at most 256 code points, and a varint of 63 bits. */
const MAX_OVERHEAD_BYTES = 16;

/**
 * Writes a plain ACK, which is nearly every answer, in protobuf's wire format; any other is for `encodeOther`. The generic
 * encoder copies the message twice and takes the nonce apart in software: a tenth of what a heartbeat costs.
 */
export function ackEncoder(
  encodeOther: (response: ReportResponse) => Buffer,
): (response: ReportResponse) => Buffer {
  return (response) => {
    const nonce = Number(response.request_nonce);
    const isPlain = response.report_interval === undefined && response.error_detail === undefined;
    if (!isPlain || !Number.isSafeInteger(nonce) || nonce < 0) return encodeOther(response);
    const idBytes = Buffer.byteLength(response.node_id);
    const bytes = Buffer.allocUnsafe(MAX_OVERHEAD_BYTES + idBytes);
    bytes[0] = NODE_ID;
    let at = writeVarint(bytes, 1, idBytes);
    at += bytes.write(response.node_id, at);
    bytes[at] = REQUEST_NONCE;
    at = writeVarint(bytes, at + 1, nonce);
    return bytes.subarray(0, at);
  };
}

/** Divides, since a shift keeps 32 bits. Gives where the next byte goes. */
function writeVarint(bytes: Buffer, from: number, value: number): number {
  let at = from;
  let remaining = value;
  for (; remaining > 0x7f; remaining = Math.floor(remaining / 0x80)) bytes[at++] = (remaining % 0x80) | 0x80;
  bytes[at] = remaining;
  return at + 1;
}
