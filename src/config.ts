import { parse as parseYaml } from 'yaml';
import {
  boolean,
  durationInRange,
  durationWithDefault,
  enumOf,
  hostPort,
  namespace,
  nonEmpty,
  numberInRange,
  percentage,
  type ReadValue,
  sizeInRange,
  textMatching,
} from './flag-values.ts';
import {
  flagRanges,
  formatHelp,
  parseArguments,
  readFlags,
  type FlagErrors,
  type Flags,
  type RawFlags,
} from './flags.ts';
import { REPRESENTATIONS, type Representation } from './core/representation.ts';
import { LOG_LEVELS, type LogLevel } from './log.ts';

/** The configuration of the operator. All values are valid. */
export interface Config {
  /** `host:port` of the reporting service and grpc.health.v1; port 0 selects a free port. */
  readonly grpcAddress: string;
  /** `host:port` of /livez, /readyz and /metrics. */
  readonly httpAddress: string;
  /** Path; undefined: in-cluster, then KUBECONFIG, then ~/.kube/config. */
  readonly kubeconfig: string | undefined;
  /** Undefined: the pod's, then the context's, then `default`. */
  readonly namespace: string | undefined;
  /** Undefined: the name of the host, which is the name of the pod. */
  readonly replicaId: string | undefined;
  /** 25 ms to 1 h. */
  readonly reportIntervalMs: number;
  /** 1 s to 7 days after a reporter has disconnected, its objects are set to Unknown. */
  readonly unknownAfterMs: number;
  /** 1 s to 7 days after a reporter has disconnected, its objects are deleted. */
  readonly expireAfterMs: number;
  /** 0 to 7 days for which objects that a full push lacks are kept, if they are many; 0: never. */
  readonly removalHoldMs: number;
  /** 0 to 100: the share of a reporter's objects that a full push must lack for its removals to be held. */
  readonly removalHoldThresholdPercent: number;
  /** How tunnels are written, unless a policy decides it. */
  readonly representation: Representation;
  /** Whether an invalid tunnel alone is rejected (`skip`) or the whole report (`nack`). */
  readonly onInvalid: 'skip' | 'nack';
  /** Whether gRPC reflection is served. */
  readonly grpcReflection: boolean;
  /** 1 KiB to 1 GiB. */
  readonly maxMessageSizeBytes: number;
  readonly maxConnectionsPerAddress: number;
  /** 1 to 10,000,000. */
  readonly maxTunnelsPerReporter: number;
  /** Maximum number of API writes in flight, 1 to 1024. */
  readonly writeConcurrency: number;
  /** How clients authenticate; `insecure` accepts any client. */
  readonly auth: 'mtls' | 'token' | 'mtls-or-token' | 'insecure';
  /** Paths of PEM files. Certificate and key are set together, and always set unless `auth` is `insecure`. */
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  /** Set if and only if `auth` is `mtls` or `mtls-or-token`. */
  readonly tlsClientCa: string | undefined;
  /** Audience that tokens must carry. */
  readonly tokenAudience: string;
  /** Whether every client is rejected while the namespace has no ReverseTunnelPolicy. */
  readonly requirePolicy: boolean;
  /** Age, 10 s to 7 days and with some percent of jitter, at which a stream ends so that its peer authenticates again. */
  readonly maxStreamAgeMs: number;
  readonly logLevel: LogLevel;
  /** `off`, `stdout`, or the path of the file that gets one line per transition of a tunnel. */
  readonly tunnelLog: string;
}

/** Accepts any JWT audience that can be logged as it is; audiences are compared as a whole. */
const audience = textMatching(
  String.raw`^[\x21-\x7e]{1,256}$`,
  'must be 1 to 256 printable ASCII characters without spaces',
);

/** A word without a slash is not a path, so that a misspelled word does not become the name of a file. */
const tunnelLogTarget = textMatching(
  String.raw`^(off|stdout|[^\x00-\x1f]*/[^\x00-\x1f]*)$`,
  'must be off, stdout, or a path with a slash, such as ./tunnels.jsonl',
);

