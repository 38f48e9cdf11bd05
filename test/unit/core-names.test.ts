import { expect } from 'chai';
import * as fc from 'fast-check';
import { createHash } from 'node:crypto';

import type { ReporterId, Tunnel } from '../../src/core/tunnel.ts';
import { reporterKey } from '../../src/core/tunnel.ts';
import { createNames } from '../../src/core/names.ts';
import { names, RESPONDER, tunnel } from '../support/sample-tunnels.ts';

/** UTF-16 units of every kind: lone surrogates, control characters, emoji by chance. */
const anyUnits = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 40 })
  .map((units) => String.fromCharCode(...units));
const anyText = fc.oneof(
  anyUnits,
  fc.string({ unit: 'binary' }),
  fc.string({ unit: fc.constantFrom('a', 'Z', '0', '-', '_', '.', ':', '/', ' ', 'é'), maxLength: 70 }),
  fc.constantFrom('', '__proto__', 'constructor', '-', '...', '😀', 'K', 'İ', '\ud800', '\udc00', '\ufffd'),
  anyUnits.map((text) => (text === '' ? 'x' : text).repeat(50)),
);
const anyReporter: fc.Arbitrary<ReporterId> = fc.record({ cluster: anyText, id: anyText });
const anyTunnel: fc.Arbitrary<Tunnel> = fc.record({
  name: anyText,
  tenantID: anyText,
  clusterID: anyText,
  nodeID: anyText,
  createdAt: fc.constant(undefined),
});

/** RFC 1123 label: a valid object name, and with at most 63 characters a valid label value as well. */
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
/** The rule by which the API server validates label values. */
const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;

/** Computes 65 bits in Crockford's base 32 with big integers instead of shifted bytes. */
function expectedHash(text: string): string {
  const bits = BigInt(`0x${createHash('sha256').update(text).digest('hex')}`) >> (256n - 65n);
  const digits: string[] = [];
  for (let shift = 60n; shift >= 0n; shift -= 5n) {
    digits.push('0123456789abcdefghjkmnpqrstvwxyz'.charAt(Number((bits >> shift) & 31n)));
  }
  return digits.join('');
}

function objectNameOf(reported: Tunnel, reporter = RESPONDER): string {
  return names.tunnelObjectName(reporter, reported);
}

/** Returns the part of an object name before the hash. */
function prefix(nodeID: string, tenantID = 'acme'): string {
  return objectNameOf(tunnel('t', { nodeID, tenantID })).slice(0, -13);
}

