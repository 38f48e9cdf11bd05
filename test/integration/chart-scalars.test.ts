import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { createHelm, manifests, templateArgs, type Helm, type Manifest } from '../support/helm.ts';

/** Names of releases and namespaces that YAML takes for something other than text. */
const NAMES = [
  ...['12345', '1e5', '0x1f', '0b11', '0o17', '0777', '3240286e-210077'],
  ...['2026-11-28', 'true', 'no', 'null', 'y', 'off'],
];
/** Text to Go, which does not know such a number, but not to other parsers; nested values are printed by Go. */
const OVERFLOW = '1e999999';
/** Label values of this kind. */
const LABEL_VALUES = [
  ...NAMES,
  OVERFLOW,
  '1_000',
  '1.5',
  '0X1F',
  '1.e5',
  '2026-11-28T10',
  'NULL',
  'No',
  'True',
];
/** Free text of this kind. */
const TEXTS = [
  ...LABEL_VALUES,
  ...['1:30', '.5', '+1', '-0', '~', '.inf', '-.Inf', '.NaN', '=', '<<', '', ' ', ' padded ', '12_345.678'],
  ...[
    '# x',
    'a #b',
    'a: b',
    'a:',
    '- a',
    '-',
    '?',
    '{}',
    '[a]',
    '*a',
    '&a',
    '!a',
    '!!int 1',
    '%a',
    '@a',
    '`a',
  ],
  ...[
    "'",
    '"',
    '\\',
    '|',
    '>',
    'two\nlines',
    'tab\there',
    'null ',
    'é',
    '{{ .Values }}',
    '2026-11-28 10:00:00',
  ],
];
const NEUTRAL = 'neutral';

