import { expect } from 'chai';
import { assert, pre, property, uint8Array } from 'fast-check';
import { describePeer, detectProtocol } from '../../src/grpc/protocol-detection.ts';

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const PROXY_V2 = '\r\n\r\n\0\r\nQUIT\n';

describe('detectProtocol', () => {
  for (const { bytes, protocol } of [
    { bytes: '', protocol: 'undecided' },
    { bytes: 'P', protocol: 'undecided' },
    { bytes: 'PR', protocol: 'undecided' },
    { bytes: PREFACE.slice(0, -1), protocol: 'undecided' },
    { bytes: PREFACE, protocol: 'http2' },
    { bytes: `${PREFACE}\0\0\0\u0004`, protocol: 'http2' },
    { bytes: 'PRI * HTTP/2.1\r\n', protocol: 'not_http2' },
    { bytes: 'PROX', protocol: 'undecided' },
    { bytes: 'PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n', protocol: 'proxy_protocol' },
    { bytes: 'PROXY UNKNOWN\r\n', protocol: 'proxy_protocol' },
    { bytes: `PROXY TCP6 ::1 ::1 1 2\r\n${PREFACE}`, protocol: 'proxy_protocol' },
    { bytes: PROXY_V2.slice(0, 11), protocol: 'undecided' },
    { bytes: `${PROXY_V2}\u0021\u0011\0\u000c`, protocol: 'proxy_protocol' },
    { bytes: 'POST / HTTP/1.1\r\n', protocol: 'http1' },
    { bytes: 'GET / HTTP/1.0\n', protocol: 'http1' },
    { bytes: 'GET /', protocol: 'undecided' },
    { bytes: `GET /${'a'.repeat(2000)}`, protocol: 'http1' },
    { bytes: 'PUT', protocol: 'undecided' },
    { bytes: 'PUTS', protocol: 'not_http2' },
    { bytes: 'get / HTTP/1.1\r\n', protocol: 'not_http2' },
    { bytes: 'OPTIONS rtsp://a/b RTSP/1.0\r\n', protocol: 'not_http2' },
    { bytes: 'ABCDEFGHIJKLMNOPQRSTUVW', protocol: 'not_http2' },
    { bytes: '\u0016', protocol: 'undecided' },
    { bytes: '\u0016\u0003\u0001', protocol: 'tls' },
    { bytes: '\u0016\u0002\u0001', protocol: 'not_http2' },
    { bytes: '\0', protocol: 'not_http2' },
    { bytes: '\0\0\0\0', protocol: 'not_http2' },
    { bytes: 'SSH', protocol: 'undecided' },
    { bytes: 'SSH-2.0-OpenSSH_9.9\r\n', protocol: 'not_http2' },
  ]) {
    it(`detects ${JSON.stringify(bytes.slice(0, 30))} as ${protocol}`, () => {
      expect(detectProtocol(latin1(bytes))).to.equal(protocol);
    });
  }

  it('never takes bytes for another protocol than their beginning, once decided', () => {
    assert(
      property(uint8Array({ maxLength: 40 }), uint8Array({ maxLength: 40 }), (head, tail) => {
        const decided = detectProtocol(Buffer.from(head));
        // A request line is the exception: it is decided by its end.
        pre(decided !== 'undecided');
        expect(detectProtocol(Buffer.concat([head, tail]))).to.equal(decided);
      }),
    );
  });
});

describe('describePeer', () => {
  const names: readonly (readonly [string, string])[] = [
    ['PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n', 'PROXY protocol version 1'],
    [`${PROXY_V2}\u0021\u0011\0\u000c`, 'PROXY protocol version 2'],
    ['\u0016\u0003\u0001\u0002\0', 'TLS'],
    ['\u0080\u002e\u0001\u0003\u0001\0\u0015', 'SSL 2.0'],
    ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'HTTP/1'],
    ['GET /\r\n', 'HTTP/0.9'],
    [PREFACE, 'HTTP/2'],
    ['\0\0\u0012\u0004\0\0\0\0\0\0\u0003', 'HTTP/2 without the connection preface'],
    ['SSH-2.0-OpenSSH_9.9\r\n', 'SSH'],
    ['\u0005\u0001\0', 'SOCKS 5'],
    ['\u0005\u0002\0\u0002', 'SOCKS 5'],
    ['\u0004\u0001\u0046\u0050\u007f\0\0\u0001\0', 'SOCKS 4'],
    ['*1\r\n$4\r\nPING\r\n', 'Redis'],
    ['PING\r\n', 'Redis'],
    ['stats\r\n', 'memcached'],
    ['EHLO mail.test\r\n', 'SMTP'],
    ['OPTIONS sip:a@b SIP/2.0\r\n', 'SIP'],
    ['OPTIONS rtsp://a/b RTSP/1.0\r\n', 'RTSP'],
    ['AMQP\0\0\u0009\u0001', 'AMQP'],
    ['\u0010\u0014\0\u0004MQTT\u0004\u0002', 'MQTT'],
    ['\0\0\0\u0008\u0004\u00d2\u0016\u002f', 'PostgreSQL'],
    ['\0\0\0\u0029\0\u0003\0\0user\0a\0', 'PostgreSQL'],
    ['0\u000c\u0002\u0001\u0001\u0060\u0007\u0002\u0001\u0003', 'LDAP'],
    ['\0\0\0\u0023\0\u0012\0\u0004\0\0\0\u0001\0\u0009', 'Kafka'],
    ['\u0003\0\0\u0013\u000e\u00e0\0\0', 'RDP'],
    ['\0\0\0\u00a4\u00feSMB', 'SMB'],
    ['\u00ff\u00fd\u0003', 'Telnet'],
  ];
  for (const [bytes, protocol] of names) {
    it(`names ${protocol} after ${JSON.stringify(bytes.slice(0, 20))}`, () => {
      expect(describePeer(latin1(bytes))).to.deep.equal({ protocol });
    });
  }

  const unknown: readonly (readonly [string, string])[] = [
    ['hello', 'hello'],
    ['\u0001\u0002\u00ff', String.raw`\x01\x02\xff`],
    ['a\r\nb\\', String.raw`a\r\nb\\`],
    ['\u001b[31m', String.raw`\x1b[31m`],
    ['PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n', String.raw`PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n`],
    ['x'.repeat(100), `${'x'.repeat(32)}…`],
    ['PUT', 'PUT'],
  ];
  for (const [bytes, firstBytes] of unknown) {
    it(`shows ${JSON.stringify(bytes.slice(0, 30))} as it is, escaped`, () => {
      expect(describePeer(latin1(bytes))).to.deep.equal({ firstBytes });
    });
  }

  it('describes any bytes in printable ASCII', () => {
    assert(
      property(uint8Array({ minLength: 1, maxLength: 64 }), (bytes) => {
        const [text = ''] = Object.values(describePeer(Buffer.from(bytes)));
        expect(text).to.match(/^[ -~]+…?$/);
        expect(text.length).to.be.at.most(32 * 4 + 1);
      }),
    );
  });
});
