import { expect } from 'chai';
import * as fc from 'fast-check';

import { parseSpiffeId, spiffeIdOf } from '../../src/core/peer.ts';

const SEGMENT_CHARACTERS = 'abcXYZ019.-_'.split('');
const segment = fc
  .string({ unit: fc.constantFrom(...SEGMENT_CHARACTERS), minLength: 1, maxLength: 12 })
  .filter((text) => text !== '.' && text !== '..');
const trustDomain = fc.string({
  unit: fc.constantFrom(...'abz019.-_'.split('')),
  minLength: 1,
  maxLength: 40,
});

describe('parseSpiffeId', () => {
  it('returns the trust domain and the path unchanged', () => {
    expect(parseSpiffeId('spiffe://prod.example.org/ns/edge/sa/Envoy_0.a-b')).to.deep.equal({
      trustDomain: 'prod.example.org',
      path: '/ns/edge/sa/Envoy_0.a-b',
    });
    expect(parseSpiffeId('spiffe://prod')).to.deep.equal({ trustDomain: 'prod', path: '' });
    expect(parseSpiffeId('spiffe://prod/...'), 'three dots are a valid segment').to.not.equal(undefined);
  });

  it('accepts the maximum length and rejects one more character', () => {
    const domain = 'd'.repeat(255);
    const room = 2048 - `spiffe://${domain}/`.length;
    expect(parseSpiffeId(`spiffe://${domain}/${'p'.repeat(room)}`)?.path).to.have.length(room + 1);
    expect(parseSpiffeId(`spiffe://${domain}/${'p'.repeat(room + 1)}`)).to.equal(undefined);
    expect(parseSpiffeId(`spiffe://${domain}d/p`)).to.equal(undefined);
  });

  for (const [why, text] of [
    ['an empty text', ''],
    ['a missing trust domain', 'spiffe://'],
    ['a missing trust domain before the path', 'spiffe:///ns/edge'],
    ['another scheme', 'https://prod/ns/edge'],
    ['a scheme in upper case', 'SPIFFE://prod/ns/edge'],
    ['a trust domain in upper case', 'spiffe://Prod/ns/edge'],
    ['a missing double slash', 'spiffe:prod/ns/edge'],
    ['additional slashes before the trust domain', 'spiffe:////prod/ns/edge'],
    ['a port', 'spiffe://prod:443/ns/edge'],
    ['an empty port', 'spiffe://prod:/ns/edge'],
    ['a user', 'spiffe://admin@prod/ns/edge'],
    ['a query', 'spiffe://prod/ns/edge?x=y'],
    ['a fragment', 'spiffe://prod/ns/edge#x'],
    ['an IPv6 host', 'spiffe://[::1]/ns/edge'],
    ['a trailing slash', 'spiffe://prod/ns/edge/'],
    ['a root path', 'spiffe://prod/'],
    ['an empty segment', 'spiffe://prod/ns//edge'],
    ['a segment .', 'spiffe://prod/ns/./edge'],
    ['a segment ..', 'spiffe://prod/ns/other/../edge'],
    ['a segment .. at the end', 'spiffe://prod/ns/edge/..'],
    ['a backslash', 'spiffe://prod/ns\\edge'],
    ['percent-encoding', 'spiffe://prod/ns/%65dge'],
    ['an encoded slash', 'spiffe://prod/ns%2fedge'],
    ['an encoded ..', 'spiffe://prod/ns/%2e%2e/edge'],
    ['a space', 'spiffe://prod/ns/ed ge'],
    ['a leading space', ' spiffe://prod/ns/edge'],
    ['a trailing newline', 'spiffe://prod/ns/edge\n'],
    ['a NUL', 'spiffe://prod/ns/edge\u0000/admin'],
    ['a homoglyph', 'spiffe://prod/ns/\u0435dge'],
    ['a letter whose lower case is ASCII', 'spiffe://prod/ns/\u212a'],
    ['a wildcard', 'spiffe://prod/*'],
    ['a tilde, which is valid in a URI', 'spiffe://prod/~edge'],
  ] as const) {
    it(`rejects ${why}`, () => {
      expect(parseSpiffeId(text)).to.equal(undefined);
    });
  }

  it('returns the parts of any valid ID, and rejects it with any forbidden character inserted', () => {
    const id = fc.tuple(trustDomain, fc.array(segment, { maxLength: 5 }));
    const foreign = fc
      .string({ unit: 'binary', minLength: 1, maxLength: 1 })
      .filter((text) => !/^[a-zA-Z0-9._/-]$/.test(text));
    fc.assert(
      fc.property(id, foreign, fc.nat(), ([domain, segments], character, at) => {
        const path = segments.map((part) => `/${part}`).join('');
        const text = `spiffe://${domain}${path}`;
        expect(parseSpiffeId(text)).to.deep.equal({ trustDomain: domain, path });
        const place = at % (text.length + 1);
        expect(parseSpiffeId(text.slice(0, place) + character + text.slice(place))).to.equal(undefined);
      }),
    );
  });

  it('never normalizes: the parts of any accepted text are that text', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.webUrl(),
          fc.string().map((text) => `spiffe://${text}`),
        ),
        (text) => {
          const id = parseSpiffeId(text);
          if (id !== undefined) expect(`spiffe://${id.trustDomain}${id.path}`).to.equal(text);
        },
      ),
    );
  });
});

describe('spiffeIdOf', () => {
  it('returns the only URI SAN', () => {
    expect(spiffeIdOf(['spiffe://prod/edge'])).to.deep.equal({ trustDomain: 'prod', path: '/edge' });
    expect(spiffeIdOf([])).to.equal(undefined);
    expect(spiffeIdOf(['https://prod/edge'])).to.equal(undefined);
  });

  it('returns undefined for two URI SANs in any order', () => {
    expect(spiffeIdOf(['spiffe://prod/edge', 'spiffe://prod/admin'])).to.equal(undefined);
    expect(spiffeIdOf(['spiffe://prod/edge', 'https://prod/edge'])).to.equal(undefined);
  });
});
