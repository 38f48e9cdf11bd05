import { expect } from 'chai';
import * as fc from 'fast-check';
import { formatCreatedAt, type Tunnel } from '../../src/core/tunnel.ts';
import { MAX_TUNNEL_NAME, textViolation, tunnelViolation } from '../../src/core/report.ts';
import { decodeReport, MalformedReportError, type DecodedReport } from '../../src/grpc/decode.ts';
import { group, int64, concat, lengthDelimited, varint } from '../support/wire-writer.ts';
import { requestBytes, requestOf, type RequestFields, type TunnelFields } from '../support/wire.ts';

const RUNS = 2000;

function decode(bytes: Buffer): DecodedReport {
  const work = decodeReport(bytes);
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}

/** What is compared: everything but the texts of violations. */
interface Read {
  readonly node: Buffer | undefined;
  readonly fullPush: boolean;
  readonly nonce: bigint;
  readonly added: readonly Tunnel[];
  readonly removedNames: readonly string[];
  readonly setAside: number;
}

function read(bytes: Buffer): Read {
  const { node, rejected, ...rest } = decode(bytes);
  return { ...rest, node: node && Buffer.from(node), setAside: rejected.count };
}

/** What a report says, put together from parts whose rules `core` holds and tests. */
function expected(
  node: Buffer | undefined,
  fullPush: boolean,
  nonce: bigint,
  tunnels: readonly TunnelFields[],
  removed: readonly string[],
): Read {
  const added: Tunnel[] = [];
  for (const { name = '', identity, created_at: createdAt } of tunnels) {
    const { tenant_id: tenantID = '', cluster_id: clusterID = '', node_id: nodeID = '' } = identity ?? {};
    const parts = identity && { tenantID, clusterID, nodeID };
    if (parts === undefined || tunnelViolation(name, parts, () => '') !== undefined) continue;
    const { seconds = 0, nanos = 0 } = createdAt ?? {};
    added.push({ name, ...parts, createdAt: createdAt && formatCreatedAt(Number(seconds), nanos) });
  }
  const removedNames = removed.filter((name) => textViolation('name', name, MAX_TUNNEL_NAME) === undefined);
  const setAside = tunnels.length - added.length + (removed.length - removedNames.length);
  return { node, fullPush, nonce, added, removedNames, setAside };
}

const int64Value = fc.oneof(
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.constantFrom(0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n),
);
const seconds = fc.oneof(fc.bigInt({ min: -70_000_000_000n, max: 260_000_000_000n }), int64Value);
const int32Value = fc.oneof(fc.integer(), fc.integer({ min: 0, max: 999_999_999 }));
/** Mostly rightful names; now and then empty, too long, or with what is refused. */
const anyText = fc.oneof(
  { weight: 6, arbitrary: fc.string({ minLength: 1, maxLength: 12, unit: 'grapheme' }) },
  { weight: 1, arbitrary: fc.string({ maxLength: 200, unit: 'binary' }) },
);

const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 8 });

describe('grpc/decode against protobufjs', () => {
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

  it('what protobufjs writes is read as protobufjs reads it', () => {
    fc.assert(
      fc.property(requestFields, (fields) => {
        const bytes = requestBytes(fields);
        const theirs = requestOf(bytes);
        const { node, ...ours } = read(bytes);
        expect({ ...ours, node: undefined }).to.deep.equal(
          expected(
            undefined,
            theirs.full_push ?? false,
            BigInt(theirs.nonce ?? 0),
            theirs.added_tunnels,
            theirs.removed_tunnel_names,
          ),
        );
        const nodeOnly = node === undefined ? Buffer.alloc(0) : lengthDelimited(1, node);
        expect(requestOf(nodeOnly).node).to.deep.equal(theirs.node);
      }),
      { numRuns: RUNS },
    );
  });
});

/** One field as it goes on the wire, beside what it means. */
interface Field<T> {
  readonly bytes: Buffer;
  /** Undefined: nothing, as it is unknown. */
  readonly says: T | undefined;
}

interface IdentitySays {
  tenant_id?: string;
  cluster_id?: string;
  node_id?: string;
}

interface TimestampSays {
  seconds?: bigint;
  nanos?: number;
}

interface TunnelSays {
  name?: string;
  identity?: IdentitySays;
  created_at?: TimestampSays;
}

