/** Checked reading of protobuf's wire format, with the reader of protobufjs, which itself clamps and accepts too much. */
import type protobuf from 'protobufjs/minimal.js';

export type Reader = protobuf.Reader;

const LENGTH_DELIMITED = 2;

/** Returns the tag of a field as on the wire. Default: the wire type of texts, bytes and messages. */
export function tag(fieldNumber: number, wireType = LENGTH_DELIMITED): number {
  return (fieldNumber << 3) | wireType;
}

/** Returns the end of the length-delimited field that begins here; checked, because the reader itself clamps. */
export function readFieldEnd(reader: Reader, limit: number): number {
  const length = reader.uint32();
  const end = reader.pos + length;
  if (end > limit) throw new RangeError(`field of ${length} bytes at byte ${reader.pos} exceeds its message`);
  return end;
}

/** @throws RangeError if a field of the message exceeded it */
export function assertAtEnd(reader: Reader, end: number): void {
  if (reader.pos !== end) throw new RangeError(`message ends at byte ${reader.pos}, declared end is ${end}`);
}

/**
 * Reads a string; bytes that are not UTF-8 become U+FFFD, so the result is always well-formed.
 *
 * @param likely what the string probably is. If it is, and is ASCII, it is returned, and no memory is allocated
 */
export function readString(reader: Reader, limit: number, likely?: string): string {
  const end = readFieldEnd(reader, limit);
  const start = reader.pos;
  reader.pos = end;
  const bytes = reader.buf as Buffer;
  return likely !== undefined && isAsciiText(bytes, start, end, likely)
    ? likely
    : bytes.toString('utf8', start, end);
}

/** Returns true if the bytes are this text and ASCII. */
function isAsciiText(bytes: Buffer, start: number, end: number, text: string): boolean {
  if (text.length !== end - start) return false;
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code > 0x7f || bytes[start + index] !== code) return false;
  }
  return true;
}

/** Reads bytes as a view into the message. */
export function readBytes(reader: Reader): Buffer {
  const end = readFieldEnd(reader, reader.len);
  const bytes = (reader.buf as Buffer).subarray(reader.pos, end);
  reader.pos = end;
  return bytes;
}

/** Skips the value of an unknown field. */
export function skipField(reader: Reader, field: number, limit: number): void {
  if (field >>> 3 === 0) throw new RangeError(`field number 0 at byte ${reader.pos}`);
  reader.skipType(field & 7);
  if (reader.pos > limit) throw new RangeError(`unknown field exceeds its message at byte ${limit}`);
}

/** Reads an int64; checked, because the reader accepts a varint that is truncated by the end of the bytes. */
export function int64(reader: Reader) {
  const value = reader.int64();
  const last = reader.buf[reader.pos - 1];
  if (last === undefined || last >= 0x80) throw new RangeError(`unterminated varint at byte ${reader.pos}`);
  return value;
}

/** The reader's representation, in two halves. */
interface Int64 {
  readonly high: number;
  readonly low: number;
}

/** Avoids the conversion to text, which would process each nonce digit by digit. */
export function asBigInt({ high, low }: Int64): bigint {
  return high === 0 ? BigInt(low >>> 0) : (BigInt(high) << 32n) | BigInt(low >>> 0);
}

/** Loses digits beyond 2^53. */
export function asNumber({ high, low }: Int64): number {
  return high * 2 ** 32 + (low >>> 0);
}

/** Reads the fields of a message up to `end`. `read` reads the value of a field that it knows, otherwise returns false. */
export function readFields(reader: Reader, end: number, read: (field: number) => boolean): void {
  while (reader.pos < end) {
    const field = reader.uint32();
    if (!read(field)) skipField(reader, field, end);
  }
  assertAtEnd(reader, end);
}