describe('object names', () => {
  it('are valid and deterministic for any text', () => {
    fc.assert(
      fc.property(anyReporter, anyTunnel, (reporter, reported) => {
        const name = names.tunnelObjectName(reporter, reported);
        expect(name).to.match(DNS_LABEL);
        expect(names.tunnelObjectName({ ...reporter }, { ...reported })).to.equal(name);
      }),
      { numRuns: 1000 },
    );
  });

  it('are equal for a text and its stored form, in which lone surrogates become U+FFFD', () => {
    fc.assert(
      fc.property(anyReporter, anyTunnel, (reporter, reported) => {
        const stored = { cluster: reporter.cluster.toWellFormed(), id: reporter.id.toWellFormed() };
        expect(
          names.tunnelObjectName(stored, {
            ...reported,
            name: reported.name.toWellFormed(),
            tenantID: reported.tenantID.toWellFormed(),
            nodeID: reported.nodeID.toWellFormed(),
          }),
        ).to.equal(names.tunnelObjectName(reporter, reported));
      }),
    );
  });

  it('differ if the reporter or the tunnel name differs, wherever a colon or digit is', () => {
    const keys: [cluster: string, id: string, name: string][] = [
      ['a:b', 'c', 'n'],
      ['a', 'b:c', 'n'],
      ['a', 'b', 'c:n'],
      ['', 'a:b', 'cn'],
      ['a:b:c', '', 'n'],
      ['', '', '1:n'],
      ['1:n', '', ''],
      ['', '1:n', ''],
      ['a1:', 'b', 'n'],
      ['a', '1:b', 'n'],
      ['A', 'b:c', 'n'],
    ];
    const objectNames = keys.map(([cluster, id, name]) =>
      names.tunnelObjectName({ cluster, id }, tunnel(name, { nodeID: 'same' })),
    );
    expect(new Set(objectNames).size).to.equal(keys.length);
    expect(new Set(keys.map(([cluster, id]) => reporterKey({ cluster, id }))).size).to.equal(
      new Set(keys.map(([cluster, id]) => JSON.stringify([cluster, id]))).size,
    );
  });

  it('end with 65 bits of SHA-256 over length-prefixed parts', () => {
    fc.assert(
      fc.property(anyReporter, anyTunnel, (reporter, reported) => {
        const parts = [reporter.cluster, reporter.id, reported.name].map((part) => `${part.length}:${part}`);
        expect(names.tunnelObjectName(reporter, reported).slice(-13)).to.equal(expectedHash(parts.join('')));
      }),
    );
  });

  it('never change between releases, because a change would rename every object', () => {
    expect([
      objectNameOf(tunnel('node-17')),
      objectNameOf(tunnel('acme:node-17', { nodeID: 'acme:node-17' })),
      objectNameOf(tunnel('NODE_17.example.com')),
      objectNameOf(tunnel('日本')),
      objectNameOf(tunnel('x'.repeat(200))),
      objectNameOf(tunnel('node-17'), { cluster: '', id: 'r' }),
    ]).to.deep.equal([
      'node-17-the2rz0rcb0vk',
      'node-17-mdssa2m62y8ex',
      'node-17-example-com-cfm7r4rxjqtfb',
      'r3z7n58zr1xc9',
      'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-6j4rqyzx22hq3',
      'node-17-7jk96h4tmc6cz',
    ]);
  });

  it('start with the readable node ID without its tenant prefix', () => {
    expect(prefix('node-17')).to.equal('node-17-');
    expect(prefix('acme:node-17')).to.equal('node-17-');
    expect(prefix('beta:node-17')).to.equal('beta-node-17-');
    expect(prefix('Node_17.Example.COM')).to.equal('node-17-example-com-');
    expect(prefix('-_.node..17-_.')).to.equal('node-17-');
    expect(prefix('a/b c\nd😀e')).to.equal('a-b-c-d-e-');
    expect(prefix('日本')).to.equal('');
    expect(prefix('')).to.equal('');
    expect(prefix('x'.repeat(2000))).to.equal(`${'x'.repeat(49)}-`);
    expect(prefix(`${'x'.repeat(48)}-y`)).to.equal(`${'x'.repeat(48)}-`);
  });

  it('do not depend on tenant, cluster or createdAt', () => {
    const name = names.tunnelObjectName(RESPONDER, tunnel('t'));
    expect(
      names.tunnelObjectName(
        RESPONDER,
        tunnel('t', { tenantID: 'beta', clusterID: 'us-1', createdAt: undefined }),
      ),
    ).to.equal(name);
  });

  it('use only the first bytes of the digest', () => {
    const zeros = createNames(() => new Uint8Array(9));
    const ones = createNames(() => new Uint8Array(9).fill(255));
    expect(zeros.tunnelObjectName(RESPONDER, tunnel('日本'))).to.equal('0'.repeat(13));
    expect(ones.tunnelObjectName(RESPONDER, tunnel('日本'))).to.equal('z'.repeat(13));
  });
});