interface RequestSays {
  node?: Buffer;
  tunnel?: TunnelSays;
  removed?: string;
  full_push?: boolean;
  nonce?: bigint;
}

/**
 * Messages as an ill-disposed writer makes them: fields in any order and any number, needlessly long varints, unknown
 * fields between, text that is no UTF-8. Each comes with what it means.
 */
describe('grpc/decode of messages written by hand', () => {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  const padding = fc.integer({ min: 0, max: 1 });
  const content = fc.oneof(
    anyText.map((value) => Buffer.from(value)),
    fc.uint8Array({ maxLength: 8 }).map((bytes) => Buffer.from(bytes)),
  );
  const unsigned = int64Value.map((value) => BigInt.asUintN(64, value));

  /** Unknown: a number that no message has, or a known number with a wire type that it does not have. */
  const unknownField = (known: readonly number[]): fc.Arbitrary<Field<never>> => {
    const number = fc.integer({ min: 6, max: 536_870_911 });
    return fc
      .oneof(
        fc.tuple(number, unsigned).map(([field, value]) => varint(field, value)),
        fc.tuple(number, content).map(([field, value]) => lengthDelimited(field, value)),
        fc.tuple(number, unsigned).map(([field, value]) => group(field, group(3, varint(1, value)))),
        ...known.map((field) => unsigned.map((value) => varint(field, value))),
      )
      .map((bytes) => ({ bytes, says: undefined }));
  };
  const textField = <T>(field: number, says: (value: string) => T): fc.Arbitrary<Field<T>> =>
    fc.tuple(content, padding).map(([value, pad]) => ({
      bytes: lengthDelimited(field, value, pad),
      says: says(utf8.decode(value)),
    }));
  const message = <Part, T>(
    field: number,
    parts: fc.Arbitrary<Field<Part>>,
    says: (parts: readonly Part[]) => T,
  ): fc.Arbitrary<Field<T>> =>
    fc.tuple(fc.array(parts, { maxLength: 5 }), padding).map(([fields, pad]) => ({
      bytes: lengthDelimited(field, concat(...fields.map(({ bytes }) => bytes)), pad),
      says: says(saidBy(fields)),
    }));

  const identityField: fc.Arbitrary<Field<IdentitySays>> = fc.oneof(
    { weight: 3, arbitrary: textField(1, (value): IdentitySays => ({ tenant_id: value })) },
    { weight: 3, arbitrary: textField(2, (value): IdentitySays => ({ cluster_id: value })) },
    { weight: 3, arbitrary: textField(3, (value): IdentitySays => ({ node_id: value })) },
    unknownField([1, 2, 3]),
  );
  const timestampField: fc.Arbitrary<Field<TimestampSays>> = fc.oneof(
    { weight: 3, arbitrary: seconds.map((value) => ({ bytes: int64(1, value), says: { seconds: value } })) },
    {
      weight: 3,
      arbitrary: int32Value.map((value) => ({ bytes: int64(2, BigInt(value)), says: { nanos: value } })),
    },
    unknownField([]),
  );
  const tunnelField: fc.Arbitrary<Field<TunnelSays>> = fc.oneof(
    { weight: 3, arbitrary: textField(1, (name): TunnelSays => ({ name })) },
    {
      weight: 6,
      arbitrary: message(2, identityField, (parts): TunnelSays => ({ identity: laterOverEarlier(parts) })),
    },
    {
      weight: 2,
      arbitrary: message(3, timestampField, (parts): TunnelSays => ({ created_at: laterOverEarlier(parts) })),
    },
    unknownField([1, 2, 3]),
  );
  const requestField: fc.Arbitrary<Field<RequestSays>> = fc.oneof(
    { weight: 5, arbitrary: message(2, tunnelField, (parts) => ({ tunnel: mergedTunnel(parts) })) },
    { weight: 2, arbitrary: textField(3, (removed): RequestSays => ({ removed })) },
    fc
      .tuple(content, padding)
      .map(([node, pad]) => ({ bytes: lengthDelimited(1, node, pad), says: { node } })),
    fc.tuple(fc.boolean(), padding).map(([value, pad]) => ({
      bytes: varint(4, value ? 1n : 0n, pad),
      says: { full_push: value },
    })),
    int64Value.map((nonce) => ({ bytes: int64(5, nonce), says: { nonce } })),
    unknownField([1, 2, 3]),
  );
  const request = fc.array(requestField, { maxLength: 12 });

  it('the last of a field counts, messages are merged, unknown fields do not matter', () => {
    fc.assert(
      fc.property(request, (fields) => {
        expect(read(concat(...fields.map(({ bytes }) => bytes)))).to.deep.equal(meaning(fields));
      }),
      { numRuns: RUNS },
    );
  });

  it('cut anywhere: between two fields it is a shorter report, elsewhere it is malformed', () => {
    fc.assert(
      fc.property(request, fc.nat(), (fields, at) => {
        const bytes = concat(...fields.map((field) => field.bytes));
        const cut = at % (bytes.length + 1);
        let whole = 0;
        let end = 0;
        for (const field of fields) {
          if (end + field.bytes.length > cut) break;
          end += field.bytes.length;
          whole += 1;
        }
        if (end === cut) expect(read(bytes.subarray(0, cut))).to.deep.equal(meaning(fields.slice(0, whole)));
        else expect(() => read(bytes.subarray(0, cut))).to.throw(MalformedReportError);
      }),
      { numRuns: RUNS },
    );
  });

  it('with bytes changed, put in or left out, it is read or malformed, and nothing else happens', () => {
    const change = fc.record({
      at: fc.nat(),
      leftOut: fc.integer({ min: 0, max: 3 }),
      putIn: fc.uint8Array({ maxLength: 3 }),
    });
    fc.assert(
      fc.property(request, fc.array(change, { minLength: 1, maxLength: 4 }), (fields, changes) => {
        let bytes = concat(...fields.map((field) => field.bytes));
        for (const { at, leftOut, putIn } of changes) {
          const from = at % (bytes.length + 1);
          bytes = concat(bytes.subarray(0, from), Buffer.from(putIn), bytes.subarray(from + leftOut));
        }
        readOrMalformed(bytes);
      }),
      { numRuns: RUNS * 5 },
    );
  });

  it('random bytes are read or malformed, and nothing else happens', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => readOrMalformed(Buffer.from(bytes))),
      { numRuns: RUNS * 5 },
    );
  });
});

