import { expect } from 'chai';
import * as fc from 'fast-check';
import { formatCreatedAt } from '../../src/grpc/created-at.ts';
import type { Tunnel } from '../../src/core/tunnel.ts';
import { MAX_TUNNEL_NAME, textViolation, tunnelViolation } from '../../src/core/report.ts';
import { decodeReport, MalformedReportError, type DecodedReport } from '../../src/grpc/decode.ts';
import { group, int64, concat, lengthDelimited, varint } from '../support/wire-writer.ts';
import { requestBytes, requestOf, type RequestFields, type TunnelFields } from '../support/wire.ts';

const RUNS = 2000;

function decode(bytes: Buffer, known: Iterable<Tunnel> = []): DecodedReport {
  const work = decodeReport(bytes, undefined, () => known);
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}

/** The parts of a decoded report that are compared: everything except the violations' messages. */
interface ComparedReport {
  readonly node: Buffer | undefined;
  readonly fullPush: boolean;
  readonly nonce: bigint;
  readonly added: readonly Tunnel[];
  readonly removedNames: readonly string[];
  readonly rejectedCount: number;
}

function read(bytes: Buffer, known?: Iterable<Tunnel>): ComparedReport {
  const { node, rejected, ...rest } = decode(bytes, known);
  return { ...rest, node: node && Buffer.from(node), rejectedCount: rejected.count };
}

/** Computes the expected result with the rules of `core`, which have their own tests. */
function expected(
  node: Buffer | undefined,
  fullPush: boolean,
  nonce: bigint,
  tunnels: readonly TunnelFields[],
  removed: readonly string[],
): ComparedReport {
  const added: Tunnel[] = [];
  for (const { name = '', identity, created_at: createdAt } of tunnels) {
    const { tenant_id: tenantID = '', cluster_id: clusterID = '', node_id: nodeID = '' } = identity ?? {};
    const parts = identity && { tenantID, clusterID, nodeID };
    if (parts === undefined || tunnelViolation(name, parts, () => '') !== undefined) continue;
    const { seconds = 0, nanos = 0 } = createdAt ?? {};
    added.push({ name, ...parts, createdAt: createdAt && formatCreatedAt(Number(seconds), nanos) });
  }
  const removedNames = removed.filter((name) => textViolation('name', name, MAX_TUNNEL_NAME) === undefined);
  const rejectedCount = tunnels.length - added.length + (removed.length - removedNames.length);
  return { node, fullPush, nonce, added, removedNames, rejectedCount };
}

const int64Value = fc.oneof(
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.constantFrom(0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n),
);
const seconds = fc.oneof(fc.bigInt({ min: -70_000_000_000n, max: 260_000_000_000n }), int64Value);
const int32Value = fc.oneof(fc.integer(), fc.integer({ min: 0, max: 999_999_999 }));
/** Mostly valid names; some are empty, too long, or contain forbidden characters. */
const anyText = fc.oneof(
  { weight: 6, arbitrary: fc.string({ minLength: 1, maxLength: 12, unit: 'grapheme' }) },
  { weight: 1, arbitrary: fc.string({ maxLength: 200, unit: 'binary' }) },
);

const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 8 });

describe('decodeReport compared with protobufjs', () => {
  const tunnelFields = fc
    .record({
      name: optional(anyText),
      identity: optional(
        fc.record({
          tenant_id: optional(anyText),
          cluster_id: optional(anyText),
          node_id: optional(anyText),
        }),
      ),
      created_at: optional(fc.record({ seconds: seconds.map(String), nanos: int32Value })),
    })
    .map(defined);
  const requestFields = fc
    .record({
      node: optional(fc.record({ id: anyText, cluster: anyText, user_agent_name: anyText })),
      added_tunnels: fc.array(tunnelFields),
      removed_tunnel_names: fc.array(anyText),
      full_push: fc.boolean(),
      nonce: int64Value.map(String),
    })
    .map((fields) => defined(fields) as RequestFields);

  it('decodes messages of protobufjs in the same way', () => {
    fc.assert(
      fc.property(requestFields, (fields) => {
        const bytes = requestBytes(fields);
        const reference = requestOf(bytes);
        const { node, ...actual } = read(bytes);
        expect({ ...actual, node: undefined }).to.deep.equal(
          expected(
            undefined,
            reference.full_push ?? false,
            BigInt(reference.nonce ?? 0),
            reference.added_tunnels,
            reference.removed_tunnel_names,
          ),
        );
        const nodeOnly = node === undefined ? Buffer.alloc(0) : lengthDelimited(1, node);
        expect(requestOf(nodeOnly).node).to.deep.equal(reference.node);
      }),
      { numRuns: RUNS },
    );
  });
});

