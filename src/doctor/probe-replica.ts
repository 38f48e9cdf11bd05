import { X509Certificate } from 'node:crypto';
import { get } from 'node:http';
import { connect, constants, type ClientHttp2Session, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { parseHostPort } from '../host-port.ts';
import { certificateInfo } from './certificates.ts';
import type { CertificateInfo, EndpointInfo } from './inputs.ts';

/** Somebody waits in front of a screen, and a port that drops packets never answers. */
const TIMEOUT_MS = 5_000;
/** A gRPC message without content: `grpc.health.v1.HealthCheckRequest` for the server as a whole. */
const EMPTY_MESSAGE = Buffer.alloc(5);
/** `HealthCheckResponse.status`: field 1, varint. */
const HEALTH_STATUSES = ['unknown', 'SERVING', 'NOT_SERVING'];

/** An endpoint that was tried, and the certificate that was met there. */
export interface ProbeResult {
  readonly endpoint: EndpointInfo;
  readonly certificate: CertificateInfo | undefined;
}

/** Asks a replica's HTTP port whether it is ready. Never rejects. */
export async function probeHttp(address: string): Promise<ProbeResult> {
  const flag = '--http-address';
  try {
    const { status, text } = await httpGet(address, '/readyz');
    const failure = status === 200 ? undefined : `${status} ${text.trim().slice(0, 200)}`;
    return { endpoint: { flag, address, failure, detail: 'ready' }, certificate: undefined };
  } catch (error) {
    return { endpoint: { flag, address, failure: errorMessage(error), detail: '' }, certificate: undefined };
  }
}

/** Not by `fetch`, which refuses some ports. */
function httpGet(address: string, path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const request = get(`http://${address}${path}`, { agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    request.setTimeout(TIMEOUT_MS, () =>
      request.destroy(new Error(`no response within ${TIMEOUT_MS / 1000} s`)),
    );
    request.on('error', reject);
  });
}

/**
 * Asks a replica's gRPC port for its health, by TLS where it speaks TLS. Who it is is not proven: this is no reporter, so
 * a replica that asks for a certificate or a token and refuses this one for it has shown that it is there. Never rejects.
 */
export async function probeGrpc(address: string): Promise<ProbeResult> {
  const flag = '--grpc-address';
  let certificate: CertificateInfo | undefined;
  try {
    const tls = await tryTls(address);
    if (tls !== undefined) {
      const peer = tls.getPeerX509Certificate();
      if (peer !== undefined)
        certificate = certificateInfo(`--grpc-address ${address}`, new X509Certificate(peer.raw));
    }
    const health = await fetchHealth(address, tls);
    const failure =
      health === 'SERVING' || health === 'authentication required' ? undefined : `health status is ${health}`;
    const detail = `${tls === undefined ? 'plaintext' : 'TLS'}, ${health}`;
    return { endpoint: { flag, address, failure, detail }, certificate };
  } catch (error) {
    return { endpoint: { flag, address, failure: errorMessage(error), detail: '' }, certificate };
  }
}

/** A TLS connection; undefined where the other side speaks none. Rejects when nobody listens. */
function tryTls(address: string): Promise<TLSSocket | undefined> {
  const { host, port } = parseHostPort(address) ?? { host: address, port: 0 };
  return new Promise((resolve, reject) => {
    // Its dates are judged apart; whose it is cannot be, without the CA that Envoy has.
    const socket = connectTls({ host, port, ALPNProtocols: ['h2'], rejectUnauthorized: false });
    socket.setTimeout(TIMEOUT_MS, () =>
      socket.destroy(new Error(`no response within ${TIMEOUT_MS / 1000} s`)),
    );
    let connected = false;
    socket.once('connect', () => {
      connected = true;
    });
    socket.once('secureConnect', () => resolve(socket));
    socket.on('error', (error) => {
      // It was there, and what it sent was no TLS.
      if (connected) resolve(undefined);
      else reject(error);
    });
    socket.once('close', () => resolve(undefined));
  });
}

/** The health that the server tells of itself, or `authentication required`. */
async function fetchHealth(address: string, tls: TLSSocket | undefined): Promise<string> {
  const session =
    tls === undefined
      ? connect(`http://${address}`)
      : connect(`https://${address}`, { createConnection: () => tls });
  try {
    return await checkHealth(session, tls !== undefined);
  } finally {
    session.destroy();
    tls?.destroy();
  }
}

/** @param isTls then an end without an answer may be the refusal of a client that shows no certificate */
function checkHealth(session: ClientHttp2Session, isTls: boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    // A client without a certificate learns that it is refused only after the handshake, by the end of the connection.
    const onEnd = (error?: Error): void => {
      if (isTls) resolve('authentication required');
      else reject(error ?? new Error('connection closed'));
    };
    session.once('error', onEnd);
    session.once('close', onEnd);
    session.setTimeout(TIMEOUT_MS, () => reject(new Error(`no response within ${TIMEOUT_MS / 1000} s`)));
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let grpcStatus = '';
    const chunks: Buffer[] = [];
    stream.on('response', (headers) => {
      grpcStatus = grpcStatusFrom(headers);
    });
    stream.on('trailers', (trailers) => {
      grpcStatus = grpcStatusFrom(trailers);
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', onEnd);
    stream.on('end', () => resolve(parseHealth(grpcStatus, Buffer.concat(chunks))));
    stream.end(EMPTY_MESSAGE);
  });
}

/** It comes in the headers where there is no body, else in the trailers. */
function grpcStatusFrom(headers: IncomingHttpHeaders): string {
  const status = headers['grpc-status'];
  return typeof status === 'string' ? status : '';
}

/** By the numbers of gRPC's status codes: 7 PERMISSION_DENIED and 16 UNAUTHENTICATED come from who checks callers. */
function parseHealth(grpcStatus: string, body: Buffer): string {
  if (grpcStatus === '7' || grpcStatus === '16') return 'authentication required';
  if (grpcStatus !== '0') return `unavailable (gRPC status ${grpcStatus === '' ? 'missing' : grpcStatus})`;
  // A frame's five bytes, the field's tag, its value; the value 0 is left out.
  return HEALTH_STATUSES[body[6] ?? 0] ?? 'unknown';
}

/** Where a name has several addresses, Node wraps what each answered, and says nothing itself. */
function errorMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message === '' && error instanceof AggregateError
    ? errorMessage(error.errors[0])
    : error.message;
}
