import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, connect, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { expect } from 'chai';
import { systemClock } from '../../src/clock.ts';
import { ApiError } from '../../src/k8s/api-error.ts';
import { createApiClient, type ApiClient } from '../../src/k8s/client.ts';
import { type Connection, resolveConnection } from '../../src/k8s/connection.ts';
import type { ResourceClient } from '../../src/k8s/resource-client.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { TUNNEL_SPEC } from '../support/crd-objects.ts';

const CONNECTIONS = 8;
const RULES = [
  {
    apiGroups: ['reverse-tunnel.io'],
    resources: ['reversetunnels'],
    verbs: ['list', 'watch', 'create', 'patch', 'delete', 'get'],
  },
  { apiGroups: ['reverse-tunnel.io'], resources: ['reversetunnels/status'], verbs: ['patch'] },
];

interface StoredRow {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly managedFields: readonly { readonly manager: string }[];
    readonly finalizers?: readonly string[];
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly createdAt?: string };
  readonly status: { readonly state: string };
}

function manifest(name: string, metadata: object = {}): object {
  return {
    apiVersion: 'reverse-tunnel.io/v1alpha1',
    kind: 'ReverseTunnel',
    metadata: { name, ...metadata },
    spec: TUNNEL_SPEC,
  };
}

async function consequenceOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return 'none';
  } catch (error) {
    expect(error).to.be.instanceOf(ApiError);
    return (error as ApiError).kind;
  }
}

function clientBy(by: Connection): ApiClient {
  return createApiClient({
    connection: by,
    clock: systemClock,
    userAgent: 'reverse-tunnel-operator/1.2.3',
    connections: CONNECTIONS,
  });
}

