import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import {
  createSecureServer,
  createServer as createHttp2Server,
  type Http2SecureServer,
  type Http2Server,
} from 'node:http2';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect } from 'chai';
import { probeGrpc, probeHttp } from '../../src/doctor/probe-replica.ts';
import { useControlPlane } from '../support/control-plane.ts';

/** `grpc.health.v1.HealthCheckResponse` with this status, in gRPC's frame. */
const health = (status: number): Buffer => Buffer.from([0, 0, 0, 0, 2, 8, status]);

describe('a replica, tried by its ports', () => {
  const controlPlane = useControlPlane();
  const closing: (() => void)[] = [];
  afterEach(() => {
    for (const close of closing.splice(0)) close();
  });

  /** Listens on a free port of loopback until the test is over. */
  async function listen(server: Server | Http2Server | Http2SecureServer): Promise<string> {
    const sockets = new Set<Socket>();
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      // A probe that was answered resets the connection.
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

  function answering<S extends Http2Server | Http2SecureServer>(
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

  /** The certificate that the API server made for itself. */
  function certificate(): { cert: Buffer; key: Buffer } {
    const read = (name: string): Buffer =>
      readFileSync(join(controlPlane().folder, 'apiserver-certificates', name));
    return { cert: read('apiserver.crt'), key: read('apiserver.key') };
  }

  const plain: readonly (readonly [string, Buffer, string, string | undefined, string])[] = [
    ['serves', health(1), '0', undefined, 'plaintext, SERVING'],
    ['does not serve yet', health(2), '0', 'health status is NOT_SERVING', 'plaintext, NOT_SERVING'],
    ['asks for a token', Buffer.alloc(0), '16', undefined, 'plaintext, authentication required'],
    ['knows no health', Buffer.alloc(0), '12', 'health status is unavailable (gRPC status 12)', ''],
  ];
  for (const [what, body, grpcStatus, failure, said] of plain) {
    it(`in plaintext, one that ${what}`, async () => {
      const address = await listen(answering(createHttp2Server(), body, grpcStatus));
      const { endpoint, certificate: met } = await probeGrpc(address);
      expect(endpoint.failure).to.equal(failure);
      expect(endpoint.detail).to.include(said);
      expect(met).to.equal(undefined);
    });
  }

  it('by TLS: its certificate is met, and not trusted or distrusted', async () => {
    const address = await listen(answering(createSecureServer(certificate()), health(1)));
    const { endpoint, certificate: met } = await probeGrpc(address);
    expect(endpoint).to.include({ failure: undefined, said: 'TLS, SERVING' });
    expect(met).to.have.property('notAfterMs').that.is.greaterThan(Date.now());
  });

  it('by TLS, one that wants a certificate of whoever asks: it is there', async () => {
    const wants = { ...certificate(), requestCert: true, rejectUnauthorized: true };
    const address = await listen(answering(createSecureServer(wants), health(1)));
    const { endpoint, certificate: met } = await probeGrpc(address);
    expect(endpoint).to.include({ failure: undefined, said: 'TLS, authentication required' });
    expect(met).to.have.property('subject').that.includes('127.0.0.1');
  });

  it('something that speaks TLS and is no replica', async () => {
    const { endpoint } = await probeGrpc(new URL(controlPlane().url).host);
    expect(endpoint.failure).to.equal('health status is unavailable (gRPC status missing)');
  });

  it('something that hangs up', async () => {
    const address = await listen(createServer((socket) => socket.destroy()));
    const { endpoint } = await probeGrpc(address);
    expect(endpoint.failure).to.be.a('string').that.is.not.empty;
  });

  it('nobody', async () => {
    const server = createServer();
    const address = await listen(server);
    await new Promise((resolve) => {
      server.close(resolve);
    });
    expect((await probeGrpc(address)).endpoint.failure).to.include('ECONNREFUSED');
    expect((await probeHttp(address)).endpoint.failure).to.include('ECONNREFUSED');
  });

  it('probes of one that is not ready: its reason', async () => {
    const server = createHttpServer((_request, response) => {
      response.writeHead(503).end('not ready: the Lease is not held\n');
    });
    const { endpoint } = await probeHttp(await listen(server));
    expect(endpoint.failure).to.equal('503 not ready: the Lease is not held');
  });
});
