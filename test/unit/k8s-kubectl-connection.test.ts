import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { resolveKubectlConnection } from '../../src/k8s/kubectl-connection.ts';
import type { KubeconfigOverrides } from '../../src/k8s/kubeconfig-merge.ts';
import { FakeClock } from '../support/fake-clock.ts';

const CA = '-----BEGIN CERTIFICATE-----\nQ0E=\n-----END CERTIFICATE-----\n';
const CA2 = CA.replace('Q0E=', 'Q0Ey');

/** A real kubectl cannot be given another mount path; its rules are those of client-go's `DeferredLoadingClientConfig`. */
describe('connection of kubectl rt in a pod', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'kubectl-connection-'));
    for (const [name, text] of [
      ['token', 'of-the-pod\n'],
      ['ca.crt', CA],
      ['namespace', 'of-the-pod\n'],
    ] as const)
      await write(`serviceaccount/${name}`, text);
    await write('ca2.crt', CA2);
  });

  afterEach(() => rm(directory, { recursive: true }));

  async function write(name: string, text: string): Promise<string> {
    const path = join(directory, name);
    await mkdir(join(path, '..'), { recursive: true });
    await writeFile(path, text);
    return path;
  }

  function kubeconfig(context: object = {}, cluster: object = { server: 'https://k.test' }): string {
    return JSON.stringify({
      'current-context': 'x',
      clusters: [{ name: 'c', cluster }],
      users: [{ name: 'u', user: { token: 'of-the-file' } }],
      contexts: [{ name: 'x', context: { cluster: 'c', user: 'u', ...context } }],
    });
  }

  interface Case {
    readonly title: string;
    readonly files?: Record<string, string>;
    readonly overrides?: KubeconfigOverrides;
    readonly env?: Record<string, string>;
    readonly expected: Record<string, unknown>;
  }

  const POD = { server: 'https://10.96.0.1/', authorization: 'Bearer of-the-pod', namespace: 'of-the-pod' };
  const FILE = { server: 'https://k.test/', authorization: 'Bearer of-the-file', namespace: 'of-the-pod' };
  const cases: readonly Case[] = [
    { title: 'is in-cluster without a kubeconfig', expected: { ...POD, ca: CA } },
    { title: 'is that of KUBECONFIG', files: { k: kubeconfig() }, env: { KUBECONFIG: 'k' }, expected: FILE },
    { title: 'is that of ~/.kube/config', files: { '.kube/config': kubeconfig() }, expected: FILE },
    {
      title: 'has the namespace of the context',
      files: { k: kubeconfig({ namespace: 'default' }) },
      env: { KUBECONFIG: 'k' },
      expected: { ...FILE, namespace: 'default' },
    },
    {
      title: 'is in-cluster if the files in KUBECONFIG are missing',
      env: { KUBECONFIG: 'none' },
      expected: POD,
    },
    {
      title: 'is in-cluster if the kubeconfig is empty',
      files: { '.kube/config': '' },
      env: {},
      expected: POD,
    },
    {
      title: 'is in-cluster if the current context has no server',
      files: { k: kubeconfig({}, {}) },
      env: { KUBECONFIG: 'k' },
      expected: POD,
    },
    {
      title: 'has the namespace in POD_NAMESPACE',
      env: { POD_NAMESPACE: 'downward' },
      expected: { ...POD, namespace: 'downward' },
    },
    {
      title: 'has the token of --token',
      overrides: { userFields: { token: 'flag' } },
      expected: { ...POD, authorization: 'Bearer flag' },
    },
    {
      title: 'has the CA of --certificate-authority',
      overrides: { clusterFields: { 'certificate-authority': 'ca2.crt' } },
      expected: { ...POD, ca: CA2 },
    },
    {
      title: 'is that of --server',
      overrides: { clusterFields: { server: 'https://s.test' }, userFields: { token: 'flag' } },
      expected: { server: 'https://s.test/', authorization: 'Bearer flag', namespace: 'of-the-pod' },
    },
    {
      title: 'impersonates the account of --as',
      overrides: { userFields: { as: 'bob', 'as-groups': ['g'] } },
      expected: { ...POD, impersonated: 'bob' },
    },
    {
      title: 'uses the proxy of the environment',
      env: { HTTPS_PROXY: 'http://p:1' },
      expected: { ...POD, proxyUrl: 'http://p:1' },
    },
    {
      title: 'prefers the service account to KUBERNETES_MASTER',
      env: { KUBERNETES_MASTER: 'http://m.test' },
      expected: POD,
    },
  ];
  for (const { title, files = {}, overrides = {}, env = {}, expected } of cases) {
    it(title, async () => {
      for (const [name, text] of Object.entries(files)) await write(name, text);
      const path = overrides.clusterFields?.['certificate-authority'];
      const connection = await resolveKubectlConnection({
        kubeconfig: undefined,
        overrides:
          typeof path === 'string'
            ? { ...overrides, clusterFields: { 'certificate-authority': join(directory, path) } }
            : overrides,
        env: {
          HOME: directory,
          KUBERNETES_SERVICE_HOST: '10.96.0.1',
          KUBERNETES_SERVICE_PORT: '443',
          ...env,
          ...('KUBECONFIG' in env ? { KUBECONFIG: join(directory, env['KUBECONFIG'] ?? '') } : {}),
        },
        clock: new FakeClock(0),
        askForCredentials: undefined,
        serviceAccountDirectory: join(directory, 'serviceaccount'),
      });
      const credentials = await connection.credentials.current();
      expect({
        server: connection.server.href,
        namespace: connection.namespace,
        proxyUrl: connection.proxyUrl,
        impersonated: credentials.impersonation?.user,
        ca: credentials.ca,
        authorization: credentials.authorization,
      }).to.deep.include(expected);
    });
  }
});