describe('names of slices', () => {
  it('are valid, deterministic and end with the ordinal for any text', () => {
    fc.assert(
      fc.property(anyReporter, anyText, fc.nat(9_999_999), (reporter, tenantID, ordinal) => {
        const name = names.sliceObjectName(reporter, tenantID, ordinal);
        expect(name).to.match(DNS_LABEL);
        expect(name.endsWith(`-${ordinal}`)).to.equal(true);
        expect(names.sliceObjectName({ ...reporter }, tenantID, ordinal)).to.equal(name);
      }),
      { numRuns: 1000 },
    );
  });

  it('differ if the reporter, the tenant or the ordinal differs', () => {
    const keys: [cluster: string, id: string, tenantID: string, ordinal: number][] = [
      ['a:b', 'c', 't', 0],
      ['a', 'b:c', 't', 0],
      ['a', 'b', 'c:t', 0],
      ['a', 'b', 'c:t', 1],
      ['', 'a:b', 'ct', 0],
      ['a:b:c', '', 't', 0],
      ['', '', '', 0],
    ];
    expect(
      new Set(
        keys.map(([cluster, id, tenantID, ordinal]) =>
          names.sliceObjectName({ cluster, id }, tenantID, ordinal),
        ),
      ).size,
    ).to.equal(keys.length);
  });

  it('never change between releases, because a change would rename every slice', () => {
    const { cluster } = RESPONDER;
    expect([
      names.sliceObjectName(RESPONDER, 'acme', 0),
      names.sliceObjectName({ cluster, id: 'Responder_0.example.com' }, 'acme', 17),
      names.sliceObjectName({ cluster: '', id: '日本' }, '', 9_999_999),
      names.sliceObjectName({ cluster, id: 'x'.repeat(200) }, 'acme', 9_999_999),
    ]).to.deep.equal([
      'responder-0-ayx2z037vgxkz-0',
      'responder-0-example-com-xb7rkd4y8gqxz-17',
      'a6ahxvpkm8n95-9999999',
      `${'x'.repeat(41)}-zv6w0s9eewav6-9999999`,
    ]);
  });
});

describe('label values', () => {
  it('are valid and deterministic for any text', () => {
    fc.assert(
      fc.property(anyText, (raw) => {
        const value = names.labelValue(raw);
        expect(value).to.match(LABEL_VALUE);
        expect(value.length).to.be.at.most(63);
        expect(names.labelValue(raw)).to.equal(value);
        expect(names.labelValue(raw.toWellFormed())).to.equal(value);
        if (raw !== '') expect(value).not.to.equal('');
      }),
      { numRuns: 1000 },
    );
  });

  it('are the raw values if these are valid', () => {
    const valid = [
      '',
      'a',
      'acme',
      'Acme_Inc.EU',
      'a..b',
      'a__b',
      'a--b',
      '0',
      'x'.repeat(63),
      'node-17',
      'constructor',
    ];
    for (const raw of valid) expect(names.labelValue(raw)).to.equal(raw);
    fc.assert(
      fc.property(fc.stringMatching(/^[A-Za-z0-9]([A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/), (raw) => {
        expect(names.labelValue(raw)).to.equal(raw);
      }),
    );
  });

  it('keep what is legal of an illegal one, readable, and end in a hash', () => {
    const readable: [raw: string, prefix: string][] = [
      ['acme:x', 'acme-x'],
      ['a/b', 'a-b'],
      ['-a', 'a'],
      ['a.', 'a'],
      ['__proto__', 'proto'],
      ['straße', 'stra-e'],
      ['x'.repeat(64), 'x'.repeat(48)],
      ['ACME\n', 'ACME'],
    ];
    for (const [raw, prefix] of readable) {
      expect(names.labelValue(raw)).to.equal(`${prefix}--${expectedHash(raw)}`);
    }
  });

  it('differ for different raw values, so none can be chosen to equal the hashed value of another', () => {
    fc.assert(
      fc.property(anyText, anyText, (victim, other) => {
        const target = names.labelValue(victim);
        for (const raw of [
          other,
          target,
          target.toUpperCase(),
          target.slice(-13),
          `${target}-`,
          `-${target}`,
        ]) {
          // Raw values are equal if their stored forms are.
          if (raw.toWellFormed() === victim.toWellFormed()) continue;
          expect(names.labelValue(raw), JSON.stringify([victim, raw])).not.to.equal(target);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('of a value without valid characters differ from those of tenants named like its hash', () => {
    const label = names.labelValue('日本');
    expect(label).to.equal(`x--${expectedHash('日本')}`);
    for (const raw of [label, expectedHash('日本'), 'x']) expect(names.labelValue(raw)).not.to.equal(label);
  });
});
