import { expect } from 'chai';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import { reporterIdentity } from '../../src/grpc/reporter-identity.ts';
import { TlsAcceptor } from '../../src/grpc/tls-acceptor.ts';
import { dialReportingService } from '../../src/grpc/reporting-client.ts';
import { createApiClient } from '../../src/k8s/client.ts';
import type { ApiObject } from '../../src/k8s/resource-client.ts';
import { createCertificateAuthority, type IssuedCertificate } from '../../control-plane/certificates.ts';
import { peerCredentials } from '../support/tls-fixtures.ts';
import { startTestServer } from '../support/reporting-server.ts';
import { fullPush } from '../support/wire.ts';

const NODE = { id: 'responder-0', cluster: 'edge' };

describe('The trust rule', () => {
  const root = createCertificateAuthority('root');
  const intermediate = root.issueAuthority();
  const expiredRoot = createCertificateAuthority('expired root', Date.now() - 60_000);
  const expiredIntermediate = expiredRoot.issueAuthority();
  const other = createCertificateAuthority('other root');
  const names = { addresses: ['127.0.0.1'], uris: ['spiffe://example.com/envoy/responder-0'] };
  const leaf = intermediate.issue(names);
  const expiredLeaf = expiredIntermediate.issue(names);

  /** As in Go, each certificate in the bundle that is valid is a trust anchor. */
  const table: readonly {
    readonly bundle: string;
    readonly ca: string;
    readonly chain: IssuedCertificate;
    readonly sent: 'leaf' | 'leaf and intermediate';
    readonly trusted: boolean;
  }[] = [
    { bundle: 'the root', ca: root.ca, chain: leaf, sent: 'leaf', trusted: false },
    { bundle: 'the root', ca: root.ca, chain: leaf, sent: 'leaf and intermediate', trusted: true },
    { bundle: 'the intermediate', ca: intermediate.ca, chain: leaf, sent: 'leaf', trusted: true },
    {
      bundle: 'the intermediate',
      ca: intermediate.ca,
      chain: leaf,
      sent: 'leaf and intermediate',
      trusted: true,
    },
    { bundle: 'both', ca: intermediate.ca + root.ca, chain: leaf, sent: 'leaf', trusted: true },
    {
      bundle: 'both',
      ca: root.ca + intermediate.ca,
      chain: leaf,
      sent: 'leaf and intermediate',
      trusted: true,
    },
    {
      bundle: 'a valid intermediate and its expired root',
      ca: expiredIntermediate.ca + expiredRoot.ca,
      chain: expiredLeaf,
      sent: 'leaf',
      trusted: true,
    },
    {
      bundle: 'an expired root',
      ca: expiredRoot.ca,
      chain: expiredLeaf,
      sent: 'leaf and intermediate',
      trusted: false,
    },
    { bundle: 'another root', ca: other.ca, chain: leaf, sent: 'leaf and intermediate', trusted: false },
    { bundle: 'the leaf itself', ca: leaf.cert, chain: leaf, sent: 'leaf', trusted: true },
  ];

  function chainOf({ chain, sent }: (typeof table)[number]): string {
    const issuer = chain === leaf ? intermediate : expiredIntermediate;
    return sent === 'leaf' ? chain.cert : chain.cert + issuer.ca;
  }

  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tls-trust-'));
  });
  after(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  /** Returns whether a reporter that trusts `ca` gets a response of the service at `address`. */
  async function isTrusted(address: string, ca: string, serverName?: string): Promise<boolean> {
    const caFile = join(folder, 'ca.pem');
    await writeFile(caFile, ca);
    const files = { certFile: undefined, keyFile: undefined, tokenFile: undefined };
    const identity = reporterIdentity({ caFile, serverName, ...files });
    const connection = dialReportingService({ address, ...(identity === undefined ? {} : { identity }) });
    const trusted = await new Promise<boolean>((resolve) => {
      const report = { node: NODE, added: [], removedNames: [], fullPush: true, nonce: 1n };
      connection.openStream({ onResponse: () => resolve(true), onEnd: () => resolve(false) }).send(report);
    });
    connection.close();
    return trusted;
  }

  for (const row of table) {
    const verb = row.trusted ? 'accepts' : 'rejects';
    const title = `with ${row.bundle} as bundle, where the peer sends ${row.sent}`;

    it(`of the API client ${verb} a server ${title}`, async () => {
      const server = createHttpsServer({ cert: chainOf(row), key: row.chain.key }, (_, response) => {
        response.setHeader('content-type', 'application/json');
        response.end('{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"1"}}');
      });
      server.on('tlsClientError', () => undefined);
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const client = createApiClient({
        connection: {
          server: new URL(`https://127.0.0.1:${(server.address() as AddressInfo).port}`),
          proxyUrl: undefined,
          namespace: undefined,
          source: 'test',
          credentials: {
            current: () => ({ ca: row.ca, authorization: 'Bearer token' }),
            refresh: () => Promise.resolve(),
          },
        },
        clock: systemClock,
        userAgent: 'test',
        connections: 1,
        onRequest() {},
      });
      const pods = client.resource<ApiObject>({
        group: '',
        version: 'v1',
        plural: 'pods',
        namespace: 'default',
      });
      const trusted = await pods.get('a').then(
        () => true,
        () => false,
      );
      await client.close();
      server.closeAllConnections();
      server.close();
      expect(trusted).to.equal(row.trusted);
    });

    it(`of the reporting service ${verb} a client ${title}`, async () => {
      const serverCertificate = root.issue({ addresses: ['127.0.0.1'], usage: 'server' });
      const server = await startTestServer({
        auth: {
          mode: 'mtls',
          tls: new TlsAcceptor({ ...serverCertificate, clientCa: row.ca }, 'required'),
        },
      });
      const stream = server.open(peerCredentials(root, { cert: chainOf(row), key: row.chain.key }));
      stream.send({ node: NODE, nonce: 1, ...fullPush(1) });
      const trusted = await stream.next().then(
        () => true,
        () => false,
      );
      await server.stop();
      expect(trusted).to.equal(row.trusted);
    });

    it(`of a reporter ${verb} a service ${title}`, async () => {
      const server = await startTestServer({
        auth: {
          mode: 'insecure',
          tls: new TlsAcceptor({ cert: chainOf(row), key: row.chain.key, clientCa: undefined }, 'none'),
        },
      });
      const trusted = await isTrusted(server.address, row.ca);
      await server.stop();
      expect(trusted).to.equal(row.trusted);
    });
  }

  const certificateNames: readonly {
    certificate: string;
    serverName: string | undefined;
    trusted: boolean;
  }[] = [
    { certificate: '127.0.0.1', serverName: undefined, trusted: true },
    { certificate: '127.0.0.2', serverName: undefined, trusted: false },
    { certificate: '127.0.0.2', serverName: '127.0.0.2', trusted: true },
    { certificate: '127.0.0.1', serverName: '127.0.0.2', trusted: false },
    { certificate: '127.0.0.1', serverName: 'reporting.example', trusted: false },
  ];
  for (const { certificate, serverName, trusted } of certificateNames) {
    const verb = trusted ? 'accepts' : 'rejects';
    const expected = serverName ?? 'the address 127.0.0.1';
    it(`of a reporter ${verb} a certificate for ${certificate} where it expects ${expected}`, async () => {
      const { cert, key } = root.issue({ addresses: [certificate], usage: 'server' });
      const tls = new TlsAcceptor({ cert, key, clientCa: undefined }, 'none');
      const server = await startTestServer({ auth: { mode: 'insecure', tls } });
      const result = await isTrusted(server.address, root.ca, serverName);
      await server.stop();
      expect(result).to.equal(trusted);
    });
  }
});
