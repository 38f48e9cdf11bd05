import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { expect } from 'chai';
import {
  HttpListenError,
  startHttpServer,
  type HttpServer,
  type HttpSources,
  type HttpTimeouts,
} from '../../src/http/http-server.ts';
import { createMetrics } from '../../src/metrics.ts';

interface Response {
  readonly code: number | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** Sends a request on a new connection, with the path unchanged. */
async function send(server: HttpServer, path: string, method = 'GET'): Promise<Response> {
  const { hostname, port } = new URL(`http://${server.address}`);
  const sent = request({ host: hostname.replaceAll(/[[\]]/g, ''), port, path, method, agent: false });
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let body = '';
  for await (const chunk of response) body += String(chunk);
  return { code: response.statusCode, headers: response.headers, body };
}

/** Resolves with the server's end of the next connection. */
function nextAcceptedSocket(): Promise<Socket> {
  return new Promise((resolve) => {
    const onSocket = (message: unknown): void => {
      unsubscribe('net.server.socket', onSocket);
      resolve((message as { readonly socket: Socket }).socket);
    };
    subscribe('net.server.socket', onSocket);
  });
}

describe('startHttpServer', () => {
  let notReadyReason: string | undefined;
  let server: HttpServer;
  const metrics = createMetrics();
  const sources: HttpSources = {
    notReady: () => notReadyReason,
    metrics: async () => ({
      contentType: metrics.registry.contentType,
      text: await metrics.registry.metrics(),
    }),
  };
  const serve = async (
    address = '127.0.0.1:0',
    given: Partial<HttpSources> = {},
    timeouts?: HttpTimeouts,
  ): Promise<void> => {
    server = await startHttpServer(address, { ...sources, ...given }, timeouts);
  };
  /** Opens a connection, and returns it with the promise of its end. */
  const open = async (localAddress = '127.0.0.1'): Promise<{ socket: Socket; closed: Promise<unknown> }> => {
    const { hostname, port } = new URL(`http://${server.address}`);
    const socket = connect({ host: hostname, port: Number(port), localAddress });
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.once('close', resolve));
    await once(socket, 'connect');
    return { socket, closed };
  };

  beforeEach(() => {
    notReadyReason = undefined;
  });
  afterEach(() => server.close());

  for (const host of ['127.0.0.1', 'localhost', '[::1]']) {
    it(`listens on ${host} with port 0, and returns the bound port`, async () => {
      await serve(`${host}:0`);
      expect(server.address).to.match(new RegExp(`^${host.replaceAll(/[[\].]/g, '\\$&')}:[1-9]\\d+$`));
      expect(await send(server, '/livez')).to.deep.include({ code: 200, body: 'ok\n' });
    });
  }

  it('/readyz returns the given readiness; /livez does not depend on it', async () => {
    await serve();
    expect(await send(server, '/readyz')).to.deep.include({ code: 200, body: 'ok\n' });
    notReadyReason = 'the objects have not been listed yet';
    expect(await send(server, '/readyz')).to.deep.include({
      code: 503,
      body: 'not ready: the objects have not been listed yet\n',
    });
    expect(await send(server, '/livez')).to.deep.include({ code: 200 });
    notReadyReason = undefined;
    expect(await send(server, '/readyz')).to.deep.include({ code: 200 });
  });

  it('ignores the query of a request', async () => {
    await serve();
    expect(await send(server, '/readyz?verbose')).to.deep.include({ code: 200 });
    expect(await send(server, '/metrics?name[]=x')).to.deep.include({ code: 200 });
  });

  it('/metrics returns text that Prometheus can parse, with every metric of the operator', async () => {
    await serve();
    metrics.nacks.inc({ reason: 'missing' });
    const { code, headers, body } = await send(server, '/metrics');
    expect(code).to.equal(200);
    expect(headers['content-type']).to.match(/^text\/plain; version=0\.0\.4/);
    expect(body.endsWith('\n')).to.equal(true);
    const types = new Map<string, string>();
    // prom-client writes Nan; Prometheus accepts any case.
    const sample = /^[a-zA-Z_:][\w:]*(\{(\w+="[^"]*",?)+\})? (-?\d[\d.e+-]*|Na[Nn]|[+-]Inf)$/;
    for (const line of body.split('\n')) {
      const [, name, type] =
        /^# TYPE ([a-zA-Z_:][\w:]*) (counter|gauge|histogram|summary|untyped)$/.exec(line) ?? [];
      if (name !== undefined && type !== undefined) types.set(name, type);
      else if (line !== '' && !line.startsWith('# HELP ')) expect(line).to.match(sample);
    }
    expect(types.get('reverse_tunnel_nacks_total')).to.equal('counter');
    expect(body).to.match(/^reverse_tunnel_nacks_total\{reason="missing"\} 1$/m);
    for (const metric of await metrics.registry.getMetricsAsJSON())
      expect(types.has(metric.name)).to.equal(true, metric.name);
  });

  it('/metrics returns 500 without details if the metrics cannot be collected', async () => {
    await serve(undefined, { metrics: () => Promise.reject(new Error('an internal secret')) });
    const { code, body } = await send(server, '/metrics');
    expect(code).to.equal(500);
    expect(body).to.not.contain('secret');
    expect(await send(server, '/livez')).to.deep.include({ code: 200 });
  });

  it('collects the metrics once for all requests of one packet, and again for the next', async () => {
    let collections = 0;
    await serve(undefined, {
      metrics: () => {
        collections += 1;
        return sources.metrics();
      },
    });
    const { hostname, port } = new URL(`http://${server.address}`);
    const socket = connect(Number(port), hostname);
    for (const expected of [1, 2]) {
      socket.write('GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(16));
      let received = '';
      for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
        received += String(chunk);
        if (received.split('HTTP/1.1 200 OK').length > 16) break;
      }
      expect(collections).to.equal(expected);
    }
    socket.destroy();
  });

  for (const path of [
    '/',
    '/health',
    '/livez/',
    '//livez',
    '/LIVEZ',
    '/metrics/x',
    '/%6Civez',
    '/../livez',
    '*',
    '/__proto__',
  ]) {
    it(`returns 404 for ${path}`, async () => {
      await serve();
      expect(await send(server, path)).to.deep.include({ code: 404 });
    });
  }

  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE']) {
    it(`rejects ${method} with the allowed methods`, async () => {
      await serve();
      const { code, headers } = await send(server, '/livez', method);
      expect(code).to.equal(405);
      // RFC 9110, section 15.5.6, requires it.
      expect(headers['allow']).to.equal('GET, HEAD');
    });
  }

  it('answers HEAD like GET, without a body', async () => {
    await serve();
    for (const path of ['/livez', '/readyz', '/metrics']) {
      expect(await send(server, path, 'HEAD')).to.deep.include({ code: 200, body: '' });
    }
    expect(await send(server, '/nothing', 'HEAD')).to.deep.include({ code: 404, body: '' });
  });

  it('closes a connection that does not speak HTTP, and serves the next one', async () => {
    await serve();
    const { hostname, port } = new URL(`http://${server.address}`);
    const socket = connect(Number(port), hostname);
    socket.on('error', () => {});
    socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    socket.resume();
    await once(socket, 'close');
    expect(await send(server, '/livez')).to.deep.include({ code: 200 });
  });

  it('answers probes while a client holds any number of connections, which are closed from the oldest on', async () => {
    await serve();
    const probe = await open();
    const held: Socket[] = [];
    // Other tools of the machine, and kubelets, have other addresses than the client.
    for (let count = 0; count < 200; count += 1) {
      const { socket } = await open('127.0.0.2');
      socket.resume();
      held.push(socket);
      if (count % 50 === 0) expect(await send(server, '/livez')).to.deep.include({ code: 200 });
    }
    const [first] = held;
    if (first !== undefined && !first.closed) await once(first, 'close');
    probe.socket.write('GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n');
    const [answer] = (await once(probe.socket, 'data')) as [Buffer];
    expect(String(answer)).to.match(/^HTTP\/1\.1 200 OK/);
    expect(held.at(-1)?.destroyed).to.equal(false);
    for (const socket of [probe.socket, ...held]) socket.destroy();
  });

  for (const { what, bytes } of [
    { what: 'no bytes', bytes: '' },
    { what: 'half a request line', bytes: 'GET /li' },
    { what: 'headers without an end', bytes: 'GET /livez HTTP/1.1\r\nHost: a\r\nx' },
    { what: 'half a body', bytes: 'POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx' },
    { what: 'one request and half of the next', bytes: 'GET /livez HTTP/1.1\r\nHost: a\r\n\r\nGET /' },
  ]) {
    it(`closes a connection with ${what} at its deadline`, async () => {
      await serve(undefined, {}, { requestMs: 50, stalledMs: 600_000, keepAliveMs: 600_000 });
      const { socket, closed } = await open();
      socket.resume();
      if (bytes !== '') socket.write(bytes);
      await closed;
    });
  }

  it('closes an idle connection between two requests', async () => {
    await serve(undefined, {}, { requestMs: 600_000, stalledMs: 600_000, keepAliveMs: 1 });
    const { socket, closed } = await open();
    socket.resume();
    socket.write('GET /livez HTTP/1.1\r\nHost: a\r\n\r\n');
    await closed;
  });

  it('closes a connection whose client does not read the response', async () => {
    const text = 'x'.repeat(32 * 1024 * 1024);
    await serve(
      undefined,
      { metrics: () => Promise.resolve({ contentType: 'text/plain', text }) },
      { requestMs: 600_000, stalledMs: 200, keepAliveMs: 600_000 },
    );
    const accepted = nextAcceptedSocket();
    const { socket } = await open();
    socket.pause();
    const closed = once(await accepted, 'close');
    socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
    await closed;
    socket.destroy();
  });

  it('closes a connection that requests responses faster than it reads them', async () => {
    await serve();
    const { socket, closed } = await open();
    socket.write('GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(1000));
    socket.resume();
    await closed;
    expect(await send(server, '/livez')).to.deep.include({ code: 200 });
  });

  it('rejects headers of more than 16 KiB', async () => {
    await serve();
    const { socket, closed } = await open();
    socket.write(`GET /livez HTTP/1.1\r\nhost: a\r\nx: ${'x'.repeat(17_000)}\r\n\r\n`);
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(String(answer)).to.match(/^HTTP\/1\.1 431 /);
    await closed;
  });

  it('closes open connections, idle or with a partial request, and frees the port', async () => {
    await serve();
    const { hostname, port } = new URL(`http://${server.address}`);
    const closed: Promise<unknown>[] = [];
    for (const bytes of [
      '',
      'GET /livez HTTP/1.1\r\nHost: a\r\n',
      'GET /livez HTTP/1.1\r\nHost: a\r\n\r\n',
    ]) {
      const socket = connect(Number(port), hostname);
      socket.on('error', () => {});
      closed.push(once(socket, 'close'));
      await once(socket, 'connect');
      if (bytes !== '') socket.write(bytes);
      if (bytes.endsWith('\r\n\r\n')) await once(socket, 'data');
      else socket.resume();
    }
    await send(server, '/livez');
    await server.close();
    await Promise.all(closed);
    const other = createServer();
    other.listen(Number(port), hostname);
    await once(other, 'listening');
    other.close();
    await once(other, 'close');
  });

  for (const { what, host, want } of [
    { what: 'a port that is in use', host: '127.0.0.1', want: /EADDRINUSE/ },
    { what: 'an address of another machine', host: '192.0.2.1', want: /EADDRNOTAVAIL/ },
    { what: 'an unknown host name', host: 'no-such-host.invalid', want: /ENOTFOUND|EAI_AGAIN/ },
  ]) {
    it(`fails for ${what}, with one line that names the address and the cause`, async () => {
      await serve();
      const address = `${host}:${new URL(`http://${server.address}`).port}`;
      const failure = await startHttpServer(address, sources).then(
        () => expect.fail('the server listens'),
        (error: unknown) => error,
      );
      expect(failure).to.be.instanceOf(HttpListenError);
      const { message, cause } = failure as HttpListenError;
      expect(message)
        .to.match(/^cannot listen on [^\n\r]+$/)
        .and.contain(`${address}: `)
        .and.match(want);
      expect(cause).to.be.instanceOf(Error);
    });
  }
});
