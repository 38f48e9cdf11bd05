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
import { poll } from '../support/operator-process.ts';

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

async function errorKindOf(call: Promise<unknown>): Promise<string> {
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

describe('API client with a real API server', () => {
  const controlPlane = useControlPlane();
  let namespace: string;
  let token: string;
  let connection: Connection;
  let client: ApiClient;
  let tunnels: ResourceClient<StoredRow>;

  function tunnelsOf(
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
    tunnels = tunnelsOf(client);
  });

  after(() => client?.close());

  it('reads the namespace of the context', () => {
    expect(connection.namespace).to.equal(namespace);
    expect(connection.server.href).to.equal(`${controlPlane().url}/`);
  });

  it('creates an object with its manager name, and rejects a second create', async () => {
    const tunnel = await tunnels.create(manifest('a'));
    expect(tunnel.metadata.managedFields.map(({ manager }) => manager)).to.deep.equal([
      'reverse-tunnel-operator',
    ]);
    expect(await errorKindOf(tunnels.create(manifest('a')))).to.equal('already_exists');
    expect(await tunnels.get('a')).to.deep.equal(tunnel);
  });

  it('patches only the given version', async () => {
    const first = await tunnels.create(manifest('patched'));
    const { resourceVersion } = first.metadata;
    const patch = { metadata: { resourceVersion }, spec: { createdAt: null } };
    const second = await tunnels.patch('patched', patch);
    expect(second.spec.createdAt).to.equal(undefined);
    expect(await errorKindOf(tunnels.patch('patched', patch))).to.equal('conflict');
    expect(
      await errorKindOf(
        tunnels.patchStatus('patched', { metadata: { resourceVersion }, status: { state: 'Unknown' } }),
      ),
    ).to.equal('conflict');
    const third = await tunnels.patchStatus('patched', {
      metadata: { resourceVersion: second.metadata.resourceVersion },
      status: { state: 'Unknown' },
    });
    expect(third.status.state).to.equal('Unknown');
    expect(await errorKindOf(tunnels.patch('missing', patch))).to.equal('not_found');
  });

  it('deletes only the given object and version', async () => {
    const { metadata } = await tunnels.create(manifest('deleted'));
    const otherUid = { ...metadata, uid: '00000000-0000-0000-0000-000000000000' };
    expect(await errorKindOf(tunnels.delete('deleted', otherUid))).to.equal('conflict');
    expect(await errorKindOf(tunnels.delete('deleted', { ...metadata, resourceVersion: '1' }))).to.equal(
      'conflict',
    );
    expect((await tunnels.get('deleted')).metadata.uid).to.equal(metadata.uid);
    expect(await tunnels.delete('deleted', metadata)).to.equal(undefined);
    expect(await errorKindOf(tunnels.delete('deleted', metadata))).to.equal('not_found');
  });

  it('returns the object if its deletion waits for a finalizer', async () => {
    const { metadata } = await tunnels.create(manifest('held', { finalizers: ['example.com/hold'] }));
    const terminating = await tunnels.delete('held', metadata);
    expect(terminating?.metadata.deletionTimestamp).to.be.a('string');
    expect(await errorKindOf(tunnels.create(manifest('held')))).to.equal('already_exists');
    await tunnels.patch('held', { metadata: { finalizers: null } });
    expect(await errorKindOf(tunnels.get('held'))).to.equal('not_found');
  });

  it('lists pages at one version, and a single object by its name', async () => {
    await Promise.all([...Array(7).keys()].map((i) => tunnels.create(manifest(`page-${i}`))));
    const names: string[] = [];
    const versions = new Set<string>();
    let continueToken: string | undefined;
    do {
      const page = await tunnels.list({
        limit: 3,
        ...(continueToken === undefined ? {} : { continueToken }),
      });
      expect(page.items.length).to.be.at.most(3);
      names.push(...page.items.map(({ metadata }) => metadata.name));
      versions.add(page.resourceVersion);
      ({ continueToken } = page);
    } while (continueToken !== undefined);
    expect(names).to.include.members([...Array(7).keys()].map((i) => `page-${i}`));
    expect(versions.size).to.equal(1);
    const { items } = await tunnels.list({ fieldSelector: 'metadata.name=page-3' });
    expect(items.map(({ metadata }) => metadata.name)).to.deep.equal(['page-3']);
  });

  it('distinguishes missing objects from rejected requests', async () => {
    expect(await errorKindOf(tunnelsOf(client, namespace, 'nothings').list())).to.equal('rejected');
    const admin = clientBy(
      await resolveConnection({ kubeconfig: controlPlane().kubeconfigPath, env: {}, clock: systemClock }),
    );
    expect(await errorKindOf(tunnelsOf(admin, namespace, 'nothings').list())).to.equal('no_kind_match');
    expect(await errorKindOf(tunnelsOf(admin, 'no-such-namespace').create(manifest('a')))).to.equal(
      'namespace_not_found',
    );
    expect(await errorKindOf(tunnelsOf(client, 'default').list())).to.equal('rejected');
    expect(
      await errorKindOf(tunnels.create({ ...manifest('invalid'), spec: { ...TUNNEL_SPEC, tunnelName: '' } })),
    ).to.equal('rejected');
    expect(await errorKindOf(tunnels.list({ continueToken: 'nonsense' }))).to.equal('rejected');
    await admin.close();
  });

  it('returns the whole message of an admission policy, without an empty field name', async () => {
    const name = `${namespace}-tunnels-need-a-team.policies.example.com`;
    const denied = 'tunnels of tenant acme need the label team; ask the platform team for one';
    for (const [kind, spec] of [
      [
        'ValidatingAdmissionPolicy',
        {
          matchConstraints: {
            resourceRules: [
              {
                apiGroups: ['reverse-tunnel.io'],
                apiVersions: ['*'],
                operations: ['CREATE'],
                resources: ['reversetunnels'],
              },
            ],
          },
          validations: [{ expression: "!object.metadata.name.startsWith('denied-')", message: denied }],
        },
      ],
      [
        'ValidatingAdmissionPolicyBinding',
        {
          policyName: name,
          validationActions: ['Deny'],
          matchResources: {
            namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
          },
        },
      ],
    ] as const) {
      const policy = { apiVersion: 'admissionregistration.k8s.io/v1', kind, metadata: { name }, spec };
      const { code, stderr } = await controlPlane().kubectl(['create', '-f', '-'], {
        input: JSON.stringify(policy),
      });
      expect(code, stderr).to.equal(0);
    }
    let attempts = 0;
    const error = await poll(30_000, async () => {
      attempts += 1;
      return await tunnels.create(manifest(`denied-${attempts}`)).then(
        () => undefined,
        (thrown: unknown) => thrown as ApiError,
      );
    });
    expect(error.message).to.equal(
      `create reversetunnels.reverse-tunnel.io in ${namespace} denied-${attempts}: 422 Invalid: ` +
        `ValidatingAdmissionPolicy '${name}' with binding '${name}' denied request: ${denied}`,
    );
  });

  it('creates and deletes hundreds of objects within the connection limit', async () => {
    const many = clientBy(connection);
    const manyTunnels = tunnelsOf(many);
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < 300) {
        const name = `many-${next}`;
        next += 1;
        await manyTunnels.delete(name, (await manyTunnels.create(manifest(name))).metadata);
      }
    };
    await Promise.all(Array.from({ length: 2 * CONNECTIONS }, worker));
    expect(many.connectionsOpened()).to.be.at.most(CONNECTIONS);
    await many.close();
  });

  describe('with changing credentials', () => {
    let directory: string;

    beforeEach(async () => {
      directory = await mkdtemp(join(tmpdir(), 'service-account-'));
      await writeFile(join(directory, 'token'), token);
      await writeFile(join(directory, 'ca.crt'), controlPlane().caData);
    });

    afterEach(() => rm(directory, { recursive: true }));

    function inCluster(): Promise<Connection> {
      const { hostname, port } = new URL(controlPlane().url);
      return resolveConnection({
        kubeconfig: undefined,
        env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
        clock: systemClock,
        serviceAccountDirectory: directory,
      });
    }

    it('rejects a server that the CA has not signed until the CA is replaced', async () => {
      await writeFile(join(directory, 'ca.crt'), rootCertificates[0] ?? '');
      const rotating = clientBy(await inCluster());
      const call = tunnelsOf(rotating).list();
      await call.catch((error: ApiError) =>
        expect(error.message).to.contain('TLS: ').and.to.contain('list reversetunnels'),
      );
      expect(await errorKindOf(call)).to.equal('unavailable');
      expect(rotating.connectionsOpened()).to.equal(0);
      await rotating.close();

      const before = clientBy(await inCluster());
      await writeFile(join(directory, 'ca.crt'), controlPlane().caData);
      expect(await errorKindOf(tunnelsOf(before).list())).to.equal('unavailable');
      expect(await errorKindOf(tunnelsOf(before).list()), 'reloaded after the failure').to.equal('none');
      await before.close();
    });

    it('continues after the token was replaced and is unauthorized with an invalid one', async () => {
      await writeFile(join(directory, 'token'), 'invalid');
      const rotating = clientBy(await inCluster());
      await writeFile(join(directory, 'token'), token);
      expect(await errorKindOf(tunnelsOf(rotating).list())).to.equal('none');
      await rotating.close();
      await writeFile(join(directory, 'token'), 'invalid');
      const invalid = clientBy(await inCluster());
      expect(await errorKindOf(tunnelsOf(invalid).list())).to.equal('unauthorized');
      await invalid.close();
    });
  });

  describe('with a proxy', () => {
    let proxy: Server;
    let proxyUrl: string;
    let tunnels: string[];
    let isRejecting: boolean;

    beforeEach(async () => {
      tunnels = [];
      isRejecting = false;
      proxy = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.once('data', (head) => {
          const [line = ''] = head.toString('latin1').split('\r\n');
          tunnels.push(line);
          if (isRejecting) {
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

    it('reuses its tunnels to the API server and verifies the certificate', async () => {
      const proxied = clientBy({ ...connection, proxyUrl });
      for (let i = 0; i < 20; i += 1) await tunnelsOf(proxied).list({ limit: 1 });
      expect(tunnels.length).to.be.within(1, CONNECTIONS);
      expect(new Set(tunnels)).to.deep.equal(
        new Set([`CONNECT ${new URL(controlPlane().url).host} HTTP/1.1`]),
      );
      expect(proxied.connectionsOpened()).to.equal(tunnels.length);
      await proxied.close();
    });

    it('classifies a proxy that resets connections as unavailable and recovers with it', async () => {
      const proxied = clientBy({ ...connection, proxyUrl });
      isRejecting = true;
      expect(await errorKindOf(tunnelsOf(proxied).list())).to.equal('unavailable');
      isRejecting = false;
      expect(await errorKindOf(tunnelsOf(proxied).list())).to.equal('none');
      await proxied.close();
    });
  });
});
