/** What a user reads in the operator's log when the API server, or something in front of it, does not do as it should. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { stringify } from 'yaml';
import * as answers from '../support/recorded-responses.ts';
import { createCertificateAuthority, type CertificateAuthority } from '../support/certificates.ts';
import {
  startOperatorProcess,
  poll,
  type LogLine,
  type OperatorProcess,
} from '../support/operator-process.ts';

/** A refused token is read again by a process, or 10 s later, and tried again 5 s after that: more on a busy machine. */
const DEADLINE_MS = 60_000;
const FRESH = 'fresh-t0ken-of-the-account';
const EXPIRED = 'expired-t0ken-of-the-account';
const PROXY_PASSWORD = 'pr0xy-password';
const ROWS = 'reversetunnels.reverse-tunnel.io in tunnels';

type Behaviour = 'as it should' | 'forbids' | 'a page' | 'repeats the request' | 'a page instead of a watch';

/** So much of an API server as the operator needs to be content: nothing is stored, and each write is taken. */
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
  let folder: string;
  let authority: CertificateAuthority;
  let api: HttpsServer;
  let proxy: Server;
  let behaviour: Behaviour = 'as it should';
  let proxyResets = false;
  const sockets = new Set<Socket>();
  let operator: OperatorProcess;
  let place: string;
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

  before('an API server behind a proxy, and an operator whose token has expired', async () => {
    folder = await mkdtemp(join(tmpdir(), 'api-log-'));
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
    place = `https://127.0.0.1:${apiPort} through the proxy http://127.0.0.1:${proxyPort}`;
    await writeFile(join(folder, 'ca.crt'), authority.ca);
    await writeFile(join(folder, 'token'), EXPIRED);
    const cluster = {
      server: `https://127.0.0.1:${apiPort}`,
      'certificate-authority': 'ca.crt',
      'proxy-url': `http://me:${PROXY_PASSWORD}@127.0.0.1:${proxyPort}`,
    };
    const kubeconfigPath = join(folder, 'config');
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
    await rm(folder, { recursive: true });
  });

  /** From now on; connections that stand are broken, so that nobody goes on with what was before. */
  function change(what: { behaviour?: Behaviour; proxyResets?: boolean }): void {
    from = operator.log.length;
    behaviour = what.behaviour ?? 'as it should';
    proxyResets = what.proxyResets ?? false;
    for (const socket of sockets) socket.destroy();
  }

  /** The first line about the rows that says so, since the last change. */
  function line(about: RegExp): Promise<LogLine> {
    return poll(DEADLINE_MS, () =>
      operator.log
        .slice(from)
        .find(({ resource, msg, error }) => resource === ROWS && about.test(`${msg}: ${String(error)}`)),
    );
  }

  async function worksAgain(): Promise<void> {
    change({});
    await line(/recovered|: 0 objects/);
    await ready();
  }

  function ready(): Promise<true> {
    return poll(
      DEADLINE_MS,
      async () => (await fetch(`http://${operator.httpAddress}/readyz`)).ok || undefined,
    );
  }

  function expectNamed(one: LogLine, errorKind: string): void {
    expect(one).to.include({ level: 'warn', errorKind, server: place });
    expect(one['retry']).to.match(/^in \d+(\.\d)?s$/);
  }

  it('an expired token: refused, and what to look at', async () => {
    const said = await line(/401/);
    expectNamed(said, 'unauthorized');
    expect(said).to.include({
      msg: 'list or watch failed; retrying',
      error: `list ${ROWS}: 401 Unauthorized: Unauthorized`,
      hint: 'check the credentials',
    });
    const lease = await poll(DEADLINE_MS, () =>
      operator.log.find(({ msg }) => msg.startsWith('cannot renew the replica Lease')),
    );
    expect(lease).to.include({ level: 'warn', server: place, retry: 'every 1s' });
    expect(lease['error']).to.match(/: 401 Unauthorized: Unauthorized$/);
  });

  it('401, then 200 with the token that was put in its place', async () => {
    from = operator.log.length;
    await writeFile(join(folder, 'token'), FRESH);
    const said = await poll(DEADLINE_MS, () =>
      operator.log.slice(from).find(({ msg }) => /^credentials were rejected|recovered$/.test(msg)),
    );
    expect(said).to.include({ level: 'info', server: place });
    await ready();
  });

  it('a proxy that resets', async () => {
    change({ proxyResets: true });
    const said = await line(/reset|closed|socket/i);
    expectNamed(said, 'unavailable');
    await worksAgain();
  });

  it('HTML instead of an answer', async () => {
    change({ behaviour: 'a page' });
    const said = await line(/Please log in/);
    expectNamed(said, 'unexpected_response');
    expect(said['error']).to.contain('<title>Please log in');
    expect(said['hint']).to.equal('check that the address is that of the API server');
    await worksAgain();
  });

  it('a CA that was rotated: TLS, and how it failed', async () => {
    const next = createCertificateAuthority('next');
    api.setSecureContext(certified(next));
    change({});
    const said = await line(/TLS: /);
    expectNamed(said, 'unavailable');
    expect(said['error']).to.match(
      /: TLS: unable to verify the first certificate \(UNABLE_TO_VERIFY_LEAF_SIGNATURE\)$/,
    );
    expect(said['hint']).to.match(/^check the CA/);
    await writeFile(join(folder, 'ca.crt'), next.ca);
    await line(/recovered/);
    await ready();
  });

  it('403: what is not allowed, and what is to be given', async () => {
    change({ behaviour: 'forbids' });
    const said = await line(/403/);
    expectNamed(said, 'rejected');
    expect(said['error']).to.contain('cannot list resource "reversetunnels"');
    expect(said['hint']).to.contain('RBAC permissions');
    await worksAgain();
  });

  it('HTML instead of a watch alone, without a line end', async () => {
    change({ behaviour: 'a page instead of a watch' });
    const said = await line(/Please log in/);
    expectNamed(said, 'unexpected_response');
    expect(said['error']).to.match(/^watch .*: response ended within a line: <html>/);
    await worksAgain();
  });

  it('a server that sends the request back', async () => {
    // Of another kind than the last, which is not said twice in 30 s.
    change({ behaviour: 'forbids' });
    await line(/403/);
    change({ behaviour: 'repeats the request' });
    const said = await line(/404/);
    expectNamed(said, 'unexpected_response');
    expect(said['error']).to.contain('<pre>authorization: [credentials]');
    await worksAgain();
  });

  it('holds in no line a secret or a control character, and nothing on stderr', () => {
    expect(operator.log.length).to.be.above(10);
    const all = operator.log.map((one) => JSON.stringify(one)).join('\n');
    for (const secret of [FRESH, EXPIRED, PROXY_PASSWORD]) expect(all).not.to.contain(secret);
    for (const { msg } of operator.log) expect(msg).to.match(/^[^\p{Cc}]+$/u);
    expect(operator.stderr).to.equal('');
  });
});
