import { expect } from 'chai';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createDisposableFolder } from '../../control-plane/process-supervisor.ts';
import { valuesSchema, type JsonSchema } from '../../charts/values-schema.ts';
import { readConfig } from '../../src/config.ts';
import {
  createHelm,
  firstOfKind,
  manifests,
  templateArgs,
  type Helm,
  type Manifest,
} from '../support/helm.ts';

const LABEL_VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/;
const DNS_LABEL = /^[a-z]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

describe('limits of the chart', () => {
  let helm: Helm;
  let folder: { readonly path: string; dispose(): Promise<void> };
  before(async () => {
    helm = await createHelm();
    folder = await createDisposableFolder(process.env['TMPDIR'] ?? '/tmp', 'reverse-tunnel-limits-');
  });
  after(async () => {
    await helm?.dispose();
    await folder?.dispose();
  });

  function valuesFile(values: unknown): string[] {
    const path = join(folder.path, 'values.json');
    writeFileSync(path, JSON.stringify(values));
    return ['--values', path];
  }
  async function rendered(args: readonly string[]): Promise<Manifest[]> {
    const { code, stdout, stderr } = await helm(args);
    expect(code, stderr).to.equal(0);
    return manifests(stdout);
  }

  const EVERYTHING = {
    auth: { mode: 'mtls-or-token' },
    tls: { secretName: 'x' },
    networkPolicy: { enabled: true, reporters: [{ podSelector: {} }] },
    metrics: Object.fromEntries(
      ['serviceMonitor', 'podMonitor', 'prometheusRule', 'dashboard', 'kubeStateMetrics'].map((key) => [
        key,
        { enabled: true },
      ]),
    ),
    crds: { enabled: false },
  };

  for (const [release, overrides, namespace = 'edge'] of [
    ['a'],
    ['9'],
    ['r'.repeat(53)],
    ['r'.repeat(49) + '-abc'],
    ['12345678901234567890123456789012345678901234567890123'],
    ['tunnels', { nameOverride: 'n'.repeat(60) }],
    ['tunnels', { nameOverride: 'n'.repeat(63) }],
    ['tunnels', { nameOverride: `${'n'.repeat(57)}-----n` }],
    ['tunnels', { nameOverride: '1' }],
    ['tunnels', { fullnameOverride: 'f' }],
    ['tunnels', { fullnameOverride: '7' }],
    ['tunnels', { fullnameOverride: 'f'.repeat(63) }],
    ['tunnels', { fullnameOverride: `${'f'.repeat(47)}-----${'f'.repeat(11)}` }],
    ['my.app', { fullnameOverride: 'my-app' }],
    ['r'.repeat(53), { nameOverride: 'n'.repeat(63) }, 'n'.repeat(63)],
  ] as readonly (readonly [string, Record<string, string>?, string?])[]) {
    it(`release ${release} with ${JSON.stringify(overrides ?? {})}: names and labels are within their limits`, async () => {
      const values = valuesFile({ ...EVERYTHING, ...overrides });
      const objects = await rendered(templateArgs(values, true, release, namespace));
      for (const { kind, metadata } of objects) {
        const [pattern, length] = kind === 'Service' ? [DNS_LABEL, 63] : [SUBDOMAIN, 253];
        expect(metadata.name, kind).to.match(pattern);
        expect(metadata.name.length, `${kind} ${metadata.name}`).to.be.at.most(length);
      }
      // Labels of objects, of pod templates and in selectors.
      const labels = allLabels(objects);
      expect(labels.length).to.be.greaterThan(50);
      for (const [key, value] of labels) {
        expect(value, key).to.match(LABEL_VALUE);
        expect(value.length, `${key}: ${value}`).to.be.at.most(63);
      }
    });
  }

  for (const [what, release, values, message] of [
    [
      'a release name with a dot',
      'my.app',
      {},
      /release name "my\.app": a Service cannot be named.*set fullnameOverride/,
    ],
    [
      'a name override that is too long',
      'x',
      { nameOverride: 'n'.repeat(64) },
      /nameOverride.*maxLength: got 64, want 63/s,
    ],
    [
      'a full name that is too long',
      'x',
      { fullnameOverride: 'n'.repeat(64) },
      /fullnameOverride.*maxLength/s,
    ],
    [
      'a name override that ends with a dash',
      'x',
      { nameOverride: 'n-' },
      /nameOverride.*does not match pattern/s,
    ],
    ['a name override with a dot', 'x', { nameOverride: 'n.n' }, /nameOverride.*does not match pattern/s],
    [
      'a full name with a capital',
      'x',
      { fullnameOverride: 'Full' },
      /fullnameOverride.*does not match pattern/s,
    ],
    ['a label that is too long', 'x', { commonLabels: { a: 'l'.repeat(64) } }, /commonLabels\/a.*maxLength/s],
    ['a label with a space', 'x', { podLabels: { a: 'b c' } }, /podLabels\/a.*does not match pattern/s],
    ['a label key with a space', 'x', { commonLabels: { 'a b': 'c' } }, /commonLabels.*'a b' not allowed/s],
    [
      'an annotation key that is too long',
      'x',
      { commonAnnotations: { ['k'.repeat(64)]: 'c' } },
      /commonAnnotations.*not allowed/s,
    ],
    [
      'a policy whose name has an empty part',
      'x',
      { policies: [{ name: 'a..b', spec: {} }] },
      /policies\/0\/name/,
    ],
    [
      'a ServiceAccount with a capital',
      'x',
      { serviceAccount: { name: 'Operator' } },
      /serviceAccount\/name/,
    ],
    ['a namespace with a dot', 'x', { config: { objectsNamespace: 'a.b' } }, /config\/objectsNamespace/],
    [
      'a node port without one',
      'x',
      { service: { nodePort: 30_000 } },
      /service\.nodePort: requires service\.type NodePort or LoadBalancer, got ClusterIP/,
    ],
    [
      'a traffic policy without a node port',
      'x',
      { service: { externalTrafficPolicy: 'Local' } },
      /service\.externalTrafficPolicy: requires/,
    ],
    [
      'a class without a load balancer',
      'x',
      { service: { type: 'NodePort', loadBalancerClass: 'a' } },
      /service\.loadBalancerClass: requires service\.type LoadBalancer/,
    ],
    [
      'two address families of a single stack',
      'x',
      { service: { ipFamilies: ['IPv4', 'IPv6'] } },
      /service\.ipFamilies: two families require/,
    ],
  ] as const) {
    it(`rejects ${what} before anything is created, naming the value`, async () => {
      const args = valuesFile({ auth: { mode: 'insecure' }, ...values });
      const { code, stderr } = await helm(templateArgs(args, true, release));
      expect(code).to.not.equal(0);
      expect(stderr).to.match(message);
    });
  }

  it('accepts each duration and size at its bounds, as the operator does', async () => {
    for (const values of [
      {
        reportInterval: '25ms',
        unknownAfter: '1s',
        expireAfter: '0',
        maxStreamAge: '10s',
        maxMessageSize: '1Ki',
      },
      {
        reportInterval: '59m60s',
        unknownAfter: '168h',
        expireAfter: '1.5s',
        maxStreamAge: '0s',
        maxMessageSize: 1024 ** 3,
      },
    ]) {
      const objects = await rendered(templateArgs(valuesFile({ ...EVERYTHING, config: values })));
      const { args } = operatorPod(objects).containers[0] ?? {};
      const flags = Object.fromEntries((args ?? []).map((arg) => arg.replace('--', '').split('=')));
      expect(flags).to.include({
        'report-interval': values.reportInterval,
        'max-message-size': String(values.maxMessageSize),
        'expire-after': values.expireAfter,
      });
      expect(readConfig(flags)).to.have.property('config');
    }
  });

  for (const [path, value] of [
    ['config.reportInterval', '2h'],
    ['config.reportInterval', '24ms'],
    ['config.reportInterval', '0'],
    ['config.unknownAfter', '999ms'],
    ['config.expireAfter', '168h1ms'],
    ['config.maxStreamAge', '1s'],
    ['config.maxMessageSize', '1023'],
    ['config.maxMessageSize', '2Gi'],
    ['tests.timeout', '61m'],
  ] as const) {
    it(`rejects ${path} ${value} with the message of the operator`, async () => {
      const args = ['--set', 'auth.mode=insecure', '--set-string', `${path}=${value}`];
      const { code, stderr } = await helm(templateArgs(args));
      expect(code).to.not.equal(0);
      expect(stderr).to.match(
        new RegExp(`${path}: "${value}" must be a (duration|size) from \\d+\\w+ to \\d+\\w+`),
      );
    });
  }

  it('a value that is null renders no line, so that another controller or the API server owns the field', async () => {
    const nulls = nullsOf(valuesSchema());
    const given = { ...EVERYTHING, tls: { selfSigned: { enabled: true } } };
    const objects = await rendered(templateArgs(valuesFile(deepMerge(nulls, given))));
    expect(leavesWithout(objects)).to.deep.equal([]);
    const { spec: value } = firstOfKind(objects, 'Deployment');
    const spec = value as Record<string, unknown>;
    expect(Object.keys(spec)).to.deep.equal(['selector', 'template']);
    const sets = ['--set', 'auth.mode=insecure,replicaCount=null'];
    for (const { kind, spec: text } of await rendered(templateArgs(sets)))
      if (kind === 'Deployment') expect(text).to.not.have.property('replicas');
  });

  it('a value that every object needs cannot be removed, and the error names it', async () => {
    for (const [path, name] of [
      ['service.port', 'port'],
      ['image.repository', 'repository'],
      ['tls', 'tls'],
      ['metrics.service', 'service'],
    ] as const) {
      const { code, stderr } = await helm(templateArgs(['--set', `auth.mode=insecure,${path}=null`]));
      expect(code, path).to.not.equal(0);
      expect(stderr).to.match(new RegExp(`missing property '${name}'|${name}.*got null`));
    }
  });

  it('the test pod has the settings of the pods', async () => {
    const shared = {
      priorityClassName: 'system-cluster-critical',
      runtimeClassName: 'gvisor',
      schedulerName: 'other',
      dnsPolicy: 'None',
      dnsConfig: { nameservers: ['192.0.2.1'] },
      hostAliases: [{ ip: '192.0.2.2', hostnames: ['a'] }],
      nodeSelector: { pool: 'edge', 'kubernetes.io/os': 'linux' },
      tolerations: [{ key: 'dedicated', operator: 'Exists' }],
      imagePullSecrets: [{ name: 'pull' }],
    };
    const node = { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [] } };
    const values = {
      ...EVERYTHING,
      ...shared,
      podSecurityContext: { runAsUser: 1234 },
      securityContext: { runAsNonRoot: true },
      resources: { limits: { cpu: 1, memory: '256Mi' } },
      podLabels: { team: 'edge' },
      podAnnotations: { 'sidecar.istio.io/inject': 'false' },
      commonLabels: { app: 'x' },
      image: { pullPolicy: 'Always' },
      affinity: { nodeAffinity: node, podAntiAffinity: {} },
    };
    const objects = await rendered(templateArgs(valuesFile(values)));
    const test = firstOfKind(objects, 'Pod');
    const { template } = firstOfKind(objects, 'Deployment')['spec'] as { template: Manifest };
    const specs = [test, template].map((pod) => pod['spec'] as PodSpec);
    for (const spec of specs) {
      expect(spec).to.deep.include(shared);
      expect(spec.securityContext).to.include({ runAsUser: 1234 });
      const [container] = spec.containers;
      expect(container?.securityContext).to.include({ runAsNonRoot: true });
      expect(container?.resources?.limits).to.deep.equal(values.resources.limits);
      expect(container?.imagePullPolicy).to.equal('Always');
    }
    for (const pod of [test, template]) {
      expect(pod.metadata.labels).to.include({ team: 'edge', app: 'x' });
      expect(pod.metadata.annotations).to.include(values.podAnnotations);
    }
    expect(specs[0]?.affinity, 'without rules about the pods of the operator').to.deep.equal({
      nodeAffinity: node,
    });
    const own = {
      resources: { limits: { cpu: '2' } },
      podLabels: { team: 'qa' },
      podAnnotations: { a: 'b' },
    };
    const pod = firstOfKind(await rendered(templateArgs(valuesFile({ ...values, tests: own }))), 'Pod');
    expect((pod['spec'] as PodSpec).containers[0]?.resources?.limits).to.include({ cpu: '2' });
    expect(pod.metadata.labels).to.include({ team: 'qa' });
    expect(pod.metadata.annotations).to.include({ a: 'b' });
  });

  it('a frozen process is replaced within 45 s by the default liveness probe', async () => {
    const objects = await rendered(templateArgs(['--set', 'auth.mode=insecure']));
    const probe = operatorPod(objects).containers[0]?.livenessProbe ?? expect.fail('no liveness probe');
    const { periodSeconds, timeoutSeconds, failureThreshold, terminationGracePeriodSeconds: grace } = probe;
    // It may freeze just after a successful probe; the next one starts a period later.
    expect(periodSeconds * failureThreshold + timeoutSeconds + grace).to.be.at.most(45);
  });
});

