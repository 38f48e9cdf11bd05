/** Protobuf's wire format, field by field, so that a test can write what no generated encoder would. */

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const GROUP = 3;
const GROUP_END = 4;

/** Concatenates the parts of a message. */
export function concat(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat(parts);
}

/** Encodes a varint field; `value` is an unsigned 64-bit integer. */
export function varint(fieldNumber: number, value: bigint, padding = 0): Buffer {
  return concat(rawVarint(tagOf(fieldNumber, VARINT)), rawVarint(value, padding));
}

/** Encodes an int64 field; negative values take ten bytes. */
export function int64(fieldNumber: number, value: bigint): Buffer {
  return varint(fieldNumber, BigInt.asUintN(64, value));
}

/** Encodes a field of bytes, a string or a message. */
export function lengthDelimited(fieldNumber: number, content: Buffer, padding = 0): Buffer {
  return concat(
    rawVarint(tagOf(fieldNumber, LENGTH_DELIMITED)),
    rawVarint(BigInt(content.length), padding),
    content,
  );
}

export function text(fieldNumber: number, value: string): Buffer {
  return lengthDelimited(fieldNumber, Buffer.from(value));
}

/** Encodes a group, which proto3 does not use and decoders must skip. */
export function group(fieldNumber: number, content: Buffer): Buffer {
  return concat(rawVarint(tagOf(fieldNumber, GROUP)), content, rawVarint(tagOf(fieldNumber, GROUP_END)));
}

/** Encodes a varint with `padding` redundant bytes: 7 bits per byte, followed by zeros. */
function rawVarint(value: bigint, padding = 0): Buffer {
  const bytes: number[] = [];
  let remaining = value;
  do {
    bytes.push(Number(remaining & 0x7fn) | 0x80);
    remaining >>= 7n;
  } while (remaining > 0n);
  for (let i = 0; i < padding; i += 1) bytes.push(0x80);
  const last = bytes.length - 1;
  bytes[last] = (bytes[last] ?? 0) & 0x7f;
  return Buffer.from(bytes);
}

function tagOf(fieldNumber: number, wireType: number): bigint {
  return (BigInt(fieldNumber) << 3n) | BigInt(wireType);
}