describe('scalars of the chart that YAML takes for something else', () => {
  let helm: Helm;
  let folder: { readonly path: string; dispose(): Promise<void> };
  before(async () => {
    helm = await createHelm();
    folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-scalars-');
  });
  after(async () => {
    await helm?.dispose();
    await folder?.dispose();
  });

  /** Renders and parses; a scalar must mean the same in YAML 1.1, which Helm reads, and in YAML 1.2. */
  async function rendered(args: readonly string[]): Promise<Manifest[]> {
    const { code, stdout, stderr } = await helm(args);
    expect(code, stderr).to.equal(0);
    const objects = manifests(stdout);
    const older = parseAllDocuments(stdout, { version: '1.1' }).map((document): unknown => document.toJS());
    expect(older.filter((object) => object !== null)).to.deep.equal(objects);
    expect(stdout).to.not.match(/\d\.?\d*e\+\d/, 'no number in scientific notation');
    return objects;
  }
  function valuesFile(values: unknown): string[] {
    const path = join(folder.path, 'values.json');
    writeFileSync(path, JSON.stringify(values));
    return ['--values', path];
  }

  const TOKEN = ['--set', 'auth.mode=token,tls.secretName=x,networkPolicy.enabled=true,crds.enabled=false'];
  const MONITORS = [
    'serviceMonitor',
    'podMonitor',
    'prometheusRule',
    'dashboard',
    'kubeStateMetrics',
  ].flatMap((key) => ['--set', `metrics.${key}.enabled=true`]);

  it('are text as the name of a release and of its namespace', async () => {
    const render = (name: string): Promise<Manifest[]> =>
      rendered(templateArgs([...TOKEN, ...MONITORS], true, name, name));
    const text = JSON.stringify(await render(NEUTRAL));
    for (const name of [...NAMES, OVERFLOW]) {
      // The name of a Service must start with a letter before Kubernetes 1.36.
      const prefix = /^\d/.test(name) ? 'rt-' : '';
      const expected = text
        .replaceAll(new RegExp(`(?<!-)${NEUTRAL}-reverse`, 'g'), `${prefix}${name}-reverse`)
        .replaceAll(`${NEUTRAL}-${NEUTRAL}-reverse`, `${name}-${prefix}${name}-reverse`)
        .replaceAll(NEUTRAL, name);
      expect(await render(name), name).to.deep.equal(JSON.parse(expected));
    }
  });

  it('are text as a name in the values', async () => {
    const values = (name: string): unknown => ({
      nameOverride: name,
      auth: { mode: 'mtls', tokenAudience: name },
      tls: { secretName: name, serverName: name, clientCA: { secretName: name, key: name } },
      config: { objectsNamespace: name },
      image: { registry: '', repository: name, tag: name },
      imagePullSecrets: [{ name }],
      extraArgs: [name],
      policies: [{ name, labels: { [NEUTRAL]: name }, spec: { rules: [{ tenants: [name] }] } }],
      priorityClassName: name,
      runtimeClassName: name,
      schedulerName: name,
      nodeSelector: { pool: name },
      serviceAccount: { name },
      service: { type: 'LoadBalancer', loadBalancerClass: name, appProtocol: name },
      metrics: {
        serviceMonitor: { namespace: name },
        kubeStateMetrics: { enabled: true, namespace: name, serviceAccountName: name },
        prometheusRule: { namespace: name, severities: { ReverseTunnelInsecure: name }, runbookUrl: name },
      },
      tests: { reporter: name, clientSecretName: name, caKey: name },
    });
    const render = (name: string): Promise<Manifest[]> =>
      rendered(templateArgs([...valuesFile(values(name)), ...MONITORS]));
    const text = JSON.stringify(await render(NEUTRAL)).replaceAll(`"${NEUTRAL}":`, '"KEY":');
    for (const name of NAMES) {
      const expected = text.replaceAll(NEUTRAL, name).replaceAll('"KEY":', `"${NEUTRAL}":`);
      expect(await render(name), name).to.deep.equal(JSON.parse(expected));
    }
  });

  it('are text in labels, annotations and arguments, from a file and from --set-string', async () => {
    const map = (texts: readonly string[]): Record<string, string> =>
      Object.fromEntries(texts.map((text, index) => [`key-${index}`, text]));
    const annotations = map(TEXTS);
    const labels = map(LABEL_VALUES);
    const nested = TEXTS.filter((text) => text !== OVERFLOW);
    const values = {
      auth: { mode: 'insecure' },
      commonLabels: labels,
      commonAnnotations: annotations,
      podLabels: labels,
      podAnnotations: annotations,
      deploymentAnnotations: annotations,
      extraArgs: TEXTS,
      extraEnv: nested.map((value, index) => ({ name: `V${index}`, value })),
      service: { labels, annotations },
      serviceAccount: { annotations },
      metrics: {
        prometheusRule: { enabled: true, labels, alertLabels: annotations },
        dashboard: { enabled: true, annotations },
      },
      policies: [{ name: 'p', labels, annotations, spec: { rules: [{ tenants: nested }] } }],
    };
    const objects = await rendered(templateArgs(valuesFile(values)));
    expect(objects.length).to.be.greaterThan(15);
    for (const { kind, metadata } of objects) {
      expect(metadata.annotations, kind).to.include(annotations);
      expect(metadata.labels, kind).to.include(labels);
    }
    const deployment = JSON.stringify(objects.find(({ kind }) => kind === 'Deployment'));
    for (const text of nested) expect(deployment).to.include(JSON.stringify({ value: text }).slice(1, -1));
    const policy = objects.find(({ kind }) => kind === 'ReverseTunnelPolicy');
    expect(policy?.['spec']).to.deep.equal({ rules: [{ tenants: nested }] });
    const args = LABEL_VALUES.flatMap((text, index) => [
      '--set-string',
      `commonLabels.key-${index}=${text.replace('.', String.raw`\.`)}`,
    ]);
    for (const { metadata } of await rendered(templateArgs(['--set', 'auth.mode=insecure', ...args])))
      expect(metadata.labels).to.include(labels);
  });

  it('are rejected, naming the value, if --set turns a name into a number', async () => {
    for (const path of ['nameOverride', 'tls.secretName', 'config.objectsNamespace', 'podLabels.x']) {
      const { code, stderr } = await helm(templateArgs(['--set', `auth.mode=insecure,${path}=12345`]));
      expect(code, path).to.not.equal(0);
      expect(stderr).to.include(`at '/${path.replace('.', '/')}': got number, want`);
    }
  });

  it('large numbers are integers, from a file, from --set and from --set-json', async () => {
    const numbers: Readonly<Record<string, number>> = {
      'config.maxMessageSize': 134_217_728,
      'config.maxTunnelsPerReporter': 10_000_000,
      revisionHistoryLimit: 2_000_000,
      'podSecurityContext.runAsUser': 1_000_660_000,
      'service.healthCheckNodePort': 32_000,
      'service.sessionAffinityConfig.clientIP.timeoutSeconds': 86_400,
      'probes.startup.failureThreshold': 3_000_000,
      'resources.limits.memory': 1_073_741_824,
      'tls.selfSigned.days': 36_500,
    };
    const fixed = {
      auth: { mode: 'insecure' },
      service: { type: 'LoadBalancer', externalTrafficPolicy: 'Local', sessionAffinity: 'ClientIP' },
      tolerations: [{ key: 'x', tolerationSeconds: 6_000_000 }],
      policies: [{ name: 'p', spec: { rules: [{ limits: { tunnels: 5_000_000 } }] } }],
    };
    const nested: Record<string, unknown> = {};
    for (const [path, number] of Object.entries(numbers)) {
      let at = nested;
      const keys = path.split('.');
      for (const key of keys.slice(0, -1)) at = (at[key] ??= {}) as Record<string, unknown>;
      at[keys.at(-1) ?? ''] = number;
    }
    const file = valuesFile(fixed);
    const nestedPath = join(folder.path, 'numbers.json');
    writeFileSync(nestedPath, JSON.stringify(nested));
    const results = [
      await rendered(templateArgs([...file, '--values', nestedPath])),
      await rendered(
        templateArgs([...file, ...Object.entries(numbers).flatMap(([path, n]) => ['--set', `${path}=${n}`])]),
      ),
      await rendered(
        templateArgs([
          ...file,
          ...Object.entries(nested).flatMap(([key, value]) => [
            '--set-json',
            `${key}=${JSON.stringify(value)}`,
          ]),
          '--set-json',
          `service=${JSON.stringify({ ...fixed.service, ...(nested['service'] as object) })}`,
        ]),
      ),
    ];
    const text = JSON.stringify(results[0]);
    for (const part of [
      ...['--max-message-size=134217728"', '--max-tunnels-per-reporter=10000000"', '"runAsUser":1000660000'],
      ...['"tolerationSeconds":6000000', '"tunnels":5000000', '"revisionHistoryLimit":2000000'],
      ...['"healthCheckNodePort":32000', '"timeoutSeconds":86400', '"memory":1073741824'],
    ])
      expect(text).to.include(part);
    expect(results[1]).to.deep.equal(results[0]);
    expect(results[2]).to.deep.equal(results[0]);
  });
});
