import { expect } from 'chai';
import { detectProtocol } from '../../src/grpc/protocol-detection.ts';

describe('detectProtocol', () => {
  for (const { bytes, protocol } of [
    { bytes: '', protocol: 'undecided' },
    { bytes: 'P', protocol: 'undecided' },
    { bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r', protocol: 'undecided' },
    { bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', protocol: 'http2' },
    { bytes: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u0004', protocol: 'http2' },
    { bytes: 'PRI * HTTP/2.1\r\n', protocol: 'http1' },
    { bytes: 'POST / HTTP/1.1\r\n', protocol: 'http1' },
    { bytes: 'PUT', protocol: 'http1' },
    { bytes: 'GET /', protocol: 'http1' },
    { bytes: 'get /', protocol: 'not_http2' },
    { bytes: 'ABCDEFGHIJKLMNOPQRSTUVW', protocol: 'not_http2' },
    { bytes: '\u0016', protocol: 'undecided' },
    { bytes: '\u0016\u0003\u0001', protocol: 'tls' },
    { bytes: '\u0016\u0002\u0001', protocol: 'not_http2' },
    { bytes: '\0\0\0\0', protocol: 'not_http2' },
  ]) {
    it(`detects ${JSON.stringify(bytes)} as ${protocol}`, () => {
      expect(detectProtocol(Buffer.from(bytes, 'latin1'))).to.equal(protocol);
    });
  }
});
