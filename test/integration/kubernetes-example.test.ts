import { expect } from 'chai';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { reservePorts } from '../../control-plane/ports.ts';
import { substituteBootstrap, substituteExample, validateBootstrap } from '../../envoy/bootstrap.ts';
import { startEnvoy } from '../../envoy/process.ts';
import { resolveEnvoys, type ResolvedEnvoy } from '../../envoy/resolve.ts';
import { startAgent } from '../support/agent-process.ts';
import { createCertificateAuthority } from '../../control-plane/certificates.ts';
import { createNamespace, useControlPlane } from '../support/control-plane.ts';
import { eventually } from '../support/eventually.ts';
import { OPERATOR_RBAC_RULES, startOperatorProcess, TOKEN_RBAC_RULES } from '../support/operator-process.ts';

const EXAMPLES = join(import.meta.dirname, '../../examples/kubernetes');
const VARIANTS = ['token', 'certificate'] as const;
type Variant = (typeof VARIANTS)[number];

interface Container {
  readonly name: string;
  readonly args: readonly string[];
  readonly restartPolicy?: string;
  readonly securityContext?: object;
}
interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers: readonly Container[];
}
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template: { readonly spec: PodSpec } };
}

describe('The Kubernetes example', function () {
  const controlPlane = useControlPlane();
  let envoys: readonly ResolvedEnvoy[];
  let namespace: string;

  before('provides the Envoys', async function () {
    this.timeout(600_000);
    envoys = await resolveEnvoys();
  });
  beforeEach(async () => {
    namespace = await createNamespace(controlPlane(), 'edge');
    const level = ['enforce', 'warn'].map((mode) => `pod-security.kubernetes.io/${mode}=restricted`);
    const { code, stderr } = await controlPlane().kubectl(['label', 'namespace', namespace, ...level]);
    expect(code, stderr).to.equal(0);
  });

  async function manifests(variant: Variant): Promise<readonly Manifest[]> {
    const { code, stdout, stderr } = await controlPlane().kubectl(['kustomize', join(EXAMPLES, variant)]);
    expect(code, stderr).to.equal(0);
    return parseAllDocuments(stdout).map((document) => document.toJS() as Manifest);
  }

  function podSpecOf(objects: readonly Manifest[]): PodSpec {
    const spec = objects.find(({ kind }) => kind === 'Deployment')?.spec?.template.spec;
    if (spec === undefined) throw new Error('no Deployment');
    return spec;
  }

  function bootstrapOf(objects: readonly Manifest[]): string {
    return objects.find(({ kind }) => kind === 'ConfigMap')?.data?.['envoy.yaml'] ?? '';
  }

  async function createPod(spec: PodSpec): Promise<{ readonly status: number; readonly body: unknown }> {
    return await controlPlane().request('POST', `/api/v1/namespaces/${namespace}/pods?dryRun=All`, {
      metadata: { name: 'envoy-responder-0' },
      spec,
    });
  }

  for (const variant of VARIANTS) {
    it(`is accepted with a ${variant} by an API server that enforces restricted Pod Security`, async () => {
      const { code, stdout, stderr } = await controlPlane().kubectl([
        ...['apply', '-k', join(EXAMPLES, variant), '--namespace', namespace, '--dry-run=server'],
      ]);
      expect(code, stderr).to.equal(0);
      expect(stderr, 'warnings').to.equal('');
      expect(stdout.trim().split('\n')).to.have.length(5);
      // The Deployment is not checked, but its pods are; they need the ServiceAccount.
      const account = { metadata: { name: 'envoy-responder' } };
      await controlPlane().request('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, account);
      const spec = podSpecOf(await manifests(variant));
      expect(spec.initContainers.map(({ restartPolicy }) => restartPolicy)).to.deep.equal(['Always']);
      const { status, body } = await createPod(spec);
      expect(status, JSON.stringify(body)).to.equal(201);
      const [envoy] = spec.containers;
      if (envoy === undefined) throw new Error('no container');
      const containers = [{ ...envoy, securityContext: {} }];
      expect(await createPod({ ...spec, containers })).to.have.property('status', 403);
    });
  }

  it('contains a bootstrap that each Envoy accepts', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'example-'));
    const { files } = await certificateFiles(folder);
    const ports = { '127.0.0.1:9901': 0, '0.0.0.0:9000': 0, '0.0.0.0:8085': 0 };
    const bootstrap = substituteBootstrap(bootstrapOf(await manifests('token')), { ports, files });
    for (const { path, version } of envoys) {
      const { code, stderr } = await validateBootstrap(path, bootstrap);
      expect(code, `${version}: ${stderr}`).to.equal(0);
    }
    await rm(folder, { recursive: true });
  });

  it('reports a tunnel to an operator that requires a token or a certificate', async () => {
    const [newest] = envoys;
    if (newest === undefined) throw new Error('no Envoy');
    await using stack = new AsyncDisposableStack();
    const folder = await mkdtemp(join(tmpdir(), 'example-'));
    stack.defer(async () => await rm(folder, { recursive: true }));
    const reserved = await reservePorts(4);
    stack.defer(async () => await reserved.release());
    const { files, pathOf, put } = await certificateFiles(folder);
    const { first } = reserved;
    const ports = {
      '127.0.0.1:9901': first + 2,
      '0.0.0.0:9000': first,
      'responder.example.com:9000': first,
      '0.0.0.0:8085': first + 1,
      'backend.example.com:80': first + 3,
    };

    const { kubeconfigPath } = await controlPlane().kubeconfigFor({
      ...{ namespace, serviceAccount: 'operator', rules: OPERATOR_RBAC_RULES },
      clusterRules: TOKEN_RBAC_RULES,
    });
    const accounts = `/api/v1/namespaces/${namespace}/serviceaccounts`;
    await controlPlane().request('POST', accounts, { metadata: { name: 'envoy-responder' } });
    const { body } = await controlPlane().request('POST', `${accounts}/envoy-responder/token`, {
      spec: { audiences: ['reverse-tunnel-operator'], expirationSeconds: 3600 },
    });
    await put('token', (body as { status: { token: string } }).status.token);
    const operator = await startOperatorProcess({
      ...{ kubeconfigPath, namespace },
      flags: [
        ...['--auth', 'mtls-or-token', '--token-audience', 'reverse-tunnel-operator'],
        ...['--tls-cert', pathOf('tls.crt'), '--tls-key', pathOf('tls.key')],
        ...['--tls-client-ca', pathOf('ca.crt'), '--report-interval', '100ms'],
      ],
    });
    stack.defer(async () => await operator.kill());
    await operator.ready();

    const objects = await manifests('token');
    const [envoy] = podSpecOf(objects).containers;
    // The test sets the path of the bootstrap and the flush interval itself.
    const args = (envoy?.args ?? [])
      .filter(
        (arg, i, all) => ![arg, all[i - 1]].some((text) => /^--(config|file-flush|log)-/.test(text ?? '')),
      )
      .map((arg) => arg.replace('$(POD_NAME)', 'envoy-responder-0'));
    expect(args).to.deep.equal([
      ...['--service-node', 'envoy-responder-0', '--service-cluster', 'edge', '--disable-hot-restart'],
    ]);
    const bootstrap = substituteBootstrap(bootstrapOf(objects), { ports, files });
    stack.use(await startEnvoy(newest.path, bootstrap, args));
    const initiator = await substituteExample('envoy-initiator-mtls.yaml', {
      ports: { ...ports, '127.0.0.1:9901': 0 },
      files,
    });
    stack.use(await startEnvoy(newest.path, initiator));

    for (const variant of VARIANTS) {
      const [agent] = podSpecOf(await manifests(variant)).initContainers;
      const [subcommand, ...flags] = agent?.args ?? [];
      expect(subcommand).to.equal('agent');
      const replaced = flags.map((flag) =>
        flag
          .replace(/^--address=.*/, `--address=${operator.grpcAddress}`)
          .replace('127.0.0.1:9901', `127.0.0.1:${ports['127.0.0.1:9901']}`)
          .replace('0.0.0.0:8081', '127.0.0.1:0')
          .replace('/var/log/envoy/tunnels.log', pathOf('tunnels.log'))
          .replace(/\/etc\/agent\/\w+\/([\w.]+)$/, (_, name: string) => pathOf(name)),
      );
      await using running = await startAgent(replaced);
      await eventually(
        `the agent with a ${variant} is ready`,
        async () => (await running.readiness()) === 'ok',
        60_000,
        100,
      );
      await eventually('the tunnel has an object', async () => {
        const path = `/apis/reverse-tunnel.io/v1alpha1/namespaces/${namespace}/reversetunnels`;
        const { body: list } = await controlPlane().request('GET', path);
        const { items } = list as { items: { spec: { tunnelName: string; reporterID: string } }[] };
        return items.length === 1 && items[0]?.spec.tunnelName === 'node-17';
      });
    }
  });
});

/** Creates the files that the pods mount. */
async function certificateFiles(folder: string) {
  const authority = createCertificateAuthority();
  const pathOf = (name: string): string => join(folder, name);
  const put = async (name: string, text: string): Promise<void> => await writeFile(pathOf(name), text);
  const { cert, key } = authority.issue({
    dnsNames: ['responder.example.com'],
    addresses: ['127.0.0.1'],
    uris: ['spiffe://example.com/envoy/responder-0'],
  });
  await put('tls.crt', cert);
  await put('tls.key', key);
  await put('ca.crt', authority.ca);
  const files: Record<string, string> = {
    '/etc/envoy/tunnels': folder,
    '/var/log/envoy/tunnels.log': pathOf('tunnels.log'),
  };
  for (const name of ['tls.crt', 'tls.key', 'ca.crt']) files[`/etc/envoy/tunnels/${name}`] = pathOf(name);
  return { files, pathOf, put };
}