interface PodSpec {
  readonly affinity?: unknown;
  readonly securityContext: unknown;
  readonly containers: readonly {
    readonly args?: readonly string[];
    readonly imagePullPolicy?: string;
    readonly livenessProbe?: {
      readonly periodSeconds: number;
      readonly timeoutSeconds: number;
      readonly failureThreshold: number;
      readonly terminationGracePeriodSeconds: number;
    };
    readonly securityContext?: unknown;
    readonly resources?: { readonly limits?: unknown };
  }[];
}

function operatorPod(objects: readonly Manifest[]): PodSpec {
  return (firstOfKind(objects, 'Deployment')['spec'] as { template: { spec: PodSpec } }).template.spec;
}

/** Returns the entries of every map of labels. */
function allLabels(value: unknown, key = ''): [string, string][] {
  if (typeof value !== 'object' || value === null) return [];
  if (['labels', 'matchLabels', 'selector'].includes(key) && !('matchLabels' in value))
    return Object.entries(value as Record<string, string>);
  return Object.entries(value).flatMap(([inner, child]) => allLabels(child, inner));
}

/** Returns null for each value that the schema allows to be null. */
function nullsOf({ properties = {} }: JsonSchema): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(properties).flatMap(([key, schema]): [string, unknown][] => {
      const isNullable = [schema, ...(schema.anyOf ?? [])].some(
        ({ type }) => Array.isArray(type) && type.includes('null'),
      );
      if (isNullable) return [[key, null]];
      const inner = nullsOf(schema);
      return Object.keys(inner).length === 0 ? [] : [[key, inner]];
    }),
  );
}

/** Returns `base` with the values of `over`. */
function deepMerge(base: Record<string, unknown>, over: Record<string, unknown>): Record<string, unknown> {
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const before = merged[key];
    merged[key] = isMap(before) && isMap(value) ? deepMerge(before, value) : value;
  }
  return merged;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns the paths of scalars without a value: null, or text that a template printed for a missing value. */
function leavesWithout(value: unknown, path = ''): string[] {
  if (value === null || (typeof value === 'string' && /<nil>|<no value>|%!/.test(value))) return [path];
  if (typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([key, child]) => leavesWithout(child, `${path}/${key}`));
}