describe('decodeReport with known tunnels', () => {
  const part = fc.constantFrom('', 'a', 'b', 'acme', 'ä', 'é'.normalize('NFD'), '\u00ff', '日本', '\u007f');
  const tunnelFields = fc
    .record({
      name: part,
      identity: optional(fc.record({ tenant_id: part, cluster_id: part, node_id: part })),
      created_at: optional(fc.record({ seconds: fc.constantFrom('0', '1'), nanos: fc.constantFrom(0, 5) })),
    })
    .map(defined);
  const reports = fc.array(fc.tuple(tunnelFields, fc.boolean(), tunnelFields), { maxLength: 12 });

  it('returns the same, and the known tunnels for as long as the report lists them', () => {
    fc.assert(
      fc.property(reports, (pairs) => {
        const report = requestBytes({ added_tunnels: pairs.map(([reported]) => reported) });
        const before = pairs.map(([reported, isChanged, other]) => (isChanged ? other : reported));
        const known = decode(requestBytes({ added_tunnels: before })).added;
        const { added, rejected } = decode(report, known);
        const plain = decode(report);
        expect(added).to.deep.equal(plain.added);
        expect(rejected).to.deep.equal(plain.rejected);
        if (rejected.count > 0) return;
        let index = 0;
        while (index < Math.min(added.length, known.length) && sameText(plain.added[index], known[index])) {
          expect(added[index] === known[index], `tunnel ${index}`).to.equal(true);
          index += 1;
        }
      }),
      { numRuns: RUNS },
    );
  });

  function sameText(a: Tunnel | undefined, b: Tunnel | undefined): boolean {
    return JSON.stringify(a) === JSON.stringify(b);
  }
});

/** The encoding of a field, and its value. */
interface Field<T> {
  readonly bytes: Buffer;
  /** Undefined for an unknown field. */
  readonly value: T | undefined;
}

interface IdentityValue {
  tenant_id?: string;
  cluster_id?: string;
  node_id?: string;
}

interface TimestampValue {
  seconds?: bigint;
  nanos?: number;
}

interface TunnelValue {
  name?: string;
  identity?: IdentityValue;
  created_at?: TimestampValue;
}

interface RequestValue {
  node?: Buffer;
  tunnel?: TunnelValue;
  removed?: string;
  full_push?: boolean;
  nonce?: bigint;
}

/**
 * Messages of an adversarial encoder: fields in any order and number, redundant varint bytes, unknown fields in between,
 * and text that is not UTF-8, each with its expected value.
 */
