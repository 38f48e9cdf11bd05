import { request } from 'node:http';
import { Duplex } from 'node:stream';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { HttpParseError, HttpResponseParser } from '../../src/k8s/http-response-parser.ts';

interface Parsed {
  readonly status: number;
  readonly date: string | undefined;
  readonly body: string;
  readonly ended: boolean;
  readonly keepsAlive: boolean;
}

/** Parses the parts, and then the end of the connection if `closes`. */
function parse(parts: readonly Buffer[], closes = false): Parsed {
  let status = 0;
  let date: string | undefined;
  let ended = 0;
  const body: Buffer[] = [];
  const parser = new HttpResponseParser({
    onHeaders(code, headers) {
      expect(status, 'headers once').to.equal(0);
      status = code;
      date = headers.date as string | undefined;
    },
    onData(chunk) {
      expect(ended, 'data before the end').to.equal(0);
      body.push(Buffer.from(chunk));
    },
    onEnd() {
      ended += 1;
    },
  });
  for (const part of parts) parser.execute(part);
  if (closes) expect(parser.finish()).to.equal(ended === 1);
  expect(ended, 'end at most once').to.be.at.most(1);
  const text = Buffer.concat(body).toString('latin1');
  return { status, date, body: text, ended: ended === 1, keepsAlive: parser.keepsAlive };
}

function parseText(text: string, closes = false): Parsed {
  return parse([Buffer.from(text, 'latin1')], closes);
}

function errorOf(text: string): HttpParseError {
  try {
    parseText(text);
  } catch (error) {
    expect(error).to.be.instanceOf(HttpParseError);
    return error as HttpParseError;
  }
  return expect.fail(`accepted: ${JSON.stringify(text.slice(0, 100))}`);
}

/** Returns what Node's own client reads from the same bytes. */
async function parseWithNode(
  bytes: Buffer,
): Promise<{ status: number; date: string | undefined; body: string }> {
  const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const sent = request({ createConnection: () => socket });
  return await new Promise((resolve, reject) => {
    sent.on('error', reject);
    sent.on('response', (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          date: response.headers.date,
          body: Buffer.concat(chunks).toString('latin1'),
        }),
      );
    });
    sent.end();
    socket.push(bytes);
    socket.push(null);
  });
}

const BODY = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes).toString('latin1'));

/** A body in one of the three framings, with the header fields of its framing. */
const FRAMED = fc.oneof(
  BODY.map((body) => ({ fields: [`Content-Length: ${body.length}`], bytes: body, body, isOpen: false })),
  BODY.map((body) => ({ fields: [] as string[], bytes: body, body, isOpen: true })),
  fc
    .tuple(
      fc.array(
        BODY.filter((part) => part !== ''),
        { maxLength: 5 },
      ),
      fc.constantFrom('', ';name=value', ';a="b"'),
      fc.constantFrom('', 'Trailer: x\r\n', 'A: 1\r\nB: 2\r\n'),
      fc.boolean(),
    )
    .map(([parts, extension, trailers, isUpperCase]) => {
      const chunks = parts.map((part) => {
        const length = part.length.toString(16);
        return `${isUpperCase ? length.toUpperCase() : length}${extension}\r\n${part}\r\n`;
      });
      return {
        fields: ['Transfer-Encoding: chunked'],
        bytes: `${chunks.join('')}0\r\n${trailers}\r\n`,
        body: parts.join(''),
        isOpen: false,
      };
    }),
);

const RESPONSE = fc
  .record({
    interim: fc.constantFrom(
      '',
      'HTTP/1.1 100 Continue\r\n\r\n',
      'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n',
    ),
    status: fc.constantFrom(200, 201, 404, 409, 429, 500, 503),
    reason: fc.constantFrom(' OK', ' Not Found at all', ' '),
    others: fc.uniqueArray(
      fc.constantFrom(
        'Audit-Id: 1f0c',
        'Date: Sun, 29 Nov 2026 07:00:00 GMT',
        'cache-control:no-cache, private',
        'X-Kubernetes-Pf-Flowschema-Uid: \t a:b \t',
        'Link: <x>; rel="y"',
      ),
      { maxLength: 4 },
    ),
    framed: FRAMED,
    isFramingFirst: fc.boolean(),
  })
  .map(({ interim, status, reason, others, framed, isFramingFirst }) => {
    const dates = others.filter((field) => field.startsWith('Date'));
    const fields = isFramingFirst ? [...framed.fields, ...others] : [...others, ...framed.fields];
    const head = [`HTTP/1.1 ${status}${reason}`, ...fields].join('\r\n');
    return {
      bytes: Buffer.from(`${interim}${head}\r\n\r\n${framed.bytes}`, 'latin1'),
      status,
      hasDate: dates.length > 0,
      body: framed.body,
      isOpen: framed.isOpen,
    };
  });

