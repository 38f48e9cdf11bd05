/** The operator's log when the API server, or something in front of it, misbehaves. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { stringify } from 'yaml';
import * as answers from '../support/recorded-responses.ts';
import { createCertificateAuthority, type CertificateAuthority } from '../../control-plane/certificates.ts';
import {
  startOperatorProcess,
  poll,
  type LogLine,
  type OperatorProcess,
} from '../support/operator-process.ts';

/**
 * A rejected token is reloaded by a process, or 10 s later, and retried 5 s after that; a busy machine takes longer.
 */
const DEADLINE_MS = 60_000;
const FRESH = 'fresh-t0ken-of-the-account';
const EXPIRED = 'expired-t0ken-of-the-account';
const PROXY_PASSWORD = 'pr0xy-password';
const TUNNELS = 'reversetunnels.reverse-tunnel.io in tunnels';

type Behaviour = 'as it should' | 'forbids' | 'a page' | 'repeats the request' | 'a page instead of a watch';

/** Answers the minimum that the operator needs to be ready: nothing is stored, and each write succeeds. */
function answer(
  behaviour: Behaviour,
  request: IncomingMessage,
  response: ServerResponse,
  body: string,
): void {
  const isWatch = request.url?.includes('watch=') === true;
  const send = (status: number, type: string, text: string): void => {
    response.writeHead(status, { 'content-type': type }).end(text);
  };
  if (request.headers.authorization !== `Bearer ${FRESH}`) {
    send(401, 'application/json', answers.UNAUTHORIZED.body);
  } else if (behaviour === 'forbids') {
    send(403, 'application/json', answers.FORBIDDEN.body);
  } else if (behaviour === 'a page' || (behaviour === 'a page instead of a watch' && isWatch)) {
    send(200, 'text/html', '<html><title>Please log in\u0007\u001b[31m</title></html>');
  } else if (behaviour === 'repeats the request') {
    send(404, 'text/html', `<pre>authorization: ${request.headers.authorization}</pre>`);
  } else if (isWatch) {
    response.writeHead(200, { 'content-type': 'application/json' }).flushHeaders();
  } else if (request.method === 'GET') {
    send(200, 'application/json', answers.listResponse('100', []).body);
  } else {
    const { metadata, ...object } = JSON.parse(body) as { metadata?: object };
    const stored = { kind: 'Lease', ...object, metadata: { ...metadata, uid: 'u', resourceVersion: '101' } };
    send(201, 'application/json', JSON.stringify(stored));
  }
}

