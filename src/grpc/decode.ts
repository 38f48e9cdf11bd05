import protobuf from 'protobufjs/minimal.js';
import {
  MAX_TUNNEL_NAME,
  type RejectedTunnels,
  type ReportedIdentity,
  textViolation,
  tunnelViolation,
  type Violation,
  type ViolationReason,
} from '../core/report.ts';
import { sameIdentity, type Tunnel } from '../core/tunnel.ts';
import { errorMessage } from '../error-message.ts';
import { formatCreatedAt } from './created-at.ts';
import {
  asBigInt,
  asNumber,
  assertAtEnd,
  int64,
  readBytes,
  readFieldEnd,
  readString,
  skipField,
  tag,
  type Reader,
} from './wire-reader.ts';

/** A decoded StreamReverseTunnelsRequest: its valid parts, and a summary of the rejected ones. */
export interface DecodedReport {
  /** The bytes of `node`; undefined if it was omitted, as clients may do after a stream's first report. */
  readonly node: Uint8Array | undefined;
  readonly fullPush: boolean;
  /** Unchanged; the session rejects a negative nonce. */
  readonly nonce: bigint;
  /** In the order of the wire. */
  readonly added: readonly Tunnel[];
  readonly removedNames: readonly string[];
  readonly rejected: RejectedTunnels;
}

/** The bytes are not a StreamReverseTunnelsRequest. */
export class MalformedReportError extends Error {
  override readonly name = 'MalformedReportError';
}

/** A report exceeds its entry limit: 64 MiB can list 17 million names of two characters, which would take 1 GiB here. */
export class TooManyEntriesError extends Error {
  override readonly name = 'TooManyEntriesError';
}

const MAX_SAMPLE_VIOLATIONS = 5;
/**
 * About 300 tunnels or 0.5 ms of work (2 ms if each field has 2 bytes), and several times that before V8 has optimized
 * it, which bounds how long the ACK of a small report on another stream waits. Counted in bytes because every field costs
 * time, even an unknown one or a name that exceeds its limit.
 */
const YIELD_EVERY_BYTES = 32 * 1024;
/** Some 0.5 ms, for fields that are only skipped. */
const YIELD_EVERY_FIELDS = 16_384;
/** The same few tenants and clusters occur in every tunnel of a report: up to this many are stored once. */
const MAX_INTERNED_STRINGS = 1024;

/** Tags (field number and wire type) of the fields that are decoded, as on the wire. */
const REQUEST = { node: tag(1), added: tag(2), removed: tag(3), fullPush: tag(4, 0), nonce: tag(5, 0) };
const TUNNEL = { name: tag(1), identity: tag(2), createdAt: tag(3) };
const IDENTITY = { tenantID: tag(1), clusterID: tag(2), nodeID: tag(3) };
const TIMESTAMP = { seconds: tag(1, 0), nanos: tag(2, 0) };

/**
 * Returns the tunnels that a reporter has reported before, in that order.
 *
 * @param node the bytes of the report's `node`, as far as they precede its tunnels
 */
export type KnownTunnels = (node: Uint8Array | undefined) => Iterable<Tunnel>;

/**
 * Decodes and validates a report. Yields after every 32 KiB, or after a longer field: a full push of 100,000 tunnels
 * takes a quarter of a second, and the caller runs other work at each `yield`. Based on protobuf's reader because the
 * generated decoder cannot yield and creates four temporary objects per tunnel.
 *
 * Follows protobuf's rules: unknown fields are skipped, the last of several equal fields counts, messages are merged.
 *
 * @param maxEntries limit on added tunnels and removed names together
 * @param knownTunnels called before the first tunnel is decoded. As long as the report lists these tunnels in this order,
 *   they are returned instead of equal ones, which takes no lasting memory and two thirds of the time
 * @throws MalformedReportError if the bytes cannot be parsed
 * @throws TooManyEntriesError
 */
