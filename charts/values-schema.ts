/**
 * values.schema.json of the chart. Ranges and enumerations of settings are those of the program (`SETTING_RANGES`), so
 * that the chart rejects what the program would reject.
 */
import { SETTING_RANGES } from '../src/config.ts';
import type { ValueRange } from '../src/flag-values.ts';
import { SELFTEST_RANGES } from '../src/selftest/selftest.ts';

/** A JSON schema (draft 7), limited to the keywords that this chart uses. */
export interface JsonSchema {
  readonly $schema?: string;
  readonly title?: string;
  readonly description?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly (string | null)[];
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly items?: JsonSchema;
  readonly maxItems?: number;
  readonly uniqueItems?: boolean;
  readonly anyOf?: readonly JsonSchema[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly patternProperties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: boolean | JsonSchema;
}

/** The settings under `config` and their flags, in the order of the arguments of the operator. */
export const CONFIG_FLAGS = {
  reportInterval: 'report-interval',
  unknownAfter: 'unknown-after',
  expireAfter: 'expire-after',
  removalHold: 'removal-hold',
  removalHoldThreshold: 'removal-hold-threshold',
  representation: 'representation',
  onInvalid: 'on-invalid',
  maxMessageSize: 'max-message-size',
  maxTunnelsPerReporter: 'max-tunnels-per-reporter',
  maxConnectionsPerAddress: 'max-connections-per-address',
  writeConcurrency: 'write-concurrency',
  maxStreamAge: 'max-stream-age',
  grpcReflection: 'grpc-reflection',
  logLevel: 'log-level',
  tunnelLog: 'tunnel-log',
} as const;

const DURATION = String.raw`([0-9]+(\.[0-9]+)?(ms|s|m|h))+`;
const LABEL = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const SUBDOMAIN = String.raw`${LABEL}(\.${LABEL})*`;
/** The pattern in the CRDs of the Prometheus operator. */
const PROMETHEUS_DURATION =
  '(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?';
/** A qualified name: the key of a label or an annotation. */
const KEY_PATTERN = String.raw`^(${SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`;

const bool: JsonSchema = { type: 'boolean' };
const string: JsonSchema = { type: 'string' };
const nonEmpty: JsonSchema = { type: 'string', minLength: 1 };
const object: JsonSchema = { type: ['object', 'null'] };
const objects: JsonSchema = { type: ['array', 'null'], items: { type: 'object' } };
const strings: JsonSchema = { type: ['array', 'null'], items: nonEmpty };
const namespaceName: JsonSchema = { type: ['string', 'null'], pattern: `^$|^${LABEL}$`, maxLength: 63 };
/** The name of an object, or empty. */
const objectName: JsonSchema = { type: ['string', 'null'], pattern: `^$|^${SUBDOMAIN}$`, maxLength: 253 };
const secretKey: JsonSchema = { type: 'string', pattern: '^[-._a-zA-Z0-9]+$', maxLength: 253 };
const port: JsonSchema = { type: 'integer', minimum: 1, maximum: 65_535 };
/** 0 stands for a port that the API server chooses. */
const nodePort: JsonSchema = { type: ['integer', 'null'], minimum: 0, maximum: 65_535 };
const labels = textsByKey({
  type: 'string',
  pattern: '^$|^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$',
  maxLength: 63,
});
const annotations = textsByKey(string);
const percentageOrInteger: JsonSchema = {
  anyOf: [
    { type: 'integer', minimum: 0 },
    { type: ['string', 'null'], pattern: '^$|^[0-9]+%$' },
  ],
};
const resources = closed(
  { requests: object, limits: object, claims: objects },
  { required: [], nullable: true },
);
const pullSecrets: JsonSchema = {
  type: ['array', 'null'],
  items: closed({ name: { ...objectName, type: 'string', minLength: 1 } }),
};

/** A map of labels or annotations. A pattern per key, because the error then names the map. */
function textsByKey(text: JsonSchema): JsonSchema {
  return {
    type: ['object', 'null'],
    patternProperties: { [KEY_PATTERN]: text },
    additionalProperties: false,
  };
}

/** An enumeration of a Kubernetes field; empty: the field is not rendered. */
function optionalEnum(...values: readonly string[]): JsonSchema {
  return { type: ['string', 'null'], enum: ['', ...values, null] };
}

function integer(minimum: number, maximum: number): JsonSchema {
  return { type: 'integer', minimum, maximum };
}

/**
 * An object without other keys.
 *
 * @param options.required keys that must not be removed with null. Default: those whose schema does not allow null
 */
function closed(
  properties: Readonly<Record<string, JsonSchema>>,
  options: { readonly required?: readonly string[]; readonly nullable?: true } = {},
): JsonSchema {
  const required =
    options.required ?? Object.keys(properties).filter((key) => !allowsNull(properties[key] ?? {}));
  return {
    type: options.nullable === true ? ['object', 'null'] : 'object',
    additionalProperties: false,
    ...(required.length === 0 ? {} : { required }),
    properties,
  };
}

function allowsNull({ type, anyOf }: JsonSchema): boolean {
  return (Array.isArray(type) && type.includes('null')) || anyOf?.some(allowsNull) === true;
}

/** Returns the schema of a setting of the program. Null, or an empty text, stands for the default of the program. */
export function schemaOf(range: ValueRange): JsonSchema {
  switch (range.kind) {
    case 'boolean':
      return { type: ['boolean', 'null'] };
    case 'enum':
      return { type: ['string', 'null'], enum: [...range.values, null] };
    case 'integer':
      return { type: ['integer', 'null'], minimum: range.min, maximum: range.max };
    case 'duration':
      return { type: ['string', 'null'], pattern: `^$|^0$|^${DURATION}$` };
    case 'size':
      return {
        type: ['string', 'integer', 'null'],
        pattern: '^$|^[0-9]{1,12}(Ki|Mi|Gi)?$',
        minimum: range.min,
        maximum: range.max,
      };
    case 'percentage':
      return {
        type: ['string', 'integer', 'null'],
        pattern: `^$|${range.pattern}`,
        minimum: 0,
        maximum: 100,
      };
    case 'text':
      return { type: ['string', 'null'], pattern: `^$|${range.pattern}` };
  }
}

function settingSchema(ranges: Readonly<Record<string, ValueRange>>, flag: string): JsonSchema {
  const range = ranges[flag];
  if (range === undefined) throw new Error(`--${flag}: has no range that a schema could contain`);
  return schemaOf(range);
}

/** Returns the schema of a text that is always rendered, so that neither null nor an empty text is accepted. */
function required(schema: JsonSchema): JsonSchema {
  return { ...schema, type: 'string', pattern: schema.pattern?.replace(/^\^\$\|/, '') ?? '' };
}

const authModes = settingSchema(SETTING_RANGES, 'auth');

const monitor = closed({
  enabled: bool,
  namespace: namespaceName,
  interval: { type: ['string', 'null'], pattern: `^${PROMETHEUS_DURATION}$` },
  scrapeTimeout: { type: ['string', 'null'], pattern: `^${PROMETHEUS_DURATION}$` },
  labels,
  relabelings: objects,
  metricRelabelings: objects,
});

const tls = closed({
  secretName: objectName,
  serverName: {
    type: ['string', 'null'],
    pattern: '^$|^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$',
    maxLength: 253,
  },
  dnsNames: strings,
  certManager: closed({
    enabled: bool,
    issuerRef: closed({ name: objectName, kind: nonEmpty, group: nonEmpty }),
    duration: { type: ['string', 'null'], pattern: `^${DURATION}$` },
    renewBefore: { type: ['string', 'null'], pattern: `^${DURATION}$` },
  }),
  selfSigned: closed({ enabled: bool, days: integer(1, 36_500) }),
  clientCA: closed({ secretName: objectName, key: secretKey }),
});

const service = closed({
  type: { type: 'string', enum: ['ClusterIP', 'NodePort', 'LoadBalancer'] },
  headless: bool,
  port,
  nodePort,
  appProtocol: { ...string, type: ['string', 'null'] },
  extraPorts: objects,
  labels,
  annotations,
  clusterIP: { type: ['string', 'null'], pattern: '^$|^[0-9a-fA-F.:]+$' },
  externalIPs: strings,
  loadBalancerClass: { type: ['string', 'null'], maxLength: 317 },
  loadBalancerIP: { type: ['string', 'null'], pattern: '^$|^[0-9a-fA-F.:]+$' },
  loadBalancerSourceRanges: strings,
  allocateLoadBalancerNodePorts: { type: ['boolean', 'null'] },
  healthCheckNodePort: nodePort,
  externalTrafficPolicy: optionalEnum('Cluster', 'Local'),
  internalTrafficPolicy: optionalEnum('Cluster', 'Local'),
  trafficDistribution: optionalEnum('PreferClose', 'PreferSameZone', 'PreferSameNode'),
  sessionAffinity: optionalEnum('None', 'ClientIP'),
  sessionAffinityConfig: object,
  publishNotReadyAddresses: { type: ['boolean', 'null'] },
  ipFamilyPolicy: optionalEnum('SingleStack', 'PreferDualStack', 'RequireDualStack'),
  ipFamilies: {
    type: ['array', 'null'],
    items: { type: 'string', enum: ['IPv4', 'IPv6'] },
    maxItems: 2,
    uniqueItems: true,
  },
});

const metrics = closed({
  service: closed({ enabled: bool, port, labels, annotations }),
  serviceMonitor: monitor,
  podMonitor: monitor,
  prometheusRule: closed({
    enabled: bool,
    namespace: namespaceName,
    labels,
    alertLabels: { type: ['object', 'null'], additionalProperties: string },
    disabled: strings,
    severities: { type: ['object', 'null'], additionalProperties: string },
    runbookUrl: { type: ['string', 'null'] },
  }),
  dashboard: closed({ enabled: bool, namespace: namespaceName, labels, annotations }),
  kubeStateMetrics: closed({
    enabled: bool,
    namespace: namespaceName,
    labels,
    serviceAccountName: objectName,
  }),
});

/** Returns the schema of the values. */
export function valuesSchema(): JsonSchema {
  const config = Object.fromEntries(
    Object.entries(CONFIG_FLAGS).map(([key, flag]) => [key, settingSchema(SETTING_RANGES, flag)]),
  );
  const root = closed({
    enabled: { type: ['boolean', 'null'] },
    global: {
      type: ['object', 'null'],
      properties: { imageRegistry: { type: ['string', 'null'] }, imagePullSecrets: pullSecrets },
    },
    nameOverride: { type: ['string', 'null'], pattern: `^$|^${LABEL}$`, maxLength: 63 },
    fullnameOverride: { type: ['string', 'null'], pattern: `^$|^${LABEL}$`, maxLength: 63 },
    commonLabels: labels,
    commonAnnotations: annotations,
    auth: closed(
      {
        mode: { type: ['string', 'null'], enum: ['', ...(authModes.enum ?? [])] },
        tokenAudience: required(settingSchema(SETTING_RANGES, 'token-audience')),
      },
      { required: ['tokenAudience'] },
    ),
    tls,
    config: closed({
      objectsNamespace: namespaceName,
      listenAddress: {
        type: ['string', 'null'],
        pattern: String.raw`^([0-9.]+|\[[0-9a-fA-F:.]+\])$`,
      },
      ...config,
      requirePolicy: settingSchema(SETTING_RANGES, 'require-policy'),
    }),
    extraArgs: { type: ['array', 'null'], items: string },
    extraEnv: objects,
    extraEnvFrom: objects,
    extraVolumes: objects,
    extraVolumeMounts: objects,
    extraContainers: objects,
    initContainers: objects,
    extraObjects: { type: ['array', 'null'], items: { type: ['object', 'string'] } },
    policies: {
      type: ['array', 'null'],
      items: closed(
        {
          name: { type: 'string', pattern: `^${SUBDOMAIN}$`, maxLength: 253 },
          labels,
          annotations,
          spec: { type: 'object' },
        },
        { required: ['name', 'spec'] },
      ),
    },
    image: closed({
      registry: { type: ['string', 'null'] },
      repository: nonEmpty,
      tag: { type: ['string', 'null'], pattern: '^$|^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$' },
      digest: { type: ['string', 'null'], pattern: '^$|^sha256:[0-9a-f]{64}$' },
      pullPolicy: optionalEnum('Always', 'IfNotPresent', 'Never'),
    }),
    imagePullSecrets: pullSecrets,
    replicaCount: { type: ['integer', 'null'], minimum: 0, maximum: 100 },
    updateStrategy: closed(
      {
        type: optionalEnum('RollingUpdate', 'Recreate'),
        rollingUpdate: closed(
          { maxSurge: percentageOrInteger, maxUnavailable: percentageOrInteger },
          { nullable: true },
        ),
      },
      { nullable: true },
    ),
    revisionHistoryLimit: { type: ['integer', 'null'], minimum: 0 },
    preStopSleepSeconds: { type: ['integer', 'null'], minimum: 0, maximum: 600 },
    terminationGracePeriodSeconds: integer(10, 3600),
    resources,
    podSecurityContext: object,
    securityContext: object,
    podLabels: labels,
    podAnnotations: annotations,
    deploymentAnnotations: annotations,
    priorityClassName: objectName,
    runtimeClassName: objectName,
    schedulerName: objectName,
    dnsPolicy: optionalEnum('ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'),
    dnsConfig: object,
    hostAliases: objects,
    nodeSelector: labels,
    tolerations: objects,
    affinity: closed(
      { nodeAffinity: object, podAffinity: object, podAntiAffinity: object },
      { nullable: true },
    ),
    topologySpreadConstraints: objects,
    probes: closed({
      grpc: { type: ['boolean', 'null'] },
      startup: object,
      liveness: object,
      readiness: object,
    }),
    serviceAccount: closed({ create: bool, name: objectName, annotations }),
    rbac: closed({ create: bool, aggregate: bool }),
    service,
    clusterDomain: { type: ['string', 'null'], pattern: `^${SUBDOMAIN}$` },
    podDisruptionBudget: closed({
      enabled: bool,
      maxUnavailable: percentageOrInteger,
      minAvailable: percentageOrInteger,
    }),
    networkPolicy: closed({
      enabled: bool,
      reporters: objects,
      metrics: objects,
      apiServerPorts: { type: ['array', 'null'], items: port },
      extraEgress: objects,
    }),
    metrics,
    crds: closed({ enabled: bool, keep: bool, annotations }),
    tests: closed({
      enabled: bool,
      reporter: required(settingSchema(SELFTEST_RANGES, 'reporter')),
      timeout: settingSchema(SELFTEST_RANGES, 'timeout'),
      resources,
      podLabels: labels,
      podAnnotations: annotations,
      clientSecretName: objectName,
      caKey: { type: ['string', 'null'], pattern: '^[-._a-zA-Z0-9]*$', maxLength: 253 },
    }),
  });
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Values of reverse-tunnel-operator',
    ...root,
  };
}
