import { X509Certificate } from 'node:crypto';
import { get } from 'node:http';
import { connect as connectTls } from 'node:tls';
import { errorMessage } from '../error-message.ts';
import { checkServerHealth } from '../grpc/health-client.ts';
import { parseHostPort } from '../host-port.ts';
import { certificateInfo } from './certificates.ts';
import type { CertificateInfo, EndpointInfo } from './inputs.ts';

/** A port whose packets are dropped never responds, and a user is waiting. */
const TIMEOUT_MS = 5_000;

/** The result of a probe, and the certificate that the endpoint presented. */
export interface ProbeResult {
  readonly endpoint: EndpointInfo;
  readonly certificate: CertificateInfo | undefined;
}

/** Requests `/readyz` from the HTTP port of a replica. Never rejects. */
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

/** Sends a GET request. `fetch` is not used, as it rejects some ports. */
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
    request.setTimeout(TIMEOUT_MS, () => request.destroy(timeoutError()));
    request.on('error', reject);
    // Without an error and without a response: the server has switched to another protocol (101).
    request.on('close', () => reject(new Error('connection closed without a response')));
  });
}

/**
 * Checks the health of the gRPC port of a replica, over TLS if the port speaks TLS. No credentials are presented: a replica
 * that rejects the call for that reason has shown that it is reachable. Never rejects.
 */
export async function probeGrpc(address: string): Promise<ProbeResult> {
  const flag = '--grpc-address';
  let certificate: CertificateInfo | undefined;
  try {
    const peer = await fetchServerCertificate(address);
    if (peer !== undefined) certificate = certificateInfo(`${flag} ${address}`, peer);
    const health = await checkServerHealth(address, peer !== undefined, TIMEOUT_MS);
    if ('failure' in health) {
      return { endpoint: { flag, address, failure: health.failure, detail: '' }, certificate };
    }
    const transport = peer === undefined ? 'plaintext' : 'TLS';
    if ('rejection' in health) {
      const detail = `${transport}, ${health.rejection}`;
      return { endpoint: { flag, address, failure: undefined, detail }, certificate };
    }
    const { status } = health;
    const failure = status === 'SERVING' ? undefined : `health status is ${status}`;
    return { endpoint: { flag, address, failure, detail: `${transport}, ${status}` }, certificate };
  } catch (error) {
    return { endpoint: { flag, address, failure: errorMessage(error), detail: '' }, certificate };
  }
}

/** Returns the certificate that a port presents; undefined if it does not speak TLS. Rejects if it cannot be reached. */
function fetchServerCertificate(address: string): Promise<X509Certificate | undefined> {
  const { host, port } = parseHostPort(address) ?? { host: address, port: 0 };
  return new Promise((resolve, reject) => {
    // The validity dates have their own check; trust cannot be checked without the CA that Envoy uses.
    const socket = connectTls({ host, port, ALPNProtocols: ['h2'], rejectUnauthorized: false });
    socket.setTimeout(TIMEOUT_MS, () => socket.destroy(timeoutError()));
    let connected = false;
    socket.once('connect', () => {
      connected = true;
    });
    socket.once('secureConnect', () => {
      const peer = socket.getPeerX509Certificate();
      resolve(peer && new X509Certificate(peer.raw));
      socket.destroy();
    });
    socket.on('error', (error) => {
      // After the TCP connection, an error means that the response was not TLS.
      if (connected) resolve(undefined);
      else reject(error);
    });
    socket.once('close', () => resolve(undefined));
  });
}

function timeoutError(): Error {
  return new Error(`no response within ${TIMEOUT_MS / 1000} s`);
}