describe('client against a real API server', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let token: string;
  let connection: Connection;
  let client: ApiClient;
  let rows: ResourceClient<StoredRow>;

  function rowsOf(
    ofClient: ApiClient,
    inNamespace = namespace,
    plural = 'reversetunnels',
  ): ResourceClient<StoredRow> {
    return ofClient.resource({
      group: 'reverse-tunnel.io',
      version: 'v1alpha1',
      plural,
      namespace: inNamespace,
    });
  }

  before(async () => {
    namespace = await createNamespace(controlPlane(), 'client');
    const account = await controlPlane().kubeconfigFor({
      namespace,
      serviceAccount: 'operator',
      rules: RULES,
    });
    token = account.token;
    connection = await resolveConnection({ kubeconfig: account.kubeconfigPath, env: {}, clock: systemClock });
    client = clientBy(connection);
    rows = rowsOf(client);
  });

  after(() => client?.close());

  it('knows the namespace of the context', () => {
    expect(connection.namespace).to.equal(namespace);
    expect(connection.server.href).to.equal(`${controlPlane().url}/`);
  });

  it('creates a row under its own name as manager, and not twice', async () => {
    const row = await rows.create(manifest('a'));
    expect(row.metadata.managedFields.map(({ manager }) => manager)).to.deep.equal([
      'reverse-tunnel-operator',
    ]);
    expect(await consequenceOf(rows.create(manifest('a')))).to.equal('already_exists');
    expect(await rows.get('a')).to.deep.equal(row);
  });

  it('patches only the version that it means', async () => {
    const first = await rows.create(manifest('patched'));
    const { resourceVersion } = first.metadata;
    const patch = { metadata: { resourceVersion }, spec: { createdAt: null } };
    const second = await rows.patch('patched', patch);
    expect(second.spec.createdAt).to.equal(undefined);
    expect(await consequenceOf(rows.patch('patched', patch))).to.equal('conflict');
    expect(
      await consequenceOf(
        rows.patchStatus('patched', { metadata: { resourceVersion }, status: { state: 'Unknown' } }),
      ),
    ).to.equal('conflict');
    const third = await rows.patchStatus('patched', {
      metadata: { resourceVersion: second.metadata.resourceVersion },
      status: { state: 'Unknown' },
    });
    expect(third.status.state).to.equal('Unknown');
    expect(await consequenceOf(rows.patch('nobody', patch))).to.equal('not_found');
  });

  it('deletes only the row and the version that it means', async () => {
    const { metadata } = await rows.create(manifest('deleted'));
    const otherUid = { ...metadata, uid: '00000000-0000-0000-0000-000000000000' };
    expect(await consequenceOf(rows.delete('deleted', otherUid))).to.equal('conflict');
    expect(await consequenceOf(rows.delete('deleted', { ...metadata, resourceVersion: '1' }))).to.equal(
      'conflict',
    );
    expect((await rows.get('deleted')).metadata.uid).to.equal(metadata.uid);
    expect(await rows.delete('deleted', metadata)).to.equal(undefined);
    expect(await consequenceOf(rows.delete('deleted', metadata))).to.equal('not_found');
  });

  it('says so when a deleted row stands until a finalizer is gone', async () => {
    const { metadata } = await rows.create(manifest('held', { finalizers: ['example.com/hold'] }));
    const standing = await rows.delete('held', metadata);
    expect(standing?.metadata.deletionTimestamp).to.be.a('string');
    expect(await consequenceOf(rows.create(manifest('held')))).to.equal('already_exists');
    await rows.patch('held', { metadata: { finalizers: null } });
    expect(await consequenceOf(rows.get('held'))).to.equal('not_found');
  });

  it('lists by pages at one version, and one row by its name', async () => {
    await Promise.all([...Array(7).keys()].map((i) => rows.create(manifest(`page-${i}`))));
    const names: string[] = [];
    const versions = new Set<string>();
    let continueToken: string | undefined;
    do {
      const page = await rows.list({ limit: 3, ...(continueToken === undefined ? {} : { continueToken }) });
      expect(page.items.length).to.be.at.most(3);
      names.push(...page.items.map(({ metadata }) => metadata.name));
      versions.add(page.resourceVersion);
      ({ continueToken } = page);
    } while (continueToken !== undefined);
    expect(names).to.include.members([...Array(7).keys()].map((i) => `page-${i}`));
    expect(versions.size).to.equal(1);
    const { items } = await rows.list({ fieldSelector: 'metadata.name=page-3' });
    expect(items.map(({ metadata }) => metadata.name)).to.deep.equal(['page-3']);
  });

  it('tells what is missing from what is refused', async () => {
    expect(await consequenceOf(rowsOf(client, namespace, 'nothings').list())).to.equal('rejected');
    const admin = clientBy(
      await resolveConnection({ kubeconfig: controlPlane().kubeconfigPath, env: {}, clock: systemClock }),
    );
    expect(await consequenceOf(rowsOf(admin, namespace, 'nothings').list())).to.equal('no_kind_match');
    expect(await consequenceOf(rowsOf(admin, 'no-such-namespace').create(manifest('a')))).to.equal(
      'namespace_not_found',
    );
    expect(await consequenceOf(rowsOf(client, 'default').list())).to.equal('rejected');
    expect(
      await consequenceOf(rows.create({ ...manifest('invalid'), spec: { ...TUNNEL_SPEC, tunnelName: '' } })),
    ).to.equal('rejected');
    expect(await consequenceOf(rows.list({ continueToken: 'nonsense' }))).to.equal('rejected');
    await admin.close();
  });

  it('writes and deletes by the hundred over the connections that it may have', async () => {
    const many = clientBy(connection);
    const manyRows = rowsOf(many);
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < 300) {
        const name = `many-${next}`;
        next += 1;
        await manyRows.delete(name, (await manyRows.create(manifest(name))).metadata);
      }
    };
    await Promise.all(Array.from({ length: 2 * CONNECTIONS }, worker));
    expect(many.connectionsOpened()).to.be.at.most(CONNECTIONS);
    await many.close();
  });

  describe('with credentials that change', () => {
    let folder: string;

    beforeEach(async () => {
      folder = await mkdtemp(join(tmpdir(), 'service-account-'));
      await writeFile(join(folder, 'token'), token);
      await writeFile(join(folder, 'ca.crt'), controlPlane().caData);
    });

    afterEach(() => rm(folder, { recursive: true }));

    function inCluster(): Promise<Connection> {
      const { hostname, port } = new URL(controlPlane().url);
      return resolveConnection({
        kubeconfig: undefined,
        env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
        clock: systemClock,
        serviceAccountDirectory: folder,
      });
    }

    it('does not talk to a server that the CA has not signed for, and does once the CA is replaced', async () => {
      await writeFile(join(folder, 'ca.crt'), rootCertificates[0] ?? '');
      const rotating = clientBy(await inCluster());
      const call = rowsOf(rotating).list();
      await call.catch((error: ApiError) =>
        expect(error.message).to.contain('TLS: ').and.to.contain('list reversetunnels'),
      );
      expect(await consequenceOf(call)).to.equal('unavailable');
      expect(rotating.connectionsOpened()).to.equal(0);
      await rotating.close();

      const before = clientBy(await inCluster());
      await writeFile(join(folder, 'ca.crt'), controlPlane().caData);
      expect(await consequenceOf(rowsOf(before).list())).to.equal('unavailable');
      expect(await consequenceOf(rowsOf(before).list()), 'it was read again after the failure').to.equal(
        'none',
      );
      await before.close();
    });

    it('goes on when its token was replaced, and is unauthorized while it has a wrong one', async () => {
      await writeFile(join(folder, 'token'), 'wrong');
      const rotating = clientBy(await inCluster());
      await writeFile(join(folder, 'token'), token);
      expect(await consequenceOf(rowsOf(rotating).list())).to.equal('none');
      await rotating.close();
      await writeFile(join(folder, 'token'), 'wrong');
      const wrong = clientBy(await inCluster());
      expect(await consequenceOf(rowsOf(wrong).list())).to.equal('unauthorized');
      await wrong.close();
    });
  });

  describe('through a proxy', () => {
    let proxy: Server;
    let proxyUrl: string;
    let tunnels: string[];
    let refuse: boolean;

    beforeEach(async () => {
      tunnels = [];
      refuse = false;
      proxy = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', (head) => {
          const [line = ''] = head.toString('latin1').split('\r\n');
          tunnels.push(line);
          if (refuse) {
            socket.resetAndDestroy();
            return;
          }
          const { hostname, port } = new URL(controlPlane().url);
          const upstream = connect(Number(port), hostname, () => {
            socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
            socket.pipe(upstream).pipe(socket);
          });
          upstream.on('error', () => socket.destroy());
          socket.on('close', () => upstream.destroy());
        });
      });
      await new Promise<void>((resolve) => {
        proxy.listen(0, '127.0.0.1', resolve);
      });
      proxyUrl = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    });

    afterEach(
      () =>
        new Promise((resolve) => {
          proxy.close(resolve);
        }),
    );

    it('reaches the API server, whose certificate it checks as before, by tunnels that are kept', async () => {
      const proxied = clientBy({ ...connection, proxyUrl });
      for (let i = 0; i < 20; i += 1) await rowsOf(proxied).list({ limit: 1 });
      expect(tunnels.length).to.be.within(1, CONNECTIONS);
      expect(new Set(tunnels)).to.deep.equal(
        new Set([`CONNECT ${new URL(controlPlane().url).host} HTTP/1.1`]),
      );
      expect(proxied.connectionsOpened()).to.equal(tunnels.length);
      await proxied.close();
    });

    it('takes a proxy that resets for unavailable, and goes on when it works again', async () => {
      const proxied = clientBy({ ...connection, proxyUrl });
      refuse = true;
      expect(await consequenceOf(rowsOf(proxied).list())).to.equal('unavailable');
      refuse = false;
      expect(await consequenceOf(rowsOf(proxied).list())).to.equal('none');
      await proxied.close();
    });
  });
});
