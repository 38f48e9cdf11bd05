import { expect } from 'chai';
import * as fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { parse } from 'yaml';

import { exceedsLength, findForbiddenCharacter, quote } from '../../src/core/text.ts';
import { optionalTextViolation, textViolation } from '../../src/core/report.ts';

/** UTF-16 units of every kind, including lone surrogates. */
const anyText = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 0xff }), fc.integer({ min: 0, max: 0xffff })), { maxLength: 200 })
  .map((units) => String.fromCharCode(...units));

/** Returns the patterns of strings in the spec of a CRD, by path. */
function specPatterns(file: string): Map<string, string> {
  interface Schema {
    readonly pattern?: string;
    readonly properties?: Readonly<Record<string, Schema>>;
  }
  const crd: {
    spec: { versions: { schema: { openAPIV3Schema: Schema } }[] };
  } = parse(readFileSync(new URL(`../../crds/${file}`, import.meta.url), 'utf8'));
  const patterns = new Map<string, string>();
  const visit = (path: string, schema: Schema | undefined): void => {
    if (schema?.pattern !== undefined) patterns.set(path, schema.pattern);
    for (const [name, property] of Object.entries(schema?.properties ?? {}))
      visit(`${path}.${name}`, property);
  };
  visit('spec', crd.spec.versions[0]?.schema.openAPIV3Schema.properties?.['spec']);
  return patterns;
}

describe('exceedsLength', () => {
  it('counts code points, not UTF-16 units', () => {
    expect(exceedsLength('😀'.repeat(257), 257)).to.equal(false);
    expect(exceedsLength('😀'.repeat(258), 257)).to.equal(true);
    expect(exceedsLength(`${'😀'.repeat(256)}ab`, 257)).to.equal(true);
  });

  it('counts combining marks individually', () => {
    expect(exceedsLength('e\u0301'.repeat(64), 128)).to.equal(false);
    expect(exceedsLength(`${'e\u0301'.repeat(64)}e`, 128)).to.equal(true);
  });

  it('agrees with a plain count for any text and limit', () => {
    fc.assert(
      fc.property(anyText, fc.integer({ min: 0, max: 220 }), (text, limit) => {
        expect(exceedsLength(text, limit)).to.equal(Array.from(text).length > limit);
      }),
    );
  });
});

describe('findForbiddenCharacter', () => {
  const all = [
    ...specPatterns('reversetunnels.yaml'),
    ...specPatterns('reversetunnelreporters.yaml'),
    ...specPatterns('reversetunnelpolicies.yaml'),
    ...specPatterns('reversetunnelslices.yaml'),
  ];

  it('agrees with the patterns of the CRDs for every string that a reporter chooses', () => {
    expect(all.map(([path]) => path)).to.include.members([
      'spec.tunnelName',
      'spec.tenantID',
      'spec.clusterID',
      'spec.nodeID',
      'spec.reporter.id',
      'spec.reporter.cluster',
      'spec.id',
      'spec.cluster',
    ]);
    for (const pattern of new Set(all.map(([, pattern]) => pattern))) {
      const crd = new RegExp(pattern, 'u');
      for (let point = 0; point <= 0x10ffff; point += 1) {
        const character = String.fromCodePoint(point);
        if ((findForbiddenCharacter(character) === undefined) !== crd.test(character)) {
          expect.fail(`U+${point.toString(16)} is rejected by only one of the CRD and the operator`);
        }
      }
    }
  });

  it('returns the code point of the first forbidden character', () => {
    expect(findForbiddenCharacter('a\u0000')).to.equal('U+0000');
    expect(findForbiddenCharacter('a\nb\u202e')).to.equal('U+000A');
    expect(findForbiddenCharacter('\u009f')).to.equal('U+009F');
    expect(findForbiddenCharacter('x\u2066y')).to.equal('U+2066');
  });

  it('accepts characters that are common in names', () => {
    for (const text of [
      'acme:node-17',
      'über/straße',
      '日本',
      '😀',
      ' ',
      '\u00a0',
      '\u2027\u202f',
      '\ufeff',
      '\u200d',
    ]) {
      expect(findForbiddenCharacter(text), text).to.equal(undefined);
    }
  });

  it('finds a character anywhere in a text', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const isForbidden = Array.from(text).some(
          (character) => findForbiddenCharacter(character) !== undefined,
        );
        expect(findForbiddenCharacter(text) !== undefined).to.equal(isForbidden);
      }),
    );
  });
});

describe('text violations', () => {
  it('check for empty, too long and forbidden in this order', () => {
    expect(textViolation('f', '', 3)?.reason).to.equal('empty');
    expect(optionalTextViolation('f', '', 3)).to.equal(undefined);
    expect(textViolation('f', 'abcd', 3)?.reason).to.equal('too_long');
    expect(textViolation('f', 'a\nb', 3)?.reason).to.equal('forbidden_character');
    expect(textViolation('f', 'a\nbc', 3)?.reason).to.equal('too_long');
    expect(textViolation('f', 'abc', 3)).to.equal(undefined);
    expect(textViolation('f', '😀😀😀', 3)).to.equal(undefined);
  });

  it('name the field, the value and the limit', () => {
    expect(textViolation('identity.tenant_id', 'abcd', 3)?.message).to.equal(
      'identity.tenant_id: "abcd" exceeds 3 characters',
    );
    expect(textViolation('name', 'a\u202eb', 3)?.message).to.equal(
      'name: "a\\u202eb" contains U+202E; control characters and direction overrides are not allowed',
    );
  });

  it('quote any value as short, well-formed text without forbidden characters', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          anyText,
          anyText.map((text) => text.repeat(50)),
        ),
        (text) => {
          const quoted = quote(text);
          expect(findForbiddenCharacter(quoted)).to.equal(undefined);
          expect(quoted.isWellFormed()).to.equal(true);
          expect(quoted.length).to.be.at.most(64 * 6 + 3);
          if (text.length <= 64) expect(JSON.parse(quoted)).to.equal(text);
        },
      ),
    );
  });

  it('of the largest value that fits a message are one short line', () => {
    const message = textViolation('name', 'x'.repeat(64 * 1024 * 1024), 512)?.message;
    expect(message).to.match(/^name: "x{64}…" exceeds 512 characters$/);
  });
});