const AUTH_MODES = ['mtls', 'token', 'mtls-or-token', 'insecure'] as const;

/** Every setting: its flag, its key in the file, its default, its check and its text in `--help`. */
const SETTINGS = {
  'grpc-address': {
    metavar: 'HOST:PORT',
    description: 'address of the reporting service and grpc.health.v1; port 0 picks a free port',
    default: '0.0.0.0:18000',
    read: hostPort(0),
  },
  'http-address': {
    metavar: 'HOST:PORT',
    description: 'address of /livez, /readyz and /metrics',
    default: '0.0.0.0:8080',
    read: hostPort(0),
  },
  kubeconfig: {
    metavar: 'FILE',
    description: 'kubeconfig of the API server',
    defaultText: 'in-cluster, then $KUBECONFIG, then ~/.kube/config',
    read: nonEmpty,
  },
  namespace: {
    metavar: 'NAME',
    description: 'namespace of the objects',
    defaultText: "the pod's namespace, then the context's, then default",
    read: namespace,
  },
  'replica-id': {
    metavar: 'NAME',
    description: 'name of this replica as an owner of reporters; need not be unique',
    defaultText: 'the pod name or host name',
    read: replicaId,
  },
  'report-interval': {
    metavar: 'DURATION',
    description: 'interval at which reporters send reports',
    default: '5s',
    // The bounds that the wire contract sets for report_interval.
    read: durationInRange(25, 3_600_000),
  },
  'unknown-after': {
    metavar: 'DURATION',
    description: 'time after a reporter disconnects until its tunnels become Unknown; 0 is the default',
    default: '30s',
    read: durationWithDefault('30s'),
  },
  'expire-after': {
    metavar: 'DURATION',
    description: 'time after a reporter disconnects until its tunnels are deleted; 0 is the default',
    default: '5m',
    read: durationWithDefault('5m'),
  },
  'removal-hold': {
    metavar: 'DURATION',
    description: 'time to keep objects that a full push lacks, if they are many; 0 deletes immediately',
    default: '30s',
    // A report that names a removed tunnel still removes its object immediately.
    read: durationInRange(0, 7 * 24 * 3_600_000),
  },
  'removal-hold-threshold': {
    metavar: 'PERCENT',
    description: "--removal-hold applies above this share of a reporter's objects, and above 10 objects",
    default: '50%',
    read: percentage,
  },
  representation: {
    metavar: REPRESENTATIONS.join('|'),
    description:
      'one ReverseTunnel per tunnel (objects), or up to 100 tunnels per ReverseTunnelSlice (slices)',
    default: 'objects',
    read: enumOf(REPRESENTATIONS),
  },
  'on-invalid': {
    metavar: 'skip|nack',
    description: 'for a report with an invalid tunnel: reject only that tunnel (skip) or the report (nack)',
    default: 'skip',
    read: enumOf(['skip', 'nack']),
  },
  'grpc-reflection': {
    metavar: 'true|false',
    description: 'enable gRPC server reflection for tools such as grpcurl',
    default: 'false',
    read: boolean,
  },
  'max-message-size': {
    metavar: 'SIZE',
    description: 'maximum size of a report; a tunnel takes about 130 bytes',
    default: '64Mi',
    read: sizeInRange(1024, 1024 ** 3),
  },
  'max-tunnels-per-reporter': {
    metavar: 'N',
    description: 'maximum number of tunnels per reporter',
    default: '500000',
    read: numberInRange(1, 10_000_000),
  },
  'max-connections-per-address': {
    metavar: 'N',
    description: 'maximum number of connections per IP address, such as that of a NAT or proxy',
    default: '2000',
    read: numberInRange(1, 100_000),
  },
  'write-concurrency': {
    metavar: 'N',
    description: 'maximum number of concurrent API writes',
    default: '64',
    read: numberInRange(1, 1024),
  },
  auth: {
    metavar: AUTH_MODES.join('|'),
    description: 'client authentication (required); insecure accepts any client',
    required: true,
    read: enumOf(AUTH_MODES, ' (insecure accepts any client)'),
  },
  'tls-cert': {
    metavar: 'FILE',
    description: 'PEM certificate chain of the reporting service; reloaded when it changes',
    defaultText: 'none with insecure',
    read: nonEmpty,
  },
  'tls-key': {
    metavar: 'FILE',
    description: 'PEM private key for --tls-cert; reloaded when it changes',
    defaultText: 'none with insecure',
    read: nonEmpty,
  },
  'tls-client-ca': {
    metavar: 'FILE',
    description: 'PEM CA bundle for client certificates; reloaded when it changes',
    defaultText: 'none with token and insecure',
    read: nonEmpty,
  },
  'token-audience': {
    metavar: 'TEXT',
    description: 'audience that tokens must carry (auth modes token, mtls-or-token)',
    default: 'reverse-tunnel-operator',
    read: audience,
  },
  'require-policy': {
    metavar: 'true|false',
    description: 'reject every client while no ReverseTunnelPolicy exists, instead of accepting every client',
    default: 'false',
    read: boolean,
  },
  'max-stream-age': {
    metavar: 'DURATION',
    description:
      'maximum age of a stream; then the reporter reconnects and authenticates again; 0 is the default',
    default: '1h',
    read: durationWithDefault('1h', 10_000),
  },
  'log-level': {
    metavar: 'LEVEL',
    description: `log level: ${LOG_LEVELS.join(', ')}`,
    default: 'info',
    read: enumOf(LOG_LEVELS),
  },
  'tunnel-log': {
    metavar: 'off|stdout|FILE',
    description: 'where to write one JSON line whenever a tunnel comes up, goes down or becomes Unknown',
    default: 'off',
    read: tunnelLogTarget,
  },
} as const satisfies Flags;