describe('decodeReport with adversarial encodings', () => {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  const padding = fc.integer({ min: 0, max: 1 });
  const content = fc.oneof(
    anyText.map((value) => Buffer.from(value)),
    fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
  );
  const unsigned = int64Value.map((value) => BigInt.asUintN(64, value));

  /** An unknown field: an unused field number, or a known one with another wire type. */
  const unknownField = (known: readonly number[]): fc.Arbitrary<Field<never>> => {
    const number = fc.integer({ min: 6, max: 536_870_911 });
    return fc
      .oneof(
        fc.tuple(number, unsigned).map(([field, value]) => varint(field, value)),
        fc.tuple(number, content).map(([field, value]) => lengthDelimited(field, value)),
        fc.tuple(number, unsigned).map(([field, value]) => group(field, group(3, varint(1, value)))),
        ...known.map((field) => unsigned.map((value) => varint(field, value))),
      )
      .map((bytes) => ({ bytes, value: undefined }));
  };
  const textField = <T>(field: number, toValue: (text: string) => T): fc.Arbitrary<Field<T>> =>
    fc.tuple(content, padding).map(([value, pad]) => ({
      bytes: lengthDelimited(field, value, pad),
      value: toValue(utf8.decode(value)),
    }));
  const message = <Part, T>(
    field: number,
    parts: fc.Arbitrary<Field<Part>>,
    toValue: (parts: readonly Part[]) => T,
  ): fc.Arbitrary<Field<T>> =>
    fc.tuple(fc.array(parts, { maxLength: 5 }), padding).map(([fields, pad]) => ({
      bytes: lengthDelimited(field, concat(...fields.map(({ bytes }) => bytes)), pad),
      value: toValue(valuesOf(fields)),
    }));

  const identityField: fc.Arbitrary<Field<IdentityValue>> = fc.oneof(
    { weight: 3, arbitrary: textField(1, (value): IdentityValue => ({ tenant_id: value })) },
    { weight: 3, arbitrary: textField(2, (value): IdentityValue => ({ cluster_id: value })) },
    { weight: 3, arbitrary: textField(3, (value): IdentityValue => ({ node_id: value })) },
    unknownField([1, 2, 3]),
  );
  const timestampField: fc.Arbitrary<Field<TimestampValue>> = fc.oneof(
    { weight: 3, arbitrary: seconds.map((value) => ({ bytes: int64(1, value), value: { seconds: value } })) },
    {
      weight: 3,
      arbitrary: int32Value.map((value) => ({ bytes: int64(2, BigInt(value)), value: { nanos: value } })),
    },
    unknownField([]),
  );
  const tunnelField: fc.Arbitrary<Field<TunnelValue>> = fc.oneof(
    { weight: 3, arbitrary: textField(1, (name): TunnelValue => ({ name })) },
    {
      weight: 6,
      arbitrary: message(2, identityField, (parts): TunnelValue => ({ identity: laterOverEarlier(parts) })),
    },
    {
      weight: 2,
      arbitrary: message(3, timestampField, (parts): TunnelValue => ({
        created_at: laterOverEarlier(parts),
      })),
    },
    unknownField([1, 2, 3]),
  );
  const requestField: fc.Arbitrary<Field<RequestValue>> = fc.oneof(
    { weight: 5, arbitrary: message(2, tunnelField, (parts) => ({ tunnel: mergedTunnel(parts) })) },
    { weight: 2, arbitrary: textField(3, (removed): RequestValue => ({ removed })) },
    fc
      .tuple(content, padding)
      .map(([node, pad]) => ({ bytes: lengthDelimited(1, node, pad), value: { node } })),
    fc.tuple(fc.boolean(), padding).map(([value, pad]) => ({
      bytes: varint(4, value ? 1n : 0n, pad),
      value: { full_push: value },
    })),
    int64Value.map((nonce) => ({ bytes: int64(5, nonce), value: { nonce } })),
    unknownField([1, 2, 3]),
  );
  const request = fc.array(requestField, { maxLength: 12 });

  it('uses the last of several equal fields, merges messages, and skips unknown fields', () => {
    fc.assert(
      fc.property(request, (fields) => {
        const bytes = concat(...fields.map((field) => field.bytes));
        expect(read(bytes)).to.deep.equal(expectedReport(fields));
        const known = decode(bytes).added;
        expect(read(bytes, known), 'with known tunnels').to.deep.equal(expectedReport(fields));
      }),
      { numRuns: RUNS },
    );
  });

  it('decodes a report that is truncated between two fields, and rejects it when truncated elsewhere', () => {
    fc.assert(
      fc.property(request, fc.nat(), (fields, at) => {
        const bytes = concat(...fields.map((field) => field.bytes));
        const cut = at % (bytes.length + 1);
        let completeFields = 0;
        let end = 0;
        for (const field of fields) {
          if (end + field.bytes.length > cut) break;
          end += field.bytes.length;
          completeFields += 1;
        }
        if (end === cut)
          expect(read(bytes.subarray(0, cut))).to.deep.equal(expectedReport(fields.slice(0, completeFields)));
        else expect(() => read(bytes.subarray(0, cut))).to.throw(MalformedReportError);
      }),
      { numRuns: RUNS },
    );
  });

  it('decodes or rejects a report with changed, inserted or removed bytes', () => {
    const change = fc.record({
      at: fc.nat(),
      removedBytes: fc.integer({ min: 0, max: 3 }),
      insertedBytes: fc.uint8Array({ maxLength: 3 }),
    });
    fc.assert(
      fc.property(request, fc.array(change, { minLength: 1, maxLength: 4 }), (fields, changes) => {
        let bytes = concat(...fields.map((field) => field.bytes));
        for (const { at, removedBytes, insertedBytes } of changes) {
          const from = at % (bytes.length + 1);
          bytes = concat(
            bytes.subarray(0, from),
            Buffer.from(insertedBytes),
            bytes.subarray(from + removedBytes),
          );
        }
        decodeOrReject(bytes);
      }),
      { numRuns: RUNS * 5 },
    );
  });

  it('decodes or rejects random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => decodeOrReject(Buffer.from(bytes))),
      { numRuns: RUNS * 5 },
    );
  });
});