export function* decodeReport(
  bytes: Buffer,
  maxEntries = Number.POSITIVE_INFINITY,
  knownTunnels: KnownTunnels = () => [],
): Generator<undefined, DecodedReport> {
  const reader = protobuf.Reader.create(bytes);
  const intern = internStrings();
  const added: Tunnel[] = [];
  const removedNames: string[] = [];
  const byReason = new Map<ViolationReason, number>();
  const first: Violation[] = [];
  let count = 0;
  const reject = (violation: Violation): void => {
    count += 1;
    byReason.set(violation.reason, (byReason.get(violation.reason) ?? 0) + 1);
    if (first.length < MAX_SAMPLE_VIOLATIONS) first.push(violation);
  };

  const node = mergeParts(bytes.length);
  let fullPush = false;
  let nonce = 0n;
  let known: Iterator<Tunnel, undefined> | undefined;
  let addedIndex = 0;
  let removedIndex = 0;
  let yieldAt = YIELD_EVERY_BYTES;
  try {
    while (reader.pos < reader.len) {
      const field = reader.uint32();
      switch (field) {
        case REQUEST.added: {
          if (addedIndex === 0) known = knownTunnels(node.whole())[Symbol.iterator]();
          const likely = known?.next().value;
          const tunnel = decodeTunnel(reader, addedIndex, intern, likely);
          if (tunnel !== likely) known = undefined;
          addedIndex += 1;
          if ('reason' in tunnel) reject(tunnel);
          else added.push(tunnel);
          break;
        }
        case REQUEST.removed: {
          const name = readString(reader, reader.len);
          const violation = removedNameViolation(name, removedIndex);
          removedIndex += 1;
          if (violation !== undefined) reject(violation);
          else removedNames.push(name);
          break;
        }
        case REQUEST.node:
          node.add(readBytes(reader));
          break;
        case REQUEST.fullPush:
          fullPush = reader.bool();
          break;
        case REQUEST.nonce:
          nonce = asBigInt(int64(reader));
          break;
        default:
          skipField(reader, field, reader.len);
      }
      if (addedIndex + removedIndex > maxEntries) {
        throw new TooManyEntriesError(
          `report lists more than ${maxEntries} tunnels and names; increase --max-tunnels-per-reporter, of which this is twice the value`,
        );
      }
      if (reader.pos >= yieldAt) {
        yieldAt = reader.pos + YIELD_EVERY_BYTES;
        yield;
      }
    }
  } catch (error) {
    throw error instanceof TooManyEntriesError ? error : malformedReport(error);
  }
  return { node: node.whole(), fullPush, nonce, added, removedNames, rejected: { count, byReason, first } };
}

/** The part of a report that identifies it. */
export type ReportHead = Pick<DecodedReport, 'node' | 'nonce'>;

/**
 * Decodes only the node and the nonce of a report, wherever they are, to decide whether to decode the remainder. Yields
 * like `decodeReport`.
 *
 * @throws MalformedReportError if the fields of the message cannot be parsed
 */
export function* decodeHead(bytes: Buffer): Generator<undefined, ReportHead> {
  const reader = protobuf.Reader.create(bytes);
  const node = mergeParts(bytes.length);
  let nonce = 0n;
  try {
    for (let fields = 1; reader.pos < reader.len; fields += 1) {
      const field = reader.uint32();
      if (field === REQUEST.node) node.add(readBytes(reader));
      else if (field === REQUEST.nonce) nonce = asBigInt(int64(reader));
      else skipField(reader, field, reader.len);
      if (fields % YIELD_EVERY_FIELDS === 0) yield;
    }
  } catch (error) {
    throw malformedReport(error);
  }
  return { node: node.whole(), nonce };
}

