import { expect } from 'chai';
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import {
  CHART,
  createHelm,
  manifests,
  templateArgs,
  variants,
  type Helm,
  type Manifest,
} from '../support/helm.ts';
import { OPERATOR_RBAC_RULES } from '../support/operator-process.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const GOLDEN = join(ROOT, 'test', 'golden', 'chart');
const INSECURE = ['--set', 'auth.mode=insecure'];
/** GOLDEN=write rewrites the golden files. */
const WRITES = process.env['GOLDEN'] === 'write';

describe('chart rendered by helm', () => {
  let helm: Helm;
  before(async () => {
    helm = await createHelm();
  });
  after(() => helm.dispose());

  async function rendered(...values: string[]): Promise<Manifest[]> {
    const { code, stdout, stderr } = await helm(templateArgs(values));
    expect(code, stderr).to.equal(0);
    return manifests(stdout);
  }
  async function rejection(...values: string[]): Promise<string> {
    const { code, stderr } = await helm(templateArgs(values, false));
    expect(code).to.not.equal(0);
    return stderr;
  }
  const findObject = (objects: readonly Manifest[], kind: string): Manifest => {
    const match = objects.find(
      (object) => object.kind === kind && object.metadata.annotations?.['helm.sh/hook'] === undefined,
    );
    if (match === undefined) throw new Error(`no ${kind} is rendered`);
    return match;
  };

  for (const { name, file } of variants()) {
    it(`${name}: lint reports no problems, and the output equals the golden file`, async () => {
      const { code, stdout, stderr } = await helm(['lint', '--strict', CHART, '--values', file]);
      expect(code, stdout + stderr).to.equal(0);
      const { stdout: text } = await helm(templateArgs(['--values', file, '--set', 'crds.enabled=false']));
      const golden = join(GOLDEN, `${name}.yaml`);
      if (WRITES) {
        mkdirSync(GOLDEN, { recursive: true });
        writeFileSync(golden, text);
      }
      expect(text).to.equal(readFileSync(golden, 'utf8'));
    });

    it(`${name}: every pod complies with the restricted Pod Security Standard`, async () => {
      const objects = await rendered('--values', file);
      const pods = objects.flatMap((object) => podSpecs(object));
      expect(pods.length).to.be.greaterThan(0);
      for (const pod of pods) {
        expect(pod.securityContext).to.include({ runAsNonRoot: true });
        expect(pod.securityContext['seccompProfile']).to.deep.equal({ type: 'RuntimeDefault' });
        for (const { securityContext } of [...pod.containers, ...(pod.initContainers ?? [])]) {
          expect(securityContext?.['allowPrivilegeEscalation']).to.equal(false);
          expect(securityContext?.['capabilities']).to.deep.equal({ drop: ['ALL'] });
        }
        for (const { name: container, securityContext } of pod.containers) {
          if (container !== 'sidecar') expect(securityContext?.['readOnlyRootFilesystem']).to.equal(true);
        }
      }
    });
  }

  it('contains the CRDs of crds/ and keeps them when the release is uninstalled', async () => {
    const crds = (await rendered(...INSECURE)).filter(({ kind }) => kind === 'CustomResourceDefinition');
    const sources = readdirSync(join(ROOT, 'crds')).map(
      (name) => parse(readFileSync(join(ROOT, 'crds', name), 'utf8')) as Manifest,
    );
    expect(sources.length).to.be.at.least(2);
    const byName = (objects: readonly Manifest[]): Record<string, unknown> =>
      Object.fromEntries(objects.map(({ metadata, spec }) => [metadata.name, spec]));
    expect(byName(crds)).to.deep.equal(byName(sources));
    for (const { metadata } of crds)
      expect(metadata.annotations?.['helm.sh/resource-policy']).to.equal('keep');
    const given = await rendered(...INSECURE, '--set', 'crds.keep=false');
    expect(findObject(given, 'CustomResourceDefinition').metadata.annotations).to.equal(undefined);
  });

  it('grants exactly the permissions of the operator, and TokenReviews in token modes only', async () => {
    const permissions = (rules: unknown): string[] =>
      (rules as typeof OPERATOR_RBAC_RULES)
        .flatMap(({ apiGroups, resources, verbs }) =>
          apiGroups.flatMap((group) =>
            resources.flatMap((resource) => verbs.map((verb) => `${verb} ${resource}.${group}`)),
          ),
        )
        .toSorted();
    const insecure = await rendered(...INSECURE);
    const tokens = (objects: readonly Manifest[]): string[] =>
      objects
        .filter(
          ({ kind, metadata }) =>
            kind === 'ClusterRole' && metadata.name === 'edge-tunnels-reverse-tunnel-operator',
        )
        .flatMap(({ rules }) => permissions(rules));
    expect(permissions(findObject(insecure, 'Role')['rules'])).to.deep.equal(
      permissions(OPERATOR_RBAC_RULES),
    );
    expect(tokens(insecure)).to.deep.equal([]);
    const secret = ['--set', 'tls.secretName=x', '--set'];
    expect(tokens(await rendered(...secret, 'auth.mode=mtls'))).to.deep.equal([]);
    for (const mode of ['token', 'mtls-or-token']) {
      const allowed = tokens(await rendered(...secret, `auth.mode=${mode}`));
      expect(allowed).to.deep.equal(['create tokenreviews.authentication.k8s.io']);
    }
  });

  it('uses a gRPC readiness probe with plaintext and an HTTP probe with TLS', async () => {
    const probe = (objects: readonly Manifest[]): unknown =>
      podSpecs(findObject(objects, 'Deployment'))[0]?.containers[0]?.readinessProbe;
    expect(probe(await rendered(...INSECURE))).to.have.property('grpc');
    expect(probe(await rendered(...INSECURE, '--set', 'probes.grpc=false'))).to.have.property('httpGet');
    expect(probe(await rendered(...INSECURE, '--set', 'tls.secretName=x'))).to.have.property('httpGet');
  });

  it('generates a self-signed certificate for the Service and a client certificate of the same CA', async () => {
    const objects = await rendered('--set', 'auth.mode=mtls,tls.selfSigned.enabled=true');
    const secrets = objects.filter(({ kind }) => kind === 'Secret');
    const names = ['tunnels-reverse-tunnel-operator-tls', 'tunnels-reverse-tunnel-operator-client-tls'];
    expect(secrets.map(({ metadata }) => metadata.name)).to.deep.equal(names);
    const cas = secrets.map(({ data }) => (data as Record<string, string>)['ca.crt']);
    expect(cas[0]).to.be.a('string').and.equal(cas[1]);
  });

  for (const [what, values, message] of [
    ['a missing auth mode', [], 'auth.mode: required'],
    ['a misspelled key', ['auth.mod=insecure'], "at '/auth': additional properties 'mod' not allowed"],
    [
      'a misspelled top-level key',
      ['auth.mode=insecure', 'replicas=3'],
      "additional properties 'replicas' not allowed",
    ],
    [
      'a duration without a unit',
      ['auth.mode=insecure', 'config.reportInterval=5'],
      "at '/config/reportInterval'",
    ],
    ['an unknown mode', ['auth.mode=tls'], "at '/auth/mode'"],
    ['a wrong digest', ['auth.mode=insecure', 'image.digest=sha256:1'], "at '/image/digest'"],
    ['mtls without a certificate', ['auth.mode=mtls'], 'auth.mode mtls: requires a certificate'],
    [
      'two certificates',
      ['auth.mode=mtls', 'tls.secretName=x', 'tls.selfSigned.enabled=true'],
      'tls: at most one of',
    ],
    [
      'a headless Service of type LoadBalancer',
      ['auth.mode=insecure', 'service.headless=true', 'service.type=LoadBalancer'],
      'service.headless: requires service.type ClusterIP, got LoadBalancer',
    ],
    [
      'a headless Service with another port than that of the pods',
      ['auth.mode=insecure', 'service.headless=true', 'service.port=443'],
      'service.headless: requires service.port 18000, got 443',
    ],
    [
      'a termination grace period that is too short',
      ['auth.mode=insecure', 'preStopSleepSeconds=15'],
      'terminationGracePeriodSeconds 20: must exceed',
    ],
    [
      'a ServiceMonitor without its CRD',
      ['auth.mode=insecure', 'metrics.serviceMonitor.enabled=true'],
      'the cluster does not serve kind ServiceMonitor (monitoring.coreos.com/v1): install',
    ],
    [
      'a PrometheusRule without its CRD',
      ['auth.mode=insecure', 'metrics.prometheusRule.enabled=true'],
      'the cluster does not serve kind PrometheusRule',
    ],
    [
      'cert-manager without its CRDs',
      ['auth.mode=mtls', 'tls.certManager.enabled=true', 'tls.certManager.issuerRef.name=x'],
      'the cluster does not serve kind Certificate',
    ],
  ] as const) {
    it(`rejects ${what} with an explanation`, async () => {
      expect(await rejection(...values.flatMap((value) => ['--set', value]))).to.include(message);
    });
  }

  it('uses another server name in the notes, in helm test and in the certificate of cert-manager', async () => {
    const name = 'reports.example.com';
    const own = ['--set', `auth.mode=token,tls.secretName=x,tls.serverName=${name}`];
    const install = ['install', 'tunnels', CHART, '--namespace', 'edge', '--dry-run=client'];
    const { stdout } = await helm([...install, ...own]);
    expect(stdout).to.include(`sni: ${name}\n`).and.include(`matcher: {exact: ${name}}`);
    expect(stdout).to.include('address: tunnels-reverse-tunnel-operator.edge.svc.cluster.local,');
    const testArgs = (objects: readonly Manifest[]): readonly string[] =>
      objects
        .filter(({ kind }) => kind === 'Pod')
        .flatMap((pod) => podSpecs(pod)[0]?.containers[0]?.args ?? []);
    expect(testArgs(await rendered(...own))).to.include(`--tls-server-name=${name}`);
    const plain = testArgs(await rendered('--set', 'auth.mode=token,tls.secretName=x'));
    expect(plain.some((argument) => argument.startsWith('--tls-ca='))).to.equal(true);
    expect(plain.some((argument) => argument.startsWith('--tls-server-name'))).to.equal(false);
    const issued = ['tls.certManager.enabled=true', 'tls.certManager.issuerRef.name=x', 'auth.mode=token'];
    const objects = await rendered(
      ...[...issued, `tls.serverName=${name}`].flatMap((value) => ['--set', value]),
    );
    const { dnsNames } = findObject(objects, 'Certificate')['spec'] as { dnsNames: string[] };
    expect(dnsNames).to.include(name).and.include('tunnels-reverse-tunnel-operator.edge.svc');
  });

  it('rejects Kubernetes before 1.35', async () => {
    const { code, stderr } = await helm([...templateArgs(INSECURE), '--kube-version', '1.34.9']);
    expect(code).to.not.equal(0);
    expect(stderr).to.include('chart requires kubeVersion: >=1.35.0-0');
  });

  it('works as a dependency of another chart, with its condition and global values', async () => {
    const folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-parent-');
    try {
      const chart =
        'apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n  - {name: reverse-tunnel-operator, version: 0.1.0, condition: reverse-tunnel-operator.enabled}\n';
      writeFileSync(join(folder.path, 'Chart.yaml'), chart);
      const values =
        'global: {of: the-parent, imageRegistry: mirror.example.com}\nreverse-tunnel-operator: {enabled: true, auth: {mode: insecure}}\n';
      writeFileSync(join(folder.path, 'values.yaml'), values);
      cpSync(CHART, join(folder.path, 'charts', 'reverse-tunnel-operator'), { recursive: true });
      const args = ['template', 'x', folder.path, '--kube-version', '1.37.2'];
      const { code, stdout, stderr } = await helm(args);
      expect(code, stderr).to.equal(0);
      expect(stdout).to.include('image: mirror.example.com/reverse-tunnel-operator/');
      const off = await helm([...args, '--set', 'reverse-tunnel-operator.enabled=false']);
      expect(manifests(off.stdout)).to.deep.equal([]);
    } finally {
      await folder.dispose();
    }
  });

  for (const [mode, values, has] of [
    ['insecure', INSECURE, { tls: false, certificate: false, token: false }],
    ['mtls', ['--set', 'auth.mode=mtls,tls.secretName=x'], { tls: true, certificate: true, token: false }],
    ['token', ['--set', 'auth.mode=token,tls.secretName=x'], { tls: true, certificate: false, token: true }],
  ] as const) {
    it(`${mode}: the notes contain the bootstrap of an Envoy that reports to this release`, async () => {
      const args = ['install', 'tunnels', CHART, '--namespace', 'edge', '--dry-run=client', ...values];
      const { code, stdout, stderr } = await helm(args);
      expect(code, stderr).to.equal(0);
      const bootstrap = stdout.slice(stdout.lastIndexOf('\nbootstrap_extensions:'));
      const { static_resources: resources } = parse(bootstrap) as Bootstrap;
      const [cluster] = resources.clusters;
      const address = cluster?.load_assignment.endpoints[0]?.lb_endpoints[0]?.endpoint.address.socket_address;
      expect(address).to.deep.equal({
        address: 'tunnels-reverse-tunnel-operator.edge.svc.cluster.local',
        port_value: 18000,
      });
      expect({
        tls: cluster?.transport_socket !== undefined,
        certificate: bootstrap.includes('tls_certificates'),
        token: resources.secrets !== undefined,
      }).to.deep.equal(has);
      expect(stdout.includes('WARNING: auth.mode is insecure')).to.equal(mode === 'insecure');
    });
  }
});

interface Bootstrap {
  readonly static_resources: {
    readonly clusters: readonly {
      readonly transport_socket?: unknown;
      readonly load_assignment: {
        readonly endpoints: readonly {
          readonly lb_endpoints: readonly {
            readonly endpoint: { readonly address: { readonly socket_address: unknown } };
          }[];
        }[];
      };
    }[];
    readonly secrets?: unknown;
  };
}

interface PodSpec {
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
}

interface Container {
  readonly name: string;
  readonly args?: readonly string[];
  readonly readinessProbe?: unknown;
  readonly securityContext?: Readonly<Record<string, unknown>>;
}

/** Returns the pod specs of a Pod or a Deployment. */
function podSpecs({ kind, spec }: Manifest): PodSpec[] {
  if (kind === 'Pod') return [spec as PodSpec];
  if (kind === 'Deployment') return [(spec as { template: { spec: PodSpec } }).template.spec];
  return [];
}