describe('log of the operator about its API server', function () {
  this.timeout(3 * DEADLINE_MS);
  let directory: string;
  let authority: CertificateAuthority;
  let api: HttpsServer;
  let proxy: Server;
  let behaviour: Behaviour = 'as it should';
  let proxyResets = false;
  const sockets = new Set<Socket>();
  let operator: OperatorProcess;
  let serverUrl: string;
  let from = 0;

  function follow(socket: Socket): void {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
  }

  async function listen(server: Server): Promise<number> {
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    return (server.address() as AddressInfo).port;
  }

  function certified(by: CertificateAuthority): { cert: string; key: string } {
    return by.issue({ addresses: ['127.0.0.1'], usage: 'server' });
  }

  before('starts an API server behind a proxy, and an operator whose token has expired', async () => {
    directory = await mkdtemp(join(tmpdir(), 'api-log-'));
    authority = createCertificateAuthority();
    api = createHttpsServer(certified(authority), (request, response) => {
      let body = '';
      request.on('data', (chunk: Buffer) => (body += chunk.toString()));
      request.on('end', () => answer(behaviour, request, response, body));
    });
    api.on('connection', follow).on('tlsClientError', () => undefined);
    proxy = createServer((socket) => {
      follow(socket);
      socket.once('data', (head) => {
        if (proxyResets) {
          socket.resetAndDestroy();
          return;
        }
        const [, target = ''] = head.toString('latin1').split(' ');
        const [host = '', port = ''] = target.split(':');
        const upstream = connect(Number(port), host, () => {
          socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
          socket.pipe(upstream).pipe(socket);
        });
        follow(upstream);
        upstream.on('close', () => socket.destroy());
        socket.on('close', () => upstream.destroy());
      });
    });
    const [apiPort, proxyPort] = [await listen(api), await listen(proxy)];
    serverUrl = `https://127.0.0.1:${apiPort} through the proxy http://127.0.0.1:${proxyPort}`;
    await writeFile(join(directory, 'ca.crt'), authority.ca);
    await writeFile(join(directory, 'token'), EXPIRED);
    const cluster = {
      server: `https://127.0.0.1:${apiPort}`,
      'certificate-authority': 'ca.crt',
      'proxy-url': `http://me:${PROXY_PASSWORD}@127.0.0.1:${proxyPort}`,
    };
    const kubeconfigPath = join(directory, 'config');
    await writeFile(
      kubeconfigPath,
      stringify({
        'current-context': 'x',
        clusters: [{ name: 'c', cluster }],
        users: [{ name: 'u', user: { tokenFile: 'token' } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
      }),
    );
    operator = await startOperatorProcess({ kubeconfigPath, namespace: 'tunnels' });
  });

  after(async () => {
    await operator?.kill();
    for (const socket of sockets) socket.destroy();
    api?.close();
    proxy?.close();
    await rm(directory, { recursive: true });
  });

  /** Changes the behavior and resets the open connections, so that no request continues with the previous entry. */
  function change(what: { behaviour?: Behaviour; proxyResets?: boolean }): void {
    from = operator.log.length;
    behaviour = what.behaviour ?? 'as it should';
    proxyResets = what.proxyResets ?? false;
    for (const socket of sockets) socket.destroy();
  }

  /** Returns the first line about tunnels that matches, since the last change. */
  function line(about: RegExp): Promise<LogLine> {
    return poll(DEADLINE_MS, () =>
      operator.log
        .slice(from)
        .find(({ resource, msg, error }) => resource === TUNNELS && about.test(`${msg}: ${String(error)}`)),
    );
  }

  async function waitForRecovery(): Promise<void> {
    change({});
    await line(/recovered|listed all objects/);
    await ready();
  }

  function ready(): Promise<true> {
    return poll(
      DEADLINE_MS,
      async () => (await fetch(`http://${operator.httpAddress}/readyz`)).ok || undefined,
    );
  }

  function expectErrorKind(entry: LogLine, errorKind: string): void {
    expect(entry).to.include({ level: 'warn', errorKind, server: serverUrl });
    expect(entry['retry']).to.match(/^in \d+(\.\d)?s$/);
  }

  it('logs the rejection of an expired token with a hint', async () => {
    const entry = await line(/401/);
    expectErrorKind(entry, 'unauthorized');
    expect(entry).to.include({
      msg: 'list or watch failed; retrying',
      error: `list ${TUNNELS}: 401 Unauthorized: Unauthorized`,
      hint: 'check the credentials',
    });
    const lease = await poll(DEADLINE_MS, () =>
      operator.log.find(
        ({ msg, error }) =>
          msg.startsWith('cannot renew the replica Lease') &&
          String(error).endsWith(': 401 Unauthorized: Unauthorized'),
      ),
    );
    expect(lease).to.include({ level: 'warn', server: serverUrl, retry: 'every 1s' });
    expect(lease['error']).to.match(/^[^:]*: 401 Unauthorized: Unauthorized$/);
  });

  it('logs that the reloaded token was accepted after a 401', async () => {
    from = operator.log.length;
    await writeFile(join(directory, 'token'), FRESH);
    const entry = await poll(DEADLINE_MS, () =>
      operator.log.slice(from).find(({ msg }) => /^credentials were rejected|recovered$/.test(msg)),
    );
    expect(entry).to.include({ level: 'info', server: serverUrl });
    await ready();
  });

  it('logs a proxy that resets connections', async () => {
    change({ proxyResets: true });
    const entry = await line(/reset|closed|socket/i);
    expectErrorKind(entry, 'unavailable');
    await waitForRecovery();
  });

  it('logs HTML instead of a response', async () => {
    change({ behaviour: 'a page' });
    const entry = await line(/Please log in/);
    expectErrorKind(entry, 'unexpected_response');
    expect(entry['error']).to.contain('<title>Please log in');
    expect(entry['hint']).to.equal('check that the address is that of the API server');
    await waitForRecovery();
  });

  it('logs a TLS failure and its cause after the CA was rotated', async () => {
    const next = createCertificateAuthority('next');
    api.setSecureContext(certified(next));
    change({});
    const entry = await line(/TLS: /);
    expectErrorKind(entry, 'unavailable');
    expect(entry['error']).to.match(
      /: TLS: unable to get local issuer certificate \(UNABLE_TO_GET_ISSUER_CERT_LOCALLY\)$/,
    );
    expect(entry['hint']).to.match(/^check the CA/);
    await writeFile(join(directory, 'ca.crt'), next.ca);
    await line(/recovered/);
    await ready();
  });

  it('logs a 403 with the missing permission and a hint', async () => {
    change({ behaviour: 'forbids' });
    const entry = await line(/403/);
    expectErrorKind(entry, 'rejected');
    expect(entry['error']).to.contain('cannot list resource "reversetunnels"');
    expect(entry['hint']).to.contain('RBAC permissions');
    await waitForRecovery();
  });

  it('logs HTML without a line feed instead of a watch', async () => {
    change({ behaviour: 'a page instead of a watch' });
    const entry = await line(/Please log in/);
    expectErrorKind(entry, 'unexpected_response');
    expect(entry['error']).to.match(/^watch .*: response ended within a line: <html>/);
    await waitForRecovery();
  });

  it('logs a server that returns the request', async () => {
    // Logged up to 30 s after the last entry, which has the same kind.
    change({ behaviour: 'repeats the request' });
    const entry = await line(/404/);
    expectErrorKind(entry, 'unexpected_response');
    expect(entry['error']).to.contain('<pre>authorization: [credentials]');
    await waitForRecovery();
  });

  it('contains no secret and no control character, and nothing is written to stderr', () => {
    expect(operator.log.length).to.be.above(10);
    const all = operator.log.map((entry) => JSON.stringify(entry)).join('\n');
    for (const secret of [FRESH, EXPIRED, PROXY_PASSWORD]) expect(all).not.to.contain(secret);
    for (const { msg } of operator.log) expect(msg).to.match(/^[^\p{Cc}]+$/u);
    expect(operator.stderr).to.equal('');
  });
});
