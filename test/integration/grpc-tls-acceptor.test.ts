import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { systemClock } from '../../src/clock.ts';
import { findForbiddenCharacter } from '../../src/core/text.ts';
import { TlsAcceptor, TlsMaterialError } from '../../src/grpc/tls-acceptor.ts';
import { createCertificateAuthority, type CertificateOptions } from '../../control-plane/certificates.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FRAME, frame, headerBlock, openRawPeer, PREFACE, requestFields } from '../support/raw-http2.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import type { TestStream } from '../support/test-stream.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';

const DEADLINE_MS = 20_000;
const SECOND_MS = 1000;

const ours = createCertificateAuthority('ours');
const others = createCertificateAuthority('others');

describe('mutual TLS on the reporting port', () => {
  let fixture: TestServer;
  let tls: TlsAcceptor;
  const serve = async (options: Partial<Parameters<typeof startTestServer>[0]> = {}): Promise<void> => {
    tls = new TlsAcceptor(serverMaterial(ours, ours), 'required');
    fixture = await startTestServer({ auth: { mode: 'mtls', tls }, ...options });
  };
  /** Opens a stream with a certificate of our CA and sends its first report. */
  const report = (own: CertificateOptions, id = 'r-0'): TestStream => {
    const stream = fixture.open(peerCredentials(ours, ours.issue({ usage: 'client', ...own })));
    stream.sendBytes(firstReport(id));
    return stream;
  };
  /** Opens a raw TLS connection. */
  const dialTls = async (options: ConnectionOptions): Promise<TLSSocket> => {
    const { hostname, port } = new URL(`tcp://${fixture.address}`);
    const { cert, key } = ours.issue({ uris: ['spiffe://ours/edge'] });
    const socket = connectTls({ host: hostname, port: Number(port), ca: ours.ca, cert, key, ...options });
    socket.on('error', () => {});
    await new Promise<void>((resolve) => {
      socket.once('secureConnect', resolve);
      socket.once('close', () => resolve());
    });
    return socket;
  };
  const rejected = (reason: string): Promise<void> =>
    eventually(
      `a connection rejected as ${reason}`,
      async () => (await fixture.count('connectionsRejected', reason)) === 1,
      DEADLINE_MS,
    );

  afterEach(() => fixture.stop());

  describe('names of a client certificate', () => {
    for (const names of [
      { uris: ['spiffe://ours/ns/edge/sa/envoy'], dnsNames: [] },
      { uris: ['spiffe://theirs/ns/edge/sa/envoy'], dnsNames: [] },
      { uris: ['spiffe://ours/ns/edge/../admin'], dnsNames: [] },
      { uris: ['spiffe://ours/ns/%65dge'], dnsNames: [] },
      { uris: ['spiffe://ours/edge\u0000/admin'], dnsNames: [] },
      { uris: ['spiffe://ours/edge, URI:spiffe://ours/admin'], dnsNames: [] },
      { uris: ['spiffe://ours/edge', 'spiffe://ours/admin'], dnsNames: [] },
      { uris: ['spiffe://ours/"edge"\\'], dnsNames: ['a.example, DNS:b.example'] },
      { uris: [], dnsNames: ['envoy.edge.example', '*.example'] },
      { uris: [], dnsNames: [] },
    ]) {
      it(`passes on ${JSON.stringify(names)}`, async () => {
        await serve();
        const stream = report(names);
        await stream.next();
        expect(fixture.peers).to.deep.equal([{ kind: 'certificate', ...names }]);
        const lines = fixture.logged.map((line) => Object.values(line).join(' '));
        for (const line of lines) expect(findForbiddenCharacter(line)).to.equal(undefined);
      });
    }
  });

  for (const { peer, own, authority = ours, reason } of [
    { peer: 'without a certificate', own: undefined, reason: 'no_certificate' },
    { peer: 'with a certificate of another CA', own: {}, authority: others, reason: 'certificate_untrusted' },
    {
      peer: 'with an expired certificate',
      own: { notAfterMs: Date.now() - 5 * SECOND_MS },
      reason: 'certificate_expired',
    },
    {
      peer: 'with a certificate that is not valid yet',
      own: { notBeforeMs: Date.now() + 1800 * SECOND_MS },
      reason: 'certificate_not_yet_valid',
    },
    { peer: 'with a server certificate', own: { usage: 'server' as const }, reason: 'certificate_invalid' },
  ]) {
    it(`rejects a peer ${peer} without reading its data`, async () => {
      await serve();
      let decoded = 0;
      onDecodeStart(0, () => (decoded += 1));
      const presented =
        own === undefined
          ? undefined
          : authority.issue({ uris: ['spiffe://ours/edge'], usage: 'client', ...own });
      const stream = fixture.open(peerCredentials(ours, presented));
      stream.sendBytes(firstReport('r-0'));
      expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
      await rejected(reason);
      expect({ decoded, responses: stream.responses, events: fixture.connectionEvents }).to.deep.equal({
        decoded: 0,
        responses: [],
        events: [],
      });
      // Shows that the same hook notices a report that is accepted.
      await report({}).next();
      expect(decoded).to.equal(1);
    });
  }

  it('sends the reason to a rejected peer in a GOAWAY, after the handshake', async () => {
    await serve();
    const socket = await dialTls({ cert: '', key: '' });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => void chunks.push(chunk));
    await once(socket, 'close');
    expect(Buffer.concat(chunks).toString('latin1')).to.contain('client certificate required');
  });

  it('rejects plaintext, with a response to HTTP/2 and HTTP/1 clients', async () => {
    await serve();
    const peer = await openRawPeer(fixture.address);
    await peer.closed;
    expect(peer.firstBytes.toString('latin1')).to.contain('this port requires TLS');
    expect(peer.goawayCode).to.equal(0xc);
    const plain = await openRawPeer(fixture.address, false);
    await plain.write(Buffer.from('GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n'));
    await plain.closed;
    expect(plain.firstBytes.toString()).to.match(/^HTTP\/1\.1 400 [^]*gRPC \(HTTP\/2\) over TLS\.\n$/);
    expect(await fixture.count('connectionsRejected', 'plaintext')).to.equal(2);
  });

  it('rejects TLS 1.1, and a client whose ALPN does not offer HTTP/2', async () => {
    await serve();
    const old = await dialTls({
      minVersion: 'TLSv1.1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    const http1 = await dialTls({ ALPNProtocols: ['http/1.1'] });
    await eventually('both connections are rejected', () => old.destroyed && http1.destroyed, DEADLINE_MS);
    expect(await fixture.count('connectionsRejected', 'tls_handshake')).to.equal(2);
  });

  it('accepts TLS 1.2, and a client without ALPN', async () => {
    await serve();
    const socket = await dialTls({ maxVersion: 'TLSv1.2' });
    socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
    const [response] = (await once(socket, 'data')) as [Buffer];
    expect(response.readUInt8(3), 'the type of its first frame').to.equal(FRAME.settings);
    expect(socket.getProtocol()).to.equal('TLSv1.2');
    socket.destroy();
  });

  it('does not support renegotiation', async () => {
    await serve();
    const socket = await dialTls({ maxVersion: 'TLSv1.2' });
    const [error] = await new Promise<(Error | null)[]>((resolve) => {
      socket.renegotiate({}, (failure) => resolve([failure]));
      socket.once('error', (failure) => resolve([failure]));
    });
    expect(error?.message).to.match(/renegotiation/i);
    socket.destroy();
  });

  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`does not resume sessions of ${maxVersion}: each connection presents its certificate`, async () => {
      await serve();
      const first = await dialTls({ maxVersion });
      const sessions: (Buffer | undefined)[] = [first.getSession()];
      first.on('session', (ticket: Buffer) => void sessions.push(ticket));
      first.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
      await once(first, 'data');
      const session = sessions.at(-1);
      const second = await dialTls({ maxVersion, ...(session === undefined ? {} : { session }) });
      expect(second.authorized).to.equal(true);
      expect(second.isSessionReused()).to.equal(false);
      first.destroy();
      second.destroy();
    });
  }

  it('rejects HTTP/1 and random bytes inside TLS', async () => {
    await serve();
    const http1 = await dialTls({});
    http1.write('GET / HTTP/1.1\r\n\r\n');
    const [response] = (await once(http1, 'data')) as [Buffer];
    expect(response.toString()).to.match(/^HTTP\/1\.1 400 /);
    const noise = await dialTls({});
    noise.write('\0\0\0\0');
    await once(noise, 'close');
    await rejected('http1');
    await rejected('not_http2');
  });

  for (const { where, begin } of [
    {
      where: 'before its handshake',
      begin: async () => {
        const { hostname, port } = new URL(`tcp://${fixture.address}`);
        const socket = connectTcp(Number(port), hostname);
        socket.on('error', () => {});
        await once(socket, 'connect');
        socket.write(Buffer.from([0x16, 0x03, 0x01]));
        return socket;
      },
    },
    { where: 'after its handshake', begin: () => dialTls({}) },
  ]) {
    it(`closes a connection that stalls ${where}, and counts it once`, async () => {
      // Longer than a handshake takes on a busy machine.
      await serve({ limits: { handshakeTimeoutMs: 1000 } });
      const socket = await begin();
      socket.resume();
      await eventually('the connection is closed', () => socket.closed);
      await rejected('handshake_timeout');
      expect(await fixture.count('connectionsRejected', 'tls_handshake')).to.equal(0);
    });
  }

  it('applies the same limits inside TLS: an oversized header block closes the connection', async () => {
    await serve();
    const socket = await dialTls({});
    socket.resume();
    const block = headerBlock([...requestFields(), ['x', 'x'.repeat(16_300)]]);
    socket.write(
      Buffer.concat([
        PREFACE,
        frame(FRAME.settings, 0, 0),
        frame(FRAME.headers, 0, 1, block.subarray(0, 16_384)),
      ]),
    );
    socket.write(frame(FRAME.continuation, 0x4, 1, Buffer.concat([block.subarray(16_384), block])));
    await once(socket, 'close');
    await rejected('header_block');
  });

  it('limits the connections per address, including handshakes', async () => {
    await serve({ limits: { connectionsPerAddress: 1 } });
    const first = await dialTls({});
    const second = await dialTls({});
    await eventually('the second connection is rejected', () => second.destroyed, DEADLINE_MS);
    expect(first.destroyed).to.equal(false);
    expect(await fixture.count('connectionsRejected', 'address_connections')).to.equal(1);
    first.destroy();
  });

  it('keeps 100 streams open when its certificate is replaced, and presents the new one from then on', async () => {
    await serve();
    const streams: TestStream[] = [];
    // One after the other: a hundred handshakes at once exceed the server's deadline on a busy machine.
    for (let i = 0; i < 100; i += 1) {
      const stream = report({}, `r-${i}`);
      await stream.next();
      streams.push(stream);
    }
    const before = await dialTls({});
    tls.replace(serverMaterial(ours, ours));
    const after = await dialTls({});
    expect(after.getPeerX509Certificate()?.fingerprint256).to.be.a('string');
    expect(after.getPeerX509Certificate()?.fingerprint256).to.not.equal(
      before.getPeerX509Certificate()?.fingerprint256,
    );
    for (const stream of streams) stream.send({ nonce: 2 });
    const responses = await Promise.all(streams.map((stream) => stream.next()));
    expect(responses.map(({ request_nonce }) => String(request_nonce))).to.deep.equal(streams.map(() => '2'));
    expect(fixture.connectionEvents.filter((event) => event.endsWith(' disconnected'))).to.deep.equal([]);
    before.destroy();
    after.destroy();
  });

  it('rejects peers of the old CA on their next connection when its CA is replaced, and keeps open ones', async () => {
    await serve();
    const old = report({}, 'old');
    await old.next();
    tls.replace(serverMaterial(ours, others));
    const reconnected = report({}, 'reconnected');
    expect((await reconnected.ended).code).to.equal(status.PERMISSION_DENIED);
    await rejected('certificate_untrusted');
    const replaced = fixture.open(peerCredentials(ours, others.issue({ uris: ['spiffe://others/edge'] })));
    replaced.sendBytes(firstReport('replaced'));
    await replaced.next();
    old.send({ nonce: 2 });
    expect(String((await old.next()).request_nonce)).to.equal('2');
  });

  it('keeps its material if the replacement is invalid, and throws an error that names the invalid part', async () => {
    await serve();
    const valid = serverMaterial(ours, ours);
    const invalid = [
      { material: { ...valid, key: serverMaterial(ours).key }, message: /certificate and key: .*mismatch/ },
      { material: { ...valid, cert: 'no certificate' }, message: /certificate and key: / },
      { material: { ...valid, key: '' }, message: /certificate and key: / },
      { material: { ...valid, clientCa: '' }, message: /client CA: contains no PEM certificate/ },
      {
        material: {
          ...valid,
          clientCa: `${ours.ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
        },
        message: /client CA: certificate 2: /,
      },
    ];
    for (const { material, message } of invalid) {
      expect(() => tls.replace(material)).to.throw(TlsMaterialError, message);
    }
    await report({}).next();
  });

  it('closes a stream at exactly notAfter of its certificate, and rejects the next one', async () => {
    // A whole second, as in a certificate. It expires by the clock of the server only.
    const notAfterMs = Math.ceil(Date.now() / SECOND_MS + 3600) * SECOND_MS;
    const clock = new FakeClock(notAfterMs - 10 * SECOND_MS);
    await serve({ clock });
    const expiring = peerCredentials(ours, ours.issue({ notAfterMs }));
    const stream = fixture.open(expiring);
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    clock.advance(10 * SECOND_MS - 1);
    stream.send({ nonce: 2 });
    await stream.next();
    clock.advance(1);
    expect(await stream.ended).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'credential expired; reconnect with a new one',
    });
    expect(await fixture.count('streamsClosed', 'credential_expired')).to.equal(1);
    const next = fixture.open(expiring);
    next.sendBytes(firstReport('r-0'));
    expect((await next.ended).code).to.equal(status.UNAUTHENTICATED);
    expect(await fixture.count('streamsRejected', 'certificate_expired')).to.equal(1);
    expect(fixture.connectionEvents, 'the reporter is within its grace period').to.deep.equal([
      'r-0 connected',
    ]);
  });

  it('rejects a stream on a connection whose certificate has expired, and makes the peer reconnect', async () => {
    let aheadMs = 0;
    await serve({ clock: { ...systemClock, wallMs: () => Date.now() + aheadMs } });
    const open = fixture.connection(peerCredentials(ours, ours.issue()));
    const first = open();
    first.sendBytes(firstReport('r-0'));
    await first.next();
    aheadMs = 7200 * SECOND_MS;
    const second = open();
    second.sendBytes(firstReport('r-1'));
    expect(await second.ended).to.deep.equal({
      code: status.UNAUTHENTICATED,
      details: 'client certificate has expired',
    });
    // The connection is draining: a third stream is opened on a new one, with the peer's current certificate.
    aheadMs = 0;
    const third = open();
    third.sendBytes(firstReport('r-2'));
    await third.next();
    expect(fixture.connectionEvents).to.deep.equal(['r-0 connected', 'r-2 connected']);
  });
});

describe('--auth insecure', () => {
  it('accepts plaintext and, if it has a certificate, TLS on the same port; every peer is anonymous', async () => {
    const tls = new TlsAcceptor(serverMaterial(ours), 'none');
    const fixture = await startTestServer({ auth: { mode: 'insecure', tls } });
    try {
      for (const peer of [undefined, peerCredentials(ours), peerCredentials(ours, others.issue())]) {
        const stream = fixture.open(peer);
        stream.sendBytes(firstReport('r-0'));
        await stream.next();
      }
      expect(fixture.peers).to.deep.equal([
        { kind: 'anonymous' },
        { kind: 'anonymous' },
        { kind: 'anonymous' },
      ]);
    } finally {
      await fixture.stop();
    }
  });
});