describe('parser of HTTP responses', () => {
  it('reads the same response whatever the parts in which it arrives', () => {
    fc.assert(
      fc.property(RESPONSE, fc.array(fc.nat(1000), { maxLength: 20 }), (response, cuts) => {
        const { bytes, status, hasDate, body, isOpen } = response;
        const positions = [0, ...cuts.filter((cut) => cut < bytes.length).toSorted((a, b) => a - b)];
        const parts = positions.map((start, index) => bytes.subarray(start, positions[index + 1]));
        const parsed = parse(parts, isOpen);
        const date = hasDate ? 'Sun, 29 Nov 2026 07:00:00 GMT' : undefined;
        expect(parsed).to.deep.equal({ status, date, body, ended: true, keepsAlive: !isOpen });
      }),
      { numRuns: 500 },
    );
  });

  it('reads each response byte by byte', () => {
    fc.assert(
      fc.property(RESPONSE, ({ bytes, status, body, isOpen }) => {
        const parts = Array.from(bytes, (byte) => Buffer.from([byte]));
        expect(parse(parts, isOpen)).to.include({ status, body, ended: true });
      }),
      { numRuns: 50 },
    );
  });

  it('reads what the HTTP client of Node.js reads', async () => {
    await fc.assert(
      fc.asyncProperty(RESPONSE, async ({ bytes, isOpen }) => {
        const { status, date, body } = parse([bytes], isOpen);
        expect({ status, date, body }).to.deep.equal(await parseWithNode(bytes));
      }),
      { numRuns: 100 },
    );
  });

  it('is incomplete if the connection ends before the response', () => {
    fc.assert(
      fc.property(RESPONSE, fc.nat(1000), ({ bytes, isOpen }, cut) => {
        fc.pre(!isOpen && cut < bytes.length);
        expect(parse([bytes.subarray(0, cut)], true).ended).to.equal(false);
      }),
      { numRuns: 200 },
    );
  });

  it('has no body after 204 and 304, and none of length 0', () => {
    for (const head of [
      '204 No Content\r\n',
      '304 Not Modified\r\nContent-Length: 5\r\n',
      '200 OK\r\nContent-Length: 0\r\n',
    ])
      expect(parseText(`HTTP/1.1 ${head}\r\n`), head).to.include({ ended: true, body: '', keepsAlive: true });
  });

  it('knows whether the connection can be used again', () => {
    for (const [head, keepsAlive] of [
      ['HTTP/1.1 200 OK\r\n', true],
      ['HTTP/1.1 200 OK\r\nConnection: close\r\n', false],
      ['HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\n', false],
      ['HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\n', false],
      ['HTTP/1.0 200 OK\r\n', false],
      ['HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n', true],
    ] as const)
      expect(parseText(`${head}Content-Length: 1\r\n\r\nx`).keepsAlive, head).to.equal(keepsAlive);
    const surplus = parseText('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n');
    expect(surplus).to.include({ body: 'x', ended: true, keepsAlive: false });
  });

  it('passes the two fields on that the API client reads, whatever their case', () => {
    const fields: unknown[] = [];
    const parser = new HttpResponseParser({
      onHeaders: (_status, headers) => fields.push(headers),
      onData() {},
      onEnd() {},
    });
    parser.execute(
      Buffer.from('HTTP/1.1 429 x\r\nRETRY-AFTER:7\r\ndaTe: today \r\nContent-Length: 0\r\n\r\n'),
    );
    expect(fields).to.deep.equal([{ date: 'today', 'retry-after': '7' }]);
  });

  it('rejects what is not an HTTP response as soon as it can', () => {
    for (const text of [
      'SSH-2.0-OpenSSH',
      'HTTQ',
      '\u0015\u0003\u0001',
      'HTTP/2 200 OK\r\n\r\n',
      'HTTP/1.1 999 x\r\n\r\n',
    ])
      expect(errorOf(text).message, text).to.match(/^not an HTTP response: "/);
    expect(errorOf('HTTP/1.1 101 Switching Protocols\r\n\r\n').message).to.contain('switched protocols');
  });

  it('rejects a response whose end is ambiguous', () => {
    const ok = 'HTTP/1.1 200 OK\r\n';
    for (const [text, message] of [
      [`${ok}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`, 'invalid Content-Length: "2"'],
      [`${ok}Content-Length: -1\r\n\r\n`, 'invalid Content-Length: "-1"'],
      [`${ok}Content-Length: 1, 1\r\n\r\n`, 'invalid Content-Length: "1, 1"'],
      [
        `${ok}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n`,
        'both Content-Length and Transfer-Encoding',
      ],
      [`${ok}Transfer-Encoding: gzip\r\n\r\n`, 'unknown Transfer-Encoding: "gzip"'],
      [`${ok}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`, 'unknown Transfer-Encoding'],
      [`${ok}Content-Length : 1\r\n\r\n`, 'malformed header field: "Content-Length : 1"'],
      [`${ok}A: 1\r\n Content-Length: 1\r\n\r\n`, 'malformed header field: " Content-Length: 1"'],
      [`${ok}X: a\nContent-Length: 3\r\n\r\nabc`, 'a line of the header ends without CR LF'],
      [`${ok}X: a\rContent-Length: 3\r\n\r\nabc`, 'a line of the header ends without CR LF'],
      [`${ok}X: a\0b\r\n\r\n`, 'a line of the header ends without CR LF'],
      [`${ok}no colon\r\n\r\n`, 'malformed header field: "no colon"'],
      [`${ok}Transfer-Encoding: chunked\r\n\r\nx\r\n`, 'invalid length of a chunk: "x"'],
      [`${ok}Transfer-Encoding: chunked\r\n\r\n-1\r\n`, 'invalid length of a chunk: "-1"'],
      [`${ok}Transfer-Encoding: chunked\r\n\r\n1\n`, 'ends without CR'],
      [`${ok}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n`, 'a chunk is longer than its length'],
    ] as const)
      expect(errorOf(text).message, text).to.contain(message);
  });

  it('bounds the memory for a head, for a line and for a trailer that do not end', () => {
    const ok = 'HTTP/1.1 200 OK\r\n';
    expect(errorOf(`${ok}A: ${'x'.repeat(70_000)}`).message).to.contain(
      'the header of the response exceeds 64 KiB',
    );
    const chunked = `${ok}Transfer-Encoding: chunked\r\n\r\n`;
    expect(errorOf(`${chunked}${'0'.repeat(2000)}`).message).to.contain('too long');
    expect(errorOf(`${chunked}0\r\n${'A: 1234567\r\n'.repeat(8000)}`).message).to.contain('the trailer');
  });
});
