/** The API client with invalid certificates and ports that do not speak TLS or HTTP. */
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { expect } from 'chai';
import { systemClock } from '../../src/clock.ts';
import type { ApiObject, ResourceClient } from '../../src/k8s/resource-client.ts';
import { createApiClient, type ApiClient } from '../../src/k8s/client.ts';
import type { Credentials } from '../../src/k8s/credentials.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { expectApiError } from '../support/expect-api-error.ts';
import { eventually } from '../support/eventually.ts';
import * as answers from '../support/recorded-responses.ts';

const GET_A = 'get pods in default a';

async function listen(server: Server, host: string): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}

describe('API client over TLS', () => {
  const authority = createCertificateAuthority();
  let server: HttpsServer;
  let client: ApiClient | undefined;
  let credentials: Credentials;
  let renewed: Credentials;

  beforeEach(() => {
    const certificate = authority.issue({ dnsNames: ['api.test'], addresses: ['127.0.0.1'] });
    server = createHttpsServer(
      { ...certificate, requestCert: true, rejectUnauthorized: false, ca: authority.ca },
      (request, response) => {
        expect(request.headers.authorization).to.equal('Bearer good');
        response.end(answers.okResponse('a', '5').body);
      },
    );
    server.on('tlsClientError', () => undefined);
    credentials = { ca: authority.ca, authorization: 'Bearer good' };
    renewed = credentials;
  });

  afterEach(async () => {
    await client?.close();
    client = undefined;
    server.closeAllConnections();
    server.close();
  });

  function podsOf(url: string, proxyUrl?: string): ResourceClient<ApiObject> {
    client = createApiClient({
      connection: {
        server: new URL(url),
        proxyUrl,
        namespace: undefined,
        source: 'test',
        credentials: {
          current: () => credentials,
          refresh: () => {
            credentials = renewed;
            return Promise.resolve();
          },
        },
      },
      clock: systemClock,
      userAgent: 'test/1',
      connections: 2,
    });
    return client.resource<ApiObject>({ group: '', version: 'v1', plural: 'pods', namespace: 'default' });
  }

  it('reloads a certificate and a key that do not match because they were read during a rotation', async () => {
    const [first, second] = [authority.issue({ usage: 'client' }), authority.issue({ usage: 'client' })];
    credentials = { ...credentials, cert: first.cert, key: second.key };
    renewed = { ...credentials, cert: second.cert };
    const pods = podsOf(`https://127.0.0.1:${await listen(server, '127.0.0.1')}`);
    const error = await expectApiError(pods.get('a'));
    expect(error.kind).to.equal('unavailable');
    expect(error.message).to.match(new RegExp(`^${GET_A}: TLS: key values mismatch \\(ERR_OSSL_`));
    expect((await pods.get('a')).metadata.name).to.equal('a');
  });

  it('serves calls again once a rotation is undone whose certificate and key did not match', async () => {
    const [first, second] = [authority.issue({ usage: 'client' }), authority.issue({ usage: 'client' })];
    const good = { ...credentials, ...first };
    const mismatched = { ...good, key: second.key };
    credentials = good;
    const pods = podsOf(`https://127.0.0.1:${await listen(server, '127.0.0.1')}`);
    expect((await pods.get('a')).metadata.name).to.equal('a');
    credentials = mismatched;
    renewed = mismatched;
    expect((await expectApiError(pods.get('a'))).message).to.contain('key values mismatch');
    credentials = good;
    expect((await pods.get('a')).metadata.name).to.equal('a');
  });

  it('sends nothing to a server whose certificate has expired or has another name', async () => {
    for (const [certificate, cause] of [
      [
        authority.issue({ addresses: ['127.0.0.1'], notAfterMs: Date.now() - 1_000 }),
        'certificate has expired',
      ],
      [authority.issue({ dnsNames: ['other.test'] }), "IP: 127.0.0.1 is not in the cert's list"],
    ] as const) {
      server.setSecureContext(certificate);
      if (!server.listening) await listen(server, '127.0.0.1');
      const pods = podsOf(`https://127.0.0.1:${(server.address() as AddressInfo).port}`);
      const { message } = await expectApiError(pods.get('a'));
      expect(message)
        .to.match(new RegExp(`^${GET_A}: TLS: `))
        .and.to.contain(cause);
      await client?.close();
    }
  });

  it('connects to an IPv6 address whose certificate has the name in tls-server-name', async () => {
    credentials = { ...credentials, serverName: 'api.test' };
    const port = await listen(server, '::1');
    expect((await podsOf(`https://[::1]:${port}`).get('a')).metadata.name).to.equal('a');
    await client?.close();
    credentials = { ...credentials, serverName: undefined };
    const { message } = await expectApiError(podsOf(`https://[::1]:${port}`).get('a'));
    expect(message).to.match(/TLS: .*::1/);
  });

  it('describes a port that does not speak TLS or HTTP', async () => {
    const plain = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end('HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n');
    });
    const pods = podsOf(`https://127.0.0.1:${await listen(plain, '127.0.0.1')}`);
    expect((await expectApiError(pods.get('a'))).message).to.match(
      /: TLS: .*(wrong version number|packet length too long)/,
    );
    plain.close();
  });

  it('times out on a proxy that accepts CONNECT and never answers, and frees its connection', async () => {
    const taken: Socket[] = [];
    const silent = createServer((socket) => {
      socket.on('error', () => undefined).resume();
      taken.push(socket);
    });
    try {
      const proxyPort = await listen(silent, '127.0.0.1');
      const pods = podsOf('https://127.0.0.1:6443', `http://127.0.0.1:${proxyPort}`);
      // Both connections of the pool, and one call that waits for a connection.
      const calls = await Promise.all(
        ['a', 'b', 'c'].map((name) => expectApiError(pods.get(name, { timeoutMs: 2000 }))),
      );
      expect(calls.map(({ message }) => message)).to.include(`${GET_A}: no response within 2 s`);
      expect(taken).to.have.length(2);
      const open = (): Promise<number> =>
        new Promise((resolve) => {
          silent.getConnections((_error, count) => resolve(count));
        });
      // undici's own timeout for CONNECT is five minutes; here it is 10 s, and undici may retry for the waiting call.
      await eventually('free connections', async () => (await open()) === 0, 60_000);
    } finally {
      silent.close();
      for (const socket of taken) socket.destroy();
    }
  });
});