/** The accepted values of the settings, by flag, for the schema of the chart. */
export const SETTING_RANGES = flagRanges(SETTINGS);

const COMMAND = {
  usage: [
    'reverse-tunnel-operator [FLAG ...]',
    'reverse-tunnel-operator agent|doctor|selftest|simulate|status --help',
  ],
  description:
    "Serves Envoy's ReverseTunnelReportingService and writes each reported tunnel to the Kubernetes API.",
  flags: {
    ...SETTINGS,
    config: {
      metavar: 'FILE',
      description:
        'YAML file with the flag names above as keys, such as `report-interval: 5s`; flags take precedence',
      read: nonEmpty,
    },
    version: { description: 'print the version' },
  },
  footer: `Durations: 250ms, 30s, 5m. Sizes: 512Ki, 64Mi, 1Gi.
Exit codes: 0 stopped by a signal; 1 failure; 2 invalid flag or value.`,
} as const;

/** The command line, parsed but with unchecked values. */
export interface CommandLine {
  readonly version: boolean;
  /** Path of the configuration file. */
  readonly configFile: string | undefined;
  readonly flags: RawFlags;
}

/** Parses the command line of the server. */
export function parseCommandLine(
  argv: readonly string[],
): { readonly commandLine: CommandLine } | { readonly help: string } | FlagErrors {
  const parsed = parseArguments(COMMAND, argv);
  if (!('raw' in parsed)) return parsed;
  const { version, config, ...flags } = parsed.raw;
  const configFile = typeof config === 'string' ? config : undefined;
  return { commandLine: { version: version === true, configFile, flags } };
}

/**
 * Reads the configuration from flags and a file. Flags take precedence.
 *
 * @param fileText YAML with the names of the flags as keys; undefined if there is no file
 * @returns the configuration, or all errors, one line each
 */
