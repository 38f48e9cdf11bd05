import { X509Certificate } from 'node:crypto';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { parseSubjectAltNames } from '../../src/grpc/credential.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';

/** Bytes that an IA5String may contain, and bytes that it must not contain. */
const bytes = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(...Buffer.from(', "\\:URIDNS'))), {
    maxLength: 24,
  })
  .map((codes) => String.fromCharCode(...codes));

describe('parseSubjectAltNames', () => {
  const authority = createCertificateAuthority();

  it('returns the names that the authority has signed, whatever bytes they contain', () => {
    const names = fc.record({
      uris: fc.array(bytes, { maxLength: 3 }),
      dnsNames: fc.array(bytes, { maxLength: 3 }),
    });
    fc.assert(
      fc.property(names, (signed) => {
        const { cert } = authority.issue({ ...signed, addresses: ['127.0.0.1'] });
        expect(parseSubjectAltNames(new X509Certificate(cert).subjectAltName)).to.deep.equal(signed);
      }),
      { numRuns: 300 },
    );
  });

  it('returns no names for a certificate without the extension', () => {
    expect(parseSubjectAltNames(undefined)).to.deep.equal({ uris: [], dnsNames: [] });
  });

  for (const text of ['URI', 'URI:"open', 'URI:"a"b', 'URI:a, junk', 'DNS:"a" , URI:b']) {
    it(`rejects text that it cannot parse: ${text}`, () => {
      expect(parseSubjectAltNames(text)).to.equal(undefined);
    });
  }
});