function laterOverEarlier<T extends object>(parts: readonly T[]): T {
  return Object.assign({}, ...parts) as T;
}

function valuesOf<T>(fields: readonly Field<T>[]): T[] {
  return fields.flatMap(({ value }) => (value === undefined ? [] : [value]));
}

/** Merges the parts naively: later ones override earlier ones, messages part by part. */
function mergedTunnel(parts: readonly TunnelValue[]): TunnelValue {
  const merged: TunnelValue = {};
  for (const { name, identity, created_at: createdAt } of parts) {
    if (name !== undefined) merged.name = name;
    if (identity !== undefined) merged.identity = { ...merged.identity, ...identity };
    if (createdAt !== undefined) merged.created_at = { ...merged.created_at, ...createdAt };
  }
  return merged;
}

function expectedReport(fields: readonly Field<RequestValue>[]): ComparedReport {
  const values = valuesOf(fields);
  const nodes = values.flatMap(({ node }) => (node === undefined ? [] : [node]));
  return expected(
    nodes.length === 0 ? undefined : concat(...nodes),
    values.findLast((value) => value.full_push !== undefined)?.full_push ?? false,
    values.findLast(({ nonce }) => nonce !== undefined)?.nonce ?? 0n,
    values.flatMap(({ tunnel }) => (tunnel === undefined ? [] : [withDecimalSeconds(tunnel)])),
    values.flatMap(({ removed }) => (removed === undefined ? [] : [removed])),
  );
}

function withDecimalSeconds({ created_at: createdAt, ...rest }: TunnelValue): TunnelFields {
  if (createdAt === undefined) return rest;
  return { ...rest, created_at: { seconds: String(createdAt.seconds ?? 0), nanos: createdAt.nanos ?? 0 } };
}

function decodeOrReject(bytes: Buffer): void {
  let report: DecodedReport;
  try {
    report = decode(bytes);
  } catch (error) {
    expect(error).to.be.instanceOf(MalformedReportError);
    return;
  }
  for (const { name } of report.added) expect(name.isWellFormed()).to.equal(true);
  for (const name of report.removedNames) expect(name.isWellFormed()).to.equal(true);
  for (const { message } of report.rejected.first) expect(message).to.not.match(/\p{Cc}/u);
}

/** Removes undefined fields, so that they are not encoded. */
function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, isPlain(value) ? defined(value) : (value as unknown)]);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
