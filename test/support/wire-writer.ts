/** Protobuf's wire format by hand, field by field: what no generated encoder would write can be written too. */

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const GROUP = 3;
const GROUP_END = 4;

/** One message of several pieces, in their order. */
export function concat(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat(parts);
}

/** A varint field; `value` is taken as unsigned 64 bits. */
export function varint(fieldNumber: number, value: bigint, padding = 0): Buffer {
  return concat(rawVarint(tagOf(fieldNumber, VARINT)), rawVarint(value, padding));
}

/** An int64 field; negative values take ten bytes. */
export function int64(fieldNumber: number, value: bigint): Buffer {
  return varint(fieldNumber, BigInt.asUintN(64, value));
}

/** A field of bytes, text or a message. */
export function lengthDelimited(fieldNumber: number, content: Buffer, padding = 0): Buffer {
  return concat(
    rawVarint(tagOf(fieldNumber, LENGTH_DELIMITED)),
    rawVarint(BigInt(content.length), padding),
    content,
  );
}

/** A field of text. */
export function text(fieldNumber: number, value: string): Buffer {
  return lengthDelimited(fieldNumber, Buffer.from(value));
}

/** A group, which proto3 has no use for and decoders must skip. */
export function group(fieldNumber: number, content: Buffer): Buffer {
  return concat(rawVarint(tagOf(fieldNumber, GROUP)), content, rawVarint(tagOf(fieldNumber, GROUP_END)));
}

/** The varint's bytes, with up to `padding` needless ones: protobuf takes 7 bits a byte, zeros at the end as well. */
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
