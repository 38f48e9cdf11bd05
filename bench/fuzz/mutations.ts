/** Mutated reports: valid ones with changes that a broken or malicious peer might make. Deterministic per seed. */
import { seededRandom, type Random } from '../../src/simulate/random.ts';
import { requestBytes, type TunnelFields } from '../../test/support/wire.ts';

/** Encoded valid reports that are mutated; none is empty. */
export type Corpus = readonly Buffer[];

const CORPUS_SIZE = 500;
/** One report is so large that its decoding yields twice. */
const LARGE_REPORT_TUNNELS = 2500;
/** Few, so that the streams of a run often share a reporter, and reports often share a tunnel. */
const REPORTERS = 8;
const TUNNELS = 20;
const MAX_CHANGES = 4;
/** Far deeper than any decoder should follow. */
const NESTING_BYTES = 20_000;

const NAMES = ['__proto__', 'a:b', '🚇', 'x'.repeat(512), 'x'.repeat(600), '', '\u202e', 'line\nbreak'];
const NONCES = ['0', '9223372036854775807', '-1', '-9223372036854775808'];
const SECONDS = ['0', '-62135596801', '253402300800', '9223372036854775807'];
/** Nested groups and tiny fields, which may exhaust the stack or memory of a decoder. */
const UNITS = ['0b', '3b', '0a00', '1200', '1a00', '12021200', '2801'];

/** Returns the random numbers of a case, which depend only on `seed` and `index`. */
export function caseRandom(seed: number, index: number): Random {
  return seededRandom((Math.imul(seed, 0x9e3779b1) + index) >>> 0);
}

export function createCorpus(seed: number): Corpus {
  return Array.from({ length: CORPUS_SIZE }, (_, index) => {
    const random = caseRandom(~seed, index);
    const few = random.below(random.below(20) === 0 ? 60 : 6);
    return validReport(random, index === 0 ? LARGE_REPORT_TUNNELS : few);
  });
}

/** Returns one of `values`, which must not be empty. */
export function pickOne<T>(values: readonly T[], random: Random): T {
  return values[random.below(values.length)] as T;
}

/** Returns a report of the corpus with one to four changes; fewer changes are more likely. */
export function mutatedReport(corpus: Corpus, random: Random): Buffer {
  let bytes = pickOne(corpus, random);
  for (let remaining = random.below(1 + random.below(MAX_CHANGES)); remaining >= 0; remaining -= 1) {
    bytes = mutateOnce(bytes, random, corpus);
  }
  return bytes;
}

/** Returns a changed copy of `bytes`. */
export function mutateOnce(bytes: Buffer, random: Random, corpus: Corpus): Buffer {
  const at = random.below(bytes.length + 1);
  const to = Math.min(bytes.length, at + 1 + random.below(random.below(4) === 0 ? 64 : 4));
  const [head, tail] = [bytes.subarray(0, at), bytes.subarray(at)];
  // Mostly one bit or byte, so that many messages are still reports, with other contents.
  switch (random.below(16)) {
    case 0:
      return Buffer.from(head);
    case 1:
      return Buffer.from(tail);
    case 2:
      return Buffer.concat([head, bytes.subarray(to)]);
    case 3:
      return Buffer.concat([bytes.subarray(0, to), tail]);
    case 4:
      return Buffer.concat([head, randomBytes(random), tail]);
    case 5: {
      const otherReport = pickOne(corpus, random);
      return Buffer.concat([head, otherReport.subarray(random.below(otherReport.length + 1))]);
    }
    case 6:
      return Buffer.concat([bytes, pickOne(corpus, random)]);
    case 7:
      return Buffer.concat([head, varint(random), bytes.subarray(to)]);
    case 8: {
      if (random.below(100) > 0) return replaceByte(bytes, at, () => random.below(256));
      return Buffer.concat([head, Buffer.alloc(NESTING_BYTES, pickOne(UNITS, random), 'hex'), tail]);
    }
    case 9:
    case 10:
      return replaceByte(bytes, at, () => pickOne([0, 1, 0x7f, 0x80, 0xff], random));
    default:
      return replaceByte(bytes, at, (byte) => byte ^ (1 << random.below(8)));
  }
}

function validReport(random: Random, tunnels: number): Buffer {
  return requestBytes({
    ...(random.below(10) === 0 ? {} : { node: { id: `fuzz-${random.below(REPORTERS)}`, cluster: 'fuzz' } }),
    added_tunnels: Array.from({ length: tunnels }, () => tunnelFields(random)),
    removed_tunnel_names: Array.from({ length: random.below(4) }, () => tunnelName(random)),
    full_push: random.below(3) === 0,
    nonce: random.below(20) === 0 ? pickOne(NONCES, random) : random.below(1000),
  });
}

function tunnelFields(random: Random): TunnelFields {
  return {
    name: tunnelName(random),
    identity: { tenant_id: 'acme', cluster_id: 'acme:eu-1', node_id: `acme:node-${random.below(TUNNELS)}` },
    created_at: {
      seconds: random.below(20) === 0 ? pickOne(SECONDS, random) : 1_790_000_000,
      nanos: random.below(1000) * 1_000_000,
    },
  };
}

function tunnelName(random: Random): string {
  return random.below(20) === 0 ? pickOne(NAMES, random) : `node-${random.below(TUNNELS)}`;
}

function replaceByte(bytes: Buffer, at: number, change: (byte: number) => number): Buffer {
  const copy = Buffer.from(bytes);
  const index = Math.min(at, copy.length - 1);
  if (index >= 0) copy[index] = change(copy[index] ?? 0);
  return copy;
}

function randomBytes(random: Random): Buffer {
  return Buffer.from(Array.from({ length: 1 + random.below(16) }, () => random.below(256)));
}

/** Returns a varint of up to 13 bytes; more than 10 are invalid. */
function varint(random: Random): Buffer {
  const bytes = randomBytes(random)
    .subarray(0, 12)
    .map((byte) => byte | 0x80);
  return Buffer.from([...bytes, random.below(128)]);
}
