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

describe('a SPIFFE id', () => {
  it('has a trust domain and a path, as they stand there', () => {
    expect(parseSpiffeId('spiffe://prod.example.org/ns/edge/sa/Envoy_0.a-b')).to.deep.equal({
      trustDomain: 'prod.example.org',
      path: '/ns/edge/sa/Envoy_0.a-b',
    });
    expect(parseSpiffeId('spiffe://prod')).to.deep.equal({ trustDomain: 'prod', path: '' });
    expect(parseSpiffeId('spiffe://prod/...'), 'three dots are a name').to.not.equal(undefined);
  });

  it('of the greatest length is read, of one more is none', () => {
    const domain = 'd'.repeat(255);
    const room = 2048 - `spiffe://${domain}/`.length;
    expect(parseSpiffeId(`spiffe://${domain}/${'p'.repeat(room)}`)?.path).to.have.length(room + 1);
    expect(parseSpiffeId(`spiffe://${domain}/${'p'.repeat(room + 1)}`)).to.equal(undefined);
    expect(parseSpiffeId(`spiffe://${domain}d/p`)).to.equal(undefined);
  });

  for (const [why, text] of [
    ['nothing', ''],
    ['no trust domain', 'spiffe://'],
    ['no trust domain before the path', 'spiffe:///ns/edge'],
    ['another scheme', 'https://prod/ns/edge'],
    ['a scheme in capitals', 'SPIFFE://prod/ns/edge'],
    ['a trust domain in capitals', 'spiffe://Prod/ns/edge'],
    ['no double slash', 'spiffe:prod/ns/edge'],
    ['a slash too many before it', 'spiffe:////prod/ns/edge'],
    ['a port', 'spiffe://prod:443/ns/edge'],
    ['an empty port', 'spiffe://prod:/ns/edge'],
    ['a user', 'spiffe://admin@prod/ns/edge'],
    ['a query', 'spiffe://prod/ns/edge?x=y'],
    ['a fragment', 'spiffe://prod/ns/edge#x'],
    ['an IPv6 host', 'spiffe://[::1]/ns/edge'],
    ['a slash at the end', 'spiffe://prod/ns/edge/'],
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
    ['a blank before it', ' spiffe://prod/ns/edge'],
    ['a newline after it', 'spiffe://prod/ns/edge\n'],
    ['a NUL in it', 'spiffe://prod/ns/edge\u0000/admin'],
    ['a letter that looks alike', 'spiffe://prod/ns/\u0435dge'],
    ['a letter that lower-cases to ASCII', 'spiffe://prod/ns/\u212a'],
    ['a wildcard', 'spiffe://prod/*'],
    ['a tilde, which a URI may have', 'spiffe://prod/~edge'],
  ] as const) {
    it(`is none with ${why}`, () => {
      expect(parseSpiffeId(text)).to.equal(undefined);
    });
  }

  it('is what its parts were put together from, and is lost by any one character that is not allowed', () => {
    const id = fc.tuple(trustDomain, fc.array(segment, { maxLength: 5 }));
    const foreign = fc
      .string({ unit: 'binary', minLength: 1, maxLength: 1 })
      .filter((text) => !/^[a-zA-Z0-9._/-]$/.test(text));
    fc.assert(
      fc.property(id, foreign, fc.nat(), ([domain, segments], character, at) => {
        const path = segments.map((one) => `/${one}`).join('');
        const text = `spiffe://${domain}${path}`;
        expect(parseSpiffeId(text)).to.deep.equal({ trustDomain: domain, path });
        const place = at % (text.length + 1);
        expect(parseSpiffeId(text.slice(0, place) + character + text.slice(place))).to.equal(undefined);
      }),
    );
  });

  it('of any text is that text or none', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.webUrl(),
          fc.string().map((rest) => `spiffe://${rest}`),
        ),
        (text) => {
          const id = parseSpiffeId(text);
          if (id !== undefined) expect(`spiffe://${id.trustDomain}${id.path}`).to.equal(text);
        },
      ),
    );
  });
});

describe('the SPIFFE id of a certificate', () => {
  it('is its only URI SAN', () => {
    expect(spiffeIdOf(['spiffe://prod/edge'])).to.deep.equal({ trustDomain: 'prod', path: '/edge' });
    expect(spiffeIdOf([])).to.equal(undefined);
    expect(spiffeIdOf(['https://prod/edge'])).to.equal(undefined);
  });

  it('is none beside another URI SAN, whichever stands first', () => {
    expect(spiffeIdOf(['spiffe://prod/edge', 'spiffe://prod/admin'])).to.equal(undefined);
    expect(spiffeIdOf(['spiffe://prod/edge', 'https://prod/edge'])).to.equal(undefined);
  });
});
