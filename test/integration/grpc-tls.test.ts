import { once } from 'node:events';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { credentials, status } from '@grpc/grpc-js';
import { expect } from 'chai';
import { systemClock } from '../../src/clock.ts';
import { findForbiddenCharacter } from '../../src/core/text.ts';
import { TlsAcceptor, TlsMaterialError } from '../../src/grpc/tls-acceptor.ts';
import { createCertificateAuthority, type CertificateOptions } from '../support/certificates.ts';
import { onDecodeStart } from '../support/on-decode-start.ts';
import { eventually } from '../support/eventually.ts';
import { FRAME, frame, headerBlock, openRawPeer, PREFACE, requestFields } from '../support/raw-http2.ts';
import { firstReport, startTestServer, type TestServer } from '../support/reporting-server.ts';
import type { TestStream } from '../support/test-stream.ts';
import { peerCredentials, serverMaterial } from '../support/tls-fixtures.ts';

const DEADLINE_MS = 20_000;
const SECOND_MS = 1000;

const ours = createCertificateAuthority('ours');
const others = createCertificateAuthority('others');

describe('mutual TLS on the reporting port', () => {
  let world: TestServer;
  let tls: TlsAcceptor;
  const serve = async (options: Partial<Parameters<typeof startTestServer>[0]> = {}): Promise<void> => {
    tls = new TlsAcceptor(serverMaterial(ours, ours), 'required');
    world = await startTestServer({ auth: { mode: 'mtls', tls }, ...options });
  };
  /** Opens a stream by a certificate of ours, and sends its first report. */
  const report = (own: CertificateOptions, id = 'r-0'): TestStream => {
    const stream = world.open(peerCredentials(ours, ours.issue({ usage: 'client', ...own })));
    stream.sendBytes(firstReport(id));
    return stream;
  };
  /** Speaks TLS by hand. */
  const dialTls = async (options: ConnectionOptions): Promise<TLSSocket> => {
    const { hostname, port } = new URL(`tcp://${world.address}`);
    const { cert, key } = ours.issue({ uris: ['spiffe://ours/edge'] });
    const socket = connectTls({ host: hostname, port: Number(port), ca: ours.ca, cert, key, ...options });
    socket.on('error', () => {});
    await new Promise<void>((resolve) => {
      socket.once('secureConnect', resolve);
      socket.once('close', () => resolve());
    });
    return socket;
  };
  const refused = (reason: string): Promise<void> =>
    eventually(
      `a connection refused as ${reason}`,
      async () => (await world.count('connectionsRejected', reason)) === 1,
      DEADLINE_MS,
    );

  afterEach(() => world.stop());

  describe('hands on the names of a certificate as they stand there', () => {
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
      it(JSON.stringify(names), async () => {
        await serve();
        const stream = report(names);
        await stream.next();
        expect(world.peers).to.deep.equal([{ kind: 'certificate', ...names }]);
        const said = world.logged.map((line) => Object.values(line).join(' '));
        for (const line of said) expect(findForbiddenCharacter(line)).to.equal(undefined);
      });
    }
  });

  for (const { who, own, authority = ours, reason } of [
    { who: 'nobody: no certificate', own: undefined, reason: 'no_certificate' },
    { who: 'of another authority', own: {}, authority: others, reason: 'certificate_untrusted' },
    {
      who: 'whose certificate has expired',
      own: { notAfterMs: Date.now() - 5 * SECOND_MS },
      reason: 'certificate_expired',
    },
    {
      who: 'whose certificate is not valid yet',
      own: { notBeforeMs: Date.now() + 1800 * SECOND_MS },
      reason: 'certificate_not_yet_valid',
    },
    { who: "with a server's certificate", own: { usage: 'server' as const }, reason: 'certificate_invalid' },
  ]) {
    it(`refuses a peer ${who}, reads nothing of it and says why`, async () => {
      await serve();
      let decoded = 0;
      onDecodeStart(0, () => (decoded += 1));
      const shown =
        own === undefined
          ? undefined
          : authority.issue({ uris: ['spiffe://ours/edge'], usage: 'client', ...own });
      const stream = world.open(peerCredentials(ours, shown));
      stream.sendBytes(firstReport('r-0'));
      expect((await stream.ended).code).to.equal(status.PERMISSION_DENIED);
      await refused(reason);
      expect({ decoded, responses: stream.responses, presence: world.connectionEvents }).to.deep.equal({
        decoded: 0,
        responses: [],
        presence: [],
      });
      // By the same eyes: who is let in is decoded.
      await report({}).next();
      expect(decoded).to.equal(1);
    });
  }

  it('tells a peer that it refuses why, after the handshake, in a GOAWAY', async () => {
    await serve();
    const socket = await dialTls({ cert: '', key: '' });
    const heard: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => void heard.push(chunk));
    await once(socket, 'close');
    expect(Buffer.concat(heard).toString('latin1')).to.contain('client certificate required');
  });

  it('refuses plaintext, and says so to HTTP/2 and HTTP/1', async () => {
    await serve();
    const peer = await openRawPeer(world.address);
    await peer.closed;
    expect(peer.firstBytes.toString('latin1')).to.contain('this port requires TLS');
    expect(peer.goawayCode).to.equal(0xc);
    const plain = await openRawPeer(world.address, false);
    await plain.write(Buffer.from('GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n'));
    await plain.closed;
    expect(plain.firstBytes.toString()).to.match(/^HTTP\/1\.1 400 [^]*gRPC \(HTTP\/2\) over TLS\.\n$/);
    expect(await world.count('connectionsRejected', 'plaintext')).to.equal(2);
  });

  it('refuses TLS 1.1, and a client that wants another protocol than HTTP/2', async () => {
    await serve();
    const old = await dialTls({
      minVersion: 'TLSv1.1',
      maxVersion: 'TLSv1.1',
      ciphers: 'DEFAULT@SECLEVEL=0',
    });
    const http1 = await dialTls({ ALPNProtocols: ['http/1.1'] });
    await eventually('both refused', () => old.destroyed && http1.destroyed, DEADLINE_MS);
    expect(await world.count('connectionsRejected', 'tls_handshake')).to.equal(2);
  });

  it('speaks TLS 1.2 too, and with a client that names no protocol', async () => {
    await serve();
    const socket = await dialTls({ maxVersion: 'TLSv1.2' });
    socket.write(Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0)]));
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.readUInt8(3), 'the type of its first frame').to.equal(FRAME.settings);
    expect(socket.getProtocol()).to.equal('TLSv1.2');
    socket.destroy();
  });

  it('negotiates nothing anew within a connection', async () => {
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
    it(`resumes no session of ${maxVersion}: each connection shows its certificate`, async () => {
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

  it('refuses HTTP/1 and noise inside TLS', async () => {
    await serve();
    const http1 = await dialTls({});
    http1.write('GET / HTTP/1.1\r\n\r\n');
    const [answer] = (await once(http1, 'data')) as [Buffer];
    expect(answer.toString()).to.match(/^HTTP\/1\.1 400 /);
    const noise = await dialTls({});
    noise.write('\0\0\0\0');
    await once(noise, 'close');
    await refused('http1');
    await refused('not_http2');
  });

  for (const { where, begin } of [
    {
      where: 'before its handshake',
      begin: async () => {
        const { hostname, port } = new URL(`tcp://${world.address}`);
        const socket = connectTcp(Number(port), hostname);
        socket.on('error', () => {});
        await once(socket, 'connect');
        socket.write(Buffer.from([0x16, 0x03, 0x01]));
        return socket;
      },
    },
    { where: 'after its handshake', begin: () => dialTls({}) },
  ]) {
    it(`ends a connection that falls silent ${where}, counted once`, async () => {
      // Longer than a handshake takes a busy machine.
      await serve({ limits: { handshakeTimeoutMs: 1000 } });
      const socket = await begin();
      socket.resume();
      await eventually('it is closed', () => socket.closed);
      await refused('handshake_timeout');
      expect(await world.count('connectionsRejected', 'tls_handshake')).to.equal(0);
    });
  }

  it('holds a peer to the same limits inside TLS: headers that are too long end its connection', async () => {
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
    await refused('header_block');
  });

  it('takes no more of one address than it may have, handshakes included', async () => {
    await serve({ limits: { connectionsPerAddress: 1 } });
    const first = await dialTls({});
    const second = await dialTls({});
    await eventually('the second is refused', () => second.destroyed, DEADLINE_MS);
    expect(first.destroyed).to.equal(false);
    expect(await world.count('connectionsRejected', 'address_connections')).to.equal(1);
    first.destroy();
  });

  it('goes on with 100 streams while its certificate is replaced, and shows the new one from then on', async () => {
    await serve();
    const streams: TestStream[] = [];
    // One after the other, as a hundred handshakes at once take a busy machine longer than the server waits.
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
    const answers = await Promise.all(streams.map((stream) => stream.next()));
    expect(answers.map(({ request_nonce }) => String(request_nonce))).to.deep.equal(streams.map(() => '2'));
    expect(world.connectionEvents.filter((one) => one.endsWith(' disconnected'))).to.deep.equal([]);
    before.destroy();
    after.destroy();
  });

  it('refuses the old peers on their next connection when its CA is replaced, and keeps those that are there', async () => {
    await serve();
    const old = report({}, 'old');
    await old.next();
    tls.replace(serverMaterial(ours, others));
    const again = report({}, 'again');
    expect((await again.ended).code).to.equal(status.PERMISSION_DENIED);
    await refused('certificate_untrusted');
    const fresh = world.open(peerCredentials(ours, others.issue({ uris: ['spiffe://others/edge'] })));
    fresh.sendBytes(firstReport('fresh'));
    await fresh.next();
    old.send({ nonce: 2 });
    expect(String((await old.next()).request_nonce)).to.equal('2');
  });

  it('keeps what it has when what is to replace it is broken, and says what is broken', async () => {
    await serve();
    const good = serverMaterial(ours, ours);
    const wrong = [
      { material: { ...good, key: serverMaterial(ours).key }, says: /certificate and key: .*mismatch/ },
      { material: { ...good, cert: 'no certificate' }, says: /certificate and key: / },
      { material: { ...good, key: '' }, says: /certificate and key: / },
      { material: { ...good, clientCa: '' }, says: /client CA: contains no PEM certificate/ },
      {
        material: {
          ...good,
          clientCa: `${ours.ca}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`,
        },
        says: /client CA: certificate 2: /,
      },
    ];
    for (const { material, says } of wrong) {
      expect(() => tls.replace(material)).to.throw(TlsMaterialError, says);
    }
    await report({}).next();
  });

  it("ends a stream at its certificate's notAfter, with the connection, and refuses the next one", async function () {
    this.timeout(2 * DEADLINE_MS);
    await serve();
    // Certificates know whole seconds; some for the handshake on a busy machine.
    const notAfterMs = Math.ceil(Date.now() / SECOND_MS + 4) * SECOND_MS;
    const own = peerCredentials(ours, ours.issue({ notAfterMs }));
    const stream = world.open(own);
    stream.sendBytes(firstReport('r-0'));
    await stream.next();
    const end = await stream.ended;
    const lateMs = Date.now() - notAfterMs;
    expect(end).to.deep.equal({
      code: status.UNAVAILABLE,
      details: 'credential expired; reconnect with a new one',
    });
    expect(lateMs).to.be.greaterThan(-20);
    expect(await world.count('streamsClosed', 'credential_expired')).to.equal(1);
    const next = world.open(own);
    next.sendBytes(firstReport('r-0'));
    expect((await next.ended).code).to.equal(status.PERMISSION_DENIED);
    await refused('certificate_expired');
    expect(world.connectionEvents, 'the reporter is given a moment to come back').to.deep.equal([
      'r-0 connected',
    ]);
  });

  it('refuses a stream on a connection that is older than its certificate, and has it reconnect', async () => {
    let aheadMs = 0;
    await serve({ clock: { ...systemClock, wallMs: () => Date.now() + aheadMs } });
    const { cert, key } = ours.issue();
    const client = credentials.createSsl(Buffer.from(ours.ca), Buffer.from(key), Buffer.from(cert));
    const open = world.connection(client);
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
    // The connection takes no more streams: a third one comes on a new connection, with what its peer has by now.
    aheadMs = 0;
    const third = open();
    third.sendBytes(firstReport('r-2'));
    await third.next();
    expect(world.connectionEvents).to.deep.equal(['r-0 connected', 'r-2 connected']);
  });
});

describe('--auth insecure', () => {
  it('takes plaintext, and TLS on the same port where it has a certificate; everybody is anybody', async () => {
    const tls = new TlsAcceptor(serverMaterial(ours), 'none');
    const world = await startTestServer({ auth: { mode: 'insecure', tls } });
    try {
      for (const by of [undefined, peerCredentials(ours), peerCredentials(ours, others.issue())]) {
        const stream = world.open(by);
        stream.sendBytes(firstReport('r-0'));
        await stream.next();
      }
      expect(world.peers).to.deep.equal([
        { kind: 'anonymous' },
        { kind: 'anonymous' },
        { kind: 'anonymous' },
      ]);
    } finally {
      await world.stop();
    }
  });
});
