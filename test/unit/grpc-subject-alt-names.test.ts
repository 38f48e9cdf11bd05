import { X509Certificate } from 'node:crypto';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { readSubjectAltNames } from '../../src/grpc/subject-alt-names.ts';
import { createCertificateAuthority } from '../support/certificates.ts';

/** What an IA5String may hold, and bytes that it may not. */
const bytes = fc
  .array(fc.oneof(fc.integer({ min: 0, max: 255 }), fc.constantFrom(...Buffer.from(', "\\:URIDNS'))), {
    maxLength: 24,
  })
  .map((codes) => String.fromCharCode(...codes));

describe('the subject alternative names of a certificate', () => {
  const authority = createCertificateAuthority();

  it('are those that its authority has signed, whatever bytes they hold', function () {
    this.timeout(30_000);
    const names = fc.record({
      uris: fc.array(bytes, { maxLength: 3 }),
      dnsNames: fc.array(bytes, { maxLength: 3 }),
    });
    fc.assert(
      fc.property(names, (signed) => {
        const { cert } = authority.issue({ ...signed, addresses: ['127.0.0.1'] });
        expect(readSubjectAltNames(new X509Certificate(cert).subjectAltName)).to.deep.equal(signed);
      }),
      { numRuns: 300 },
    );
  });

  it('are none where the certificate has none', () => {
    expect(readSubjectAltNames(undefined)).to.deep.equal({ uris: [], dnsNames: [] });
  });

  for (const text of ['URI', 'URI:"open', 'URI:"a"b', 'URI:a, junk', 'DNS:"a" , URI:b']) {
    it(`that cannot be read are not guessed: ${text}`, () => {
      expect(readSubjectAltNames(text)).to.equal(undefined);
    });
  }
});