function laterOverEarlier<T extends object>(parts: readonly T[]): T {
  return Object.assign({}, ...parts) as T;
}

function saidBy<T>(fields: readonly Field<T>[]): T[] {
  return fields.flatMap(({ says }) => (says === undefined ? [] : [says]));
}

/** The naive reading: later parts over earlier ones, messages part by part. */
function mergedTunnel(parts: readonly TunnelSays[]): TunnelSays {
  const merged: TunnelSays = {};
  for (const { name, identity, created_at: createdAt } of parts) {
    if (name !== undefined) merged.name = name;
    if (identity !== undefined) merged.identity = { ...merged.identity, ...identity };
    if (createdAt !== undefined) merged.created_at = { ...merged.created_at, ...createdAt };
  }
  return merged;
}

function meaning(fields: readonly Field<RequestSays>[]): Read {
  const said = saidBy(fields);
  const nodes = said.flatMap(({ node }) => (node === undefined ? [] : [node]));
  return expected(
    nodes.length === 0 ? undefined : concat(...nodes),
    said.findLast((one) => one.full_push !== undefined)?.full_push ?? false,
    said.findLast(({ nonce }) => nonce !== undefined)?.nonce ?? 0n,
    said.flatMap(({ tunnel }) => (tunnel === undefined ? [] : [textual(tunnel)])),
    said.flatMap(({ removed }) => (removed === undefined ? [] : [removed])),
  );
}

function textual({ created_at: createdAt, ...rest }: TunnelSays): TunnelFields {
  if (createdAt === undefined) return rest;
  return { ...rest, created_at: { seconds: String(createdAt.seconds ?? 0), nanos: createdAt.nanos ?? 0 } };
}

function readOrMalformed(bytes: Buffer): void {
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

/** The same without the parts that are undefined, so that they stay off the wire. */
function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  const entries = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, isPlain(value) ? defined(value) : (value as unknown)]);
  return Object.fromEntries(entries) as { [K in keyof T]?: Exclude<T[K], undefined> };
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
