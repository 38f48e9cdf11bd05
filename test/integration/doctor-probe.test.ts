import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import {
  constants,
  createSecureServer,
  createServer as createHttp2Server,
  type Http2SecureServer,
  type Http2Server,
} from 'node:http2';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { expect } from 'chai';
import { probeGrpc, probeHttp } from '../../src/doctor/probe-replica.ts';
import { useControlPlane } from '../support/control-plane.ts';

/** Encodes a `grpc.health.v1.HealthCheckResponse` as a gRPC message. */
const healthResponse = (status: number): Buffer => Buffer.from([0, 0, 0, 0, 2, 8, status]);

describe('doctor probes of a replica', () => {
  const controlPlane = useControlPlane();
  const closing: (() => void)[] = [];
  afterEach(() => {
    for (const close of closing.splice(0)) close();
  });

  /** Listens on a free loopback port until the test ends. */
  async function listen(server: Server | Http2Server | Http2SecureServer): Promise<string> {
    const sockets = new Set<Socket>();
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      // A probe resets the connection after the response.
      socket.on('error', () => undefined);
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    closing.push(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  function withResponse<S extends Http2Server | Http2SecureServer>(
    server: S,
    body: Buffer,
    grpcStatus = '0',
  ): S {
    server.on('sessionError', () => undefined);
    server.on('stream', (stream, headers) => {
      expect(headers[':path']).to.equal('/grpc.health.v1.Health/Check');
      stream.on('error', () => undefined);
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': grpcStatus }));
      stream.end(body);
    });
    return server;
  }

  /** Returns the certificate that the API server generated for itself. */
  function certificate(): { cert: Buffer; key: Buffer } {
    const read = (name: string): Buffer =>
      readFileSync(join(controlPlane().folder, 'apiserver-certificates', name));
    return { cert: read('apiserver.crt'), key: read('apiserver.key') };
  }

  const plain: readonly (readonly [string, Buffer, string, string | undefined, string])[] = [
    ['is serving', healthResponse(1), '0', undefined, 'plaintext, SERVING'],
    ['is not serving yet', healthResponse(2), '0', 'health status is NOT_SERVING', 'plaintext, NOT_SERVING'],
    ['requires a token', Buffer.alloc(0), '16', undefined, 'plaintext, authentication required'],
    [
      'denies the call',
      Buffer.alloc(0),
      '7',
      undefined,
      'plaintext, permission denied to a client without credentials',
    ],
    ['has no health service', Buffer.alloc(0), '12', 'health status is unavailable (gRPC status 12)', ''],
  ];
  for (const [state, body, grpcStatus, failure, detail] of plain) {
    it(`probes a plaintext port that ${state}`, async () => {
      const address = await listen(withResponse(createHttp2Server(), body, grpcStatus));
      const { endpoint, certificate: presented } = await probeGrpc(address);
      expect(endpoint.failure).to.equal(failure);
      expect(endpoint.detail).to.include(detail);
      expect(presented).to.equal(undefined);
    });
  }

  it('returns the certificate of a TLS port without verifying trust', async () => {
    const address = await listen(withResponse(createSecureServer(certificate()), healthResponse(1)));
    const { endpoint, certificate: presented } = await probeGrpc(address);
    expect(endpoint).to.include({ failure: undefined, detail: 'TLS, SERVING' });
    expect(presented).to.have.property('notAfterMs').that.is.greaterThan(Date.now());
  });

  it('reports a TLS port that requires a client certificate as reachable', async () => {
    const options = { ...certificate(), requestCert: true, rejectUnauthorized: true };
    const address = await listen(withResponse(createSecureServer(options), healthResponse(1)));
    const { endpoint, certificate: presented } = await probeGrpc(address);
    expect(endpoint).to.include({ failure: undefined, detail: 'TLS, client certificate required' });
    expect(presented).to.have.property('subject').that.includes('127.0.0.1');
  });

  it('reports a TLS port that rejects the connection with INADEQUATE_SECURITY as reachable', async () => {
    const server = createSecureServer(certificate());
    server.on('sessionError', () => undefined);
    server.on('session', (session) => session.goaway(constants.NGHTTP2_INADEQUATE_SECURITY));
    const { endpoint } = await probeGrpc(await listen(server));
    expect(endpoint).to.include({
      failure: undefined,
      detail: 'TLS, connection without a client certificate rejected (INADEQUATE_SECURITY)',
    });
  });

  // A missing client certificate is only one of the causes, so none is claimed.
  const closed = 'the server closed the connection before the HTTP/2 handshake';
  const broken: readonly (readonly [string, TlsOptions, (socket: Socket) => void, string])[] = [
    [
      'closes each connection after the TLS handshake',
      { ALPNProtocols: ['h2'] },
      (socket) => socket.end(),
      closed,
    ],
    [
      'resets each connection after the TLS handshake',
      { ALPNProtocols: ['h2'] },
      (socket) => socket.destroy(),
      closed,
    ],
    [
      'ends each connection after the first bytes',
      { ALPNProtocols: ['h2'] },
      (socket) => socket.once('data', () => socket.end()),
      closed,
    ],
  ];
  for (const [behavior, options, onConnection, failure] of broken) {
    it(`fails for a TLS port that ${behavior}`, async () => {
      const server = createTlsServer({ ...certificate(), ...options }, (socket) => {
        socket.on('error', () => undefined);
        onConnection(socket);
      });
      const { endpoint, certificate: presented } = await probeGrpc(await listen(server));
      expect(endpoint.failure).to.equal(failure);
      expect(presented).to.have.property('notAfterMs');
    });
  }

  it('fails for a TLS port whose server stops between the two connections of the probe', async () => {
    const server = createTlsServer({ ...certificate(), ALPNProtocols: ['h2'] }, (socket) => {
      socket.on('error', () => undefined);
    });
    server.on('connection', () => server.close());
    const { endpoint } = await probeGrpc(await listen(server));
    expect(endpoint.failure).to.match(/^the connection failed: connect ECONNREFUSED 127\.0\.0\.1:\d+$/);
  });

  it('fails for a TLS port whose server responds with UNAVAILABLE', async () => {
    const server = createSecureServer(certificate());
    server.on('sessionError', () => undefined);
    server.on('stream', (stream) => {
      const headers = { ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '14' };
      stream.respond(headers, { endStream: true });
    });
    const { endpoint } = await probeGrpc(await listen(server));
    expect(endpoint.failure).to.equal('health status is unavailable (gRPC status 14)');
  });

  it('fails for a TLS port that does not speak gRPC', async () => {
    const { endpoint } = await probeGrpc(new URL(controlPlane().url).host);
    expect(endpoint.failure).to.equal('health status is unavailable (gRPC status missing)');
  });

  it('fails for a port that closes the connection', async () => {
    const address = await listen(createServer((socket) => socket.destroy()));
    const { endpoint } = await probeGrpc(address);
    expect(endpoint.failure).to.be.a('string').that.is.not.empty;
  });

  it('fails for a port without a listener', async () => {
    const server = createServer();
    const address = await listen(server);
    await new Promise((resolve) => {
      server.close(resolve);
    });
    expect((await probeGrpc(address)).endpoint.failure).to.include('ECONNREFUSED');
    expect((await probeHttp(address)).endpoint.failure).to.include('ECONNREFUSED');
  });

  it('shows why a replica is not ready', async () => {
    const server = createHttpServer((_request, response) => {
      response.writeHead(503).end('not ready: the Lease is not held\n');
    });
    const { endpoint } = await probeHttp(await listen(server));
    expect(endpoint.failure).to.equal('503 not ready: the Lease is not held');
  });

  it('fails for an HTTP port that switches to another protocol', async () => {
    const server = createHttpServer(({ socket }) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n');
    });
    const { endpoint } = await probeHttp(await listen(server));
    expect(endpoint.failure).to.equal('connection closed without a response');
  });
});
