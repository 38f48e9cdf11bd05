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
/** To write the golden files anew: GOLDEN=write. */
const WRITES = process.env['GOLDEN'] === 'write';

describe('the chart, rendered by the real helm', () => {
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
  async function refusal(...values: string[]): Promise<string> {
    const { code, stderr } = await helm(templateArgs(values, false));
    expect(code).to.not.equal(0);
    return stderr;
  }
  const one = (objects: readonly Manifest[], kind: string): Manifest => {
    const found = objects.find(
      (object) => object.kind === kind && object.metadata.annotations?.['helm.sh/hook'] === undefined,
    );
    if (found === undefined) throw new Error(`no ${kind} is rendered`);
    return found;
  };

  for (const { name, file } of variants()) {
    it(`${name}: lint finds nothing, and what is rendered is what is kept in test/golden`, async () => {
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

    it(`${name}: every pod asks for what the restricted Pod Security Standard asks`, async () => {
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

  it('the CRDs are those of crds/, kept when the release goes', async () => {
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
    expect(one(given, 'CustomResourceDefinition').metadata.annotations).to.equal(undefined);
  });

  it('the Role is what the operator uses, to the verb; TokenReviews may be made in token modes only', async () => {
    const rights = (rules: unknown): string[] =>
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
        .flatMap(({ rules }) => rights(rules));
    expect(rights(one(insecure, 'Role')['rules'])).to.deep.equal(rights(OPERATOR_RBAC_RULES));
    expect(tokens(insecure)).to.deep.equal([]);
    const secret = ['--set', 'tls.secretName=x', '--set'];
    expect(tokens(await rendered(...secret, 'auth.mode=mtls'))).to.deep.equal([]);
    for (const mode of ['token', 'mtls-or-token']) {
      const may = tokens(await rendered(...secret, `auth.mode=${mode}`));
      expect(may).to.deep.equal(['create tokenreviews.authentication.k8s.io']);
    }
  });

  it('readiness is asked over gRPC where the port takes plaintext, and over HTTP where it speaks TLS', async () => {
    const probe = (objects: readonly Manifest[]): unknown =>
      podSpecs(one(objects, 'Deployment'))[0]?.containers[0]?.readinessProbe;
    expect(probe(await rendered(...INSECURE))).to.have.property('grpc');
    expect(probe(await rendered(...INSECURE, '--set', 'probes.grpc=false'))).to.have.property('httpGet');
    expect(probe(await rendered(...INSECURE, '--set', 'tls.secretName=x'))).to.have.property('httpGet');
  });

  it('a self-made certificate has the Service’s names, and its CA signs one for reporters', async () => {
    const objects = await rendered('--set', 'auth.mode=mtls,tls.selfSigned.enabled=true');
    const secrets = objects.filter(({ kind }) => kind === 'Secret');
    const names = ['tunnels-reverse-tunnel-operator-tls', 'tunnels-reverse-tunnel-operator-client-tls'];
    expect(secrets.map(({ metadata }) => metadata.name)).to.deep.equal(names);
    const cas = secrets.map(({ data }) => (data as Record<string, string>)['ca.crt']);
    expect(cas[0]).to.be.a('string').and.equal(cas[1]);
  });

  for (const [what, values, said] of [
    ['no choice of auth', [], 'auth.mode: required'],
    ['a misspelt key', ['auth.mod=insecure'], "at '/auth': additional properties 'mod' not allowed"],
    [
      'a misspelt key at the top',
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
      'a headless Service with an address',
      ['auth.mode=insecure', 'service.headless=true', 'service.type=LoadBalancer'],
      'service.headless: requires service.type ClusterIP, got LoadBalancer',
    ],
    [
      'a headless Service at another port than the pods listen on',
      ['auth.mode=insecure', 'service.headless=true', 'service.port=443'],
      'service.headless: requires service.port 18000, got 443',
    ],
    [
      'too little time to stop',
      ['auth.mode=insecure', 'preStopSleepSeconds=15'],
      'terminationGracePeriodSeconds 20: must exceed',
    ],
    [
      'a ServiceMonitor where there is no such kind',
      ['auth.mode=insecure', 'metrics.serviceMonitor.enabled=true'],
      'the cluster does not serve kind ServiceMonitor (monitoring.coreos.com/v1): install',
    ],
    [
      'a PrometheusRule where there is no such kind',
      ['auth.mode=insecure', 'metrics.prometheusRule.enabled=true'],
      'the cluster does not serve kind PrometheusRule',
    ],
    [
      'cert-manager where there is none',
      ['auth.mode=mtls', 'tls.certManager.enabled=true', 'tls.certManager.issuerRef.name=x'],
      'the cluster does not serve kind Certificate',
    ],
  ] as const) {
    it(`refuses ${what}, and says so in a sentence`, async () => {
      expect(await refusal(...values.flatMap((value) => ['--set', value]))).to.include(said);
    });
  }

  it('a policy is a hook where its kind is only about to be, also before a rollback to that, and an ordinary object where it is known', async () => {
    const hooks = async (...values: string[]): Promise<unknown[]> =>
      (await rendered(...INSECURE, '--set-json', 'policies=[{"name":"x","spec":{"rules":[]}}]', ...values))
        .filter(({ kind }) => kind === 'ReverseTunnelPolicy')
        .map(({ metadata }) => [
          metadata.annotations?.['helm.sh/hook'],
          metadata.annotations?.['helm.sh/resource-policy'],
        ]);
    expect(await hooks()).to.deep.equal([
      ['post-install,post-upgrade', undefined],
      ['pre-rollback', 'keep'],
    ]);
    const known = ['--api-versions', 'reverse-tunnel.io/v1alpha1/ReverseTunnelPolicy'];
    expect(await hooks(...known)).to.deep.equal([[undefined, undefined]]);
  });

  it('another name in the certificate is insisted on by the notes and by helm test, and asked of cert-manager', async () => {
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
    const { dnsNames } = one(objects, 'Certificate')['spec'] as { dnsNames: string[] };
    expect(dnsNames).to.include(name).and.include('tunnels-reverse-tunnel-operator.edge.svc');
  });

  it('refuses Kubernetes before 1.35', async () => {
    const { code, stderr } = await helm([...templateArgs(INSECURE), '--kube-version', '1.34.9']);
    expect(code).to.not.equal(0);
    expect(stderr).to.include('chart requires kubeVersion: >=1.35.0-0');
  });

  it('is a dependency of another chart, with its condition and that chart’s global values', async () => {
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
    it(`${mode}: the notes hold the bootstrap of an Envoy that reports to this release`, async () => {
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

/** Of pods, and of what makes pods. */
function podSpecs({ kind, spec }: Manifest): PodSpec[] {
  if (kind === 'Pod') return [spec as PodSpec];
  if (kind === 'Deployment') return [(spec as { template: { spec: PodSpec } }).template.spec];
  return [];
}