export function readConfig(flags: RawFlags, fileText?: string): { readonly config: Config } | FlagErrors {
  const errors: string[] = [];
  const file = fileText === undefined ? {} : parseConfigFile(fileText, errors);
  const result = readFlags(SETTINGS, flags, file);
  if ('errors' in result) errors.push(...result.errors);
  if (errors.length > 0 || 'errors' in result) return { errors };
  const { values } = result;
  const config: Config = {
    grpcAddress: values['grpc-address'],
    httpAddress: values['http-address'],
    kubeconfig: values.kubeconfig,
    namespace: values.namespace,
    replicaId: values['replica-id'],
    reportIntervalMs: values['report-interval'],
    unknownAfterMs: values['unknown-after'],
    expireAfterMs: values['expire-after'],
    removalHoldMs: values['removal-hold'],
    removalHoldThresholdPercent: values['removal-hold-threshold'],
    representation: values.representation,
    onInvalid: values['on-invalid'],
    grpcReflection: values['grpc-reflection'],
    maxMessageSizeBytes: values['max-message-size'],
    maxConnectionsPerAddress: values['max-connections-per-address'],
    maxTunnelsPerReporter: values['max-tunnels-per-reporter'],
    writeConcurrency: values['write-concurrency'],
    auth: values.auth,
    tlsCert: values['tls-cert'],
    tlsKey: values['tls-key'],
    tlsClientCa: values['tls-client-ca'],
    tokenAudience: values['token-audience'],
    requirePolicy: values['require-policy'],
    maxStreamAgeMs: values['max-stream-age'],
    logLevel: values['log-level'],
    tunnelLog: values['tunnel-log'],
  };
  // Only once each setting is valid on its own: an error in one of them would cause misleading errors here.
  const conflicts = tlsErrors(config);
  return conflicts.length === 0 ? { config } : { errors: conflicts };
}

/** Returns the text of `--help`. */
export function helpText(): string {
  return formatHelp(COMMAND);
}

/** Returns conflicts between the TLS settings. Only `insecure` allows plaintext, because a token sent in plaintext can be intercepted. */
function tlsErrors({ auth, tlsCert, tlsKey, tlsClientCa }: Config): string[] {
  const errors: string[] = [];
  const verifiesClientCerts = auth === 'mtls' || auth === 'mtls-or-token';
  if (auth !== 'insecure') {
    if (tlsCert === undefined) errors.push(`--tls-cert: required with --auth ${auth}`);
    if (tlsKey === undefined) errors.push(`--tls-key: required with --auth ${auth}`);
  } else if (tlsCert !== undefined && tlsKey === undefined) {
    errors.push('--tls-key: required with --tls-cert');
  } else if (tlsKey !== undefined && tlsCert === undefined) {
    errors.push('--tls-cert: required with --tls-key');
  }
  if (verifiesClientCerts && tlsClientCa === undefined) {
    errors.push(`--tls-client-ca: required with --auth ${auth}`);
  }
  if (!verifiesClientCerts && tlsClientCa !== undefined) {
    errors.push(
      `--tls-client-ca: not allowed with --auth ${auth}; only mtls and mtls-or-token verify certificates`,
    );
  }
  return errors;
}

function parseConfigFile(text: string, errors: string[]): RawFlags {
  let parsed: unknown;
  try {
    parsed = parseYaml(text);
  } catch (error) {
    const [line] = error instanceof Error ? error.message.split('\n') : [String(error)];
    errors.push(`--config: invalid YAML: ${line}`);
    return {};
  }
  if (parsed === null || parsed === undefined) return {};
  if (typeof parsed !== 'object' || Array.isArray(parsed)) {
    errors.push('--config: must be a YAML mapping, such as `report-interval: 5s`');
    return {};
  }
  for (const key of Object.keys(parsed)) {
    if (!Object.hasOwn(SETTINGS, key)) errors.push(`${key}: unknown setting; see --help`);
  }
  return parsed as RawFlags;
}

/** The ID and the suffix of a start must fit the 320 characters that the CRD allows for an owner. */
function replicaId(text: string): ReturnType<ReadValue<string>> {
  return /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,251}[A-Za-z0-9])?$/.test(text)
    ? { value: text }
    : { expected: 'must be at most 253 letters, digits, dashes, dots and underscores' };
}