/** @param likely the tunnel that this probably is; if it is, it is returned */
function decodeTunnel(
  reader: Reader,
  index: number,
  intern: (text: string) => string,
  likely: Tunnel | undefined,
): Tunnel | Violation {
  const end = readFieldEnd(reader, reader.len);
  let name = '';
  let identity: { tenantID: string; clusterID: string; nodeID: string } | undefined;
  let seconds: number | undefined;
  let nanos = 0;
  while (reader.pos < end) {
    const field = reader.uint32();
    switch (field) {
      case TUNNEL.name:
        name = readString(reader, end, likely?.name);
        break;
      case TUNNEL.identity:
        identity ??= { tenantID: '', clusterID: '', nodeID: '' };
        decodeIdentity(reader, end, identity, intern, likely);
        break;
      case TUNNEL.createdAt: {
        const timestampEnd = readFieldEnd(reader, end);
        seconds ??= 0;
        while (reader.pos < timestampEnd) {
          const part = reader.uint32();
          // Loses digits beyond 2^53, but any such time is out of range.
          if (part === TIMESTAMP.seconds) seconds = asNumber(int64(reader));
          else if (part === TIMESTAMP.nanos) nanos = reader.int32();
          else skipField(reader, part, timestampEnd);
        }
        assertAtEnd(reader, timestampEnd);
        break;
      }
      default:
        skipField(reader, field, end);
    }
  }
  assertAtEnd(reader, end);
  const violation = tunnelViolation(name, identity, () => `added_tunnels[${index}]`);
  if (violation !== undefined || identity === undefined) return violation as Violation;
  const createdAt = seconds === undefined ? undefined : formatCreatedAt(seconds, nanos);
  if (likely?.name === name && likely.createdAt === createdAt && sameIdentity(likely, identity))
    return likely;
  const { tenantID, clusterID, nodeID } = identity;
  // Without tenant isolation both are equal; sharing the memory matters with a million tunnels.
  return { name, tenantID, clusterID, nodeID: nodeID === name ? name : nodeID, createdAt };
}

function decodeIdentity(
  reader: Reader,
  limit: number,
  target: { -readonly [part in keyof ReportedIdentity]: string },
  intern: (text: string) => string,
  likely: Tunnel | undefined,
): void {
  const end = readFieldEnd(reader, limit);
  const readShared = (text: string | undefined): string => {
    const value = readString(reader, end, text);
    return value === text ? text : intern(value);
  };
  while (reader.pos < end) {
    const field = reader.uint32();
    if (field === IDENTITY.tenantID) target.tenantID = readShared(likely?.tenantID);
    else if (field === IDENTITY.clusterID) target.clusterID = readShared(likely?.clusterID);
    else if (field === IDENTITY.nodeID) target.nodeID = readString(reader, end, likely?.nodeID);
    else skipField(reader, field, end);
  }
  assertAtEnd(reader, end);
}

/** Applies the rules for tunnel names: no other name can be held, and names that are remembered must be bounded. */
function removedNameViolation(name: string, index: number): Violation | undefined {
  // The path is formatted only if it is needed.
  return textViolation('', name, MAX_TUNNEL_NAME) === undefined
    ? undefined
    : textViolation(`removed_tunnel_names[${index}]`, name, MAX_TUNNEL_NAME);
}

/**
 * Joins the occurrences of a repeated message field, as protobuf merges it. All of them are copied into one buffer of
 * `capacity` bytes, which is allocated for the second part: concatenating per part would take quadratic time, and a
 * report of 5 MB that consists of parts would block the process for minutes.
 */
function mergeParts(capacity: number) {
  let whole: Buffer | undefined;
  let length = 0;
  return {
    add(part: Buffer): void {
      if (whole === undefined) {
        whole = part;
      } else {
        // The first part is a view into the message, and therefore shorter than it.
        if (whole.length < capacity) whole = Buffer.concat([whole], capacity);
        part.copy(whole, length);
      }
      length += part.length;
    },
    whole: () => whole?.subarray(0, length),
  };
}

function internStrings(): (text: string) => string {
  const interned = new Map<string, string>();
  return (text) => {
    const existing = interned.get(text);
    if (existing !== undefined) return existing;
    if (interned.size < MAX_INTERNED_STRINGS) interned.set(text, text);
    return text;
  };
}

function malformedReport(error: unknown): MalformedReportError {
  const message = `cannot decode StreamReverseTunnelsRequest: ${errorMessage(error)}`;
  return new MalformedReportError(message, { cause: error });
}
